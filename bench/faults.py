"""Faults of a pair that owns an address, and what clients see: ``python -m bench.faults [--times N] [--only WORD]``.

Directors that follow each other by leases, as they come, and by promises; and Debian's keepalived, with its default and at
0.1 s: in namespaces of the same kind, a network for etcd and each other, another one for clients. Of each fault: the time
until a handshake succeeds again, the longest time without one, and the milliseconds in which two machines answered for the
address, by ARP or handshake.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.cluster import quantile
from bench.freezing import freeze
from bench.machine import HERE, facts
from bench.watching import Seen, Watchers, build, doubled_ms, owners, served_again_s
from deploy.lab.cluster import WEB, Cluster, NotYet, all_up, until
from deploy.lab.net import CABLES, Lab, Machine, why_not
from deploy.lab.side import INTERFACE, NETWORK, SIDE_VIP, Side, with_side

#: Of watching before the fault, and after what was waited for.
BEFORE_S, AFTER_S = 0.3, 0.5
#: For another owner to come; what has not come by then does not.
MOST_S = 10.0
#: How long is watched whether nothing moves.
STILL_S = 4.0
#: How long is watched after a fault is over: a thawed owner acts at once, keepalived's master within its interval.
HEALED_S = 1.5


class Pair:
    """Two machines of which one owns `SIDE_VIP`."""

    lab: Lab
    side: Side
    machines: list[Machine]
    thaw: Callable[[], None]  #: what `freeze` froze

    def signal(self, machine: Machine, number: int) -> None:
        """To all of the pair's processes there."""
        raise NotImplementedError

    def begin(self, machine: Machine) -> None:
        """Start what should run there."""
        raise NotImplementedError

    def ready(self) -> None:
        """Wait until all is well."""
        raise NotImplementedError

    def owner(self) -> Machine:
        """Raises NotYet."""
        return until(lambda: [each for each in self.machines if self.side.holds(each)], "an owner")[0]

    def other(self, machine: Machine) -> Machine:
        return next(each for each in self.machines if each is not machine)

    def deafen(self, machine: Machine, *others: Machine) -> None:
        """The machine hears nothing of the others any more, by neither network."""
        nft(machine, *(f"add rule inet cables in ip saddr {{ {address(other)}, {other.address} }} drop" for other in others))

    def cut(self, machine: Machine, *others: Machine) -> None:
        """Nothing passes between the machine and the others."""
        self.deafen(machine, *others)
        for other in others:
            self.deafen(other, machine)

    def heal(self, *machines: Machine) -> None:
        for machine in machines:
            nft(machine, "flush chain inet cables in")

    def power(self, machine: Machine, *, there: bool) -> None:
        """All its cables."""
        self.side.carrier(machine, there=there)
        cable = f"{self.lab.prefix}c{machine.address.rpartition('.')[2]}"
        subprocess.run(["ip", "-n", self.lab.switch, "link", "set", cable, "up" if there else "down"], check=True)


class Directors(Pair):
    def __init__(self, directory: Path, node: str = "") -> None:
        self.cluster = Cluster(directory, etcd=3, backends=1, node=node)
        assert isinstance(self.cluster.lab, Lab)
        self.lab = self.cluster.lab
        self.side = with_side(self.cluster)
        self.machines = [each.machine for each in self.cluster.directors]
        self.cluster._vip = False  # it is on the other side
        self.cluster.start()

    def signal(self, machine: Machine, number: int) -> None:
        director = self._on(machine)
        director.signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            assert director.process is not None
            director.process.wait()

    def begin(self, machine: Machine) -> None:
        self._on(machine).start()

    def ready(self) -> None:
        for member in self.cluster.etcd:
            until(member.healthy, f"{member.name} is healthy")
        for director in self.cluster.directors:
            until(lambda director=director: all_up(director, 1), f"{director.name} is well")
        self.owner()

    def _on(self, machine: Machine) -> Any:
        return next(each for each in self.cluster.directors if each.machine is machine)


class Keepalived(Pair):
    """With a server on each machine that does nothing but accept."""

    SERVER = ("import socket\ns = socket.create_server(('', {port}), backlog=4096)\nwhile True:\n"
              "    c, _ = s.accept()\n    c.close()\n")

    def __init__(self, directory: Path, interval: str) -> None:
        self.lab = Lab()
        self.side = Side(self.lab)
        self.machines = [self.lab.machine(f"keepalived{n}") for n in (1, 2)]
        self._directory = directory
        self._running: dict[str, list[subprocess.Popen[bytes]]] = {}
        for priority, machine in zip((100, 90), self.machines, strict=True):
            self.side.plug(machine)
            (directory / f"{machine.name}.conf").write_text(f"""
global_defs {{
    vrrp_version 3
}}
vrrp_instance pair {{
    state BACKUP
    nopreempt
    interface {INTERFACE}
    virtual_router_id 51
    priority {priority}
    advert_int {interval}
    virtual_ipaddress {{
        {SIDE_VIP}/24
    }}
}}
""")
            self.begin(machine)

    def signal(self, machine: Machine, number: int) -> None:
        for process in self._running[machine.name]:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            pids = [int(each) for each in children.read_text().split()] if children.exists() else []
            for pid in (process.pid, *pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                process.wait()

    def begin(self, machine: Machine) -> None:
        name = machine.name
        for kind in ("pid", "vrrp"):  # of a dead one, which would be taken for a living one
            (self._directory / f"{name}.{kind}").unlink(missing_ok=True)
        # What a dead one left on the interface it would take for another's, and leave there.
        subprocess.run(["ip", "-n", machine.namespace, "address", "del", f"{SIDE_VIP}/24", "dev", INTERFACE], check=False,
                       stderr=subprocess.DEVNULL)
        with (self._directory / f"{name}.log").open("ab") as log:
            self._running[name] = [
                machine.start(sys.executable, "-c", self.SERVER.format(port=WEB)),
                machine.start("keepalived", "--dont-fork", "--log-console", "--vrrp", "--use-file",
                              str(self._directory / f"{name}.conf"), "--pid", str(self._directory / f"{name}.pid"),
                              "--vrrp_pid", str(self._directory / f"{name}.vrrp"), log=log),
            ]

    def ready(self) -> None:
        until(lambda: sum(self.side.holds(each) for each in self.machines) == 1, "one owner")
        time.sleep(1)


def nft(machine: Machine, *commands: str) -> None:
    subprocess.run(["ip", "netns", "exec", machine.namespace, "nft", "; ".join(commands)], check=True)


def address(machine: Machine) -> str:
    """On the clients' side."""
    return f"{NETWORK}.{machine.address.rpartition('.')[2]}"


# --- faults


class Fault(NamedTuple):
    name: str
    strike: Callable[[Any, Machine], None]
    heal: Callable[[Any, Machine], None]
    moves: bool = True  #: the other should own the address then
    etcd: bool = False  #: it is of directors only


def _kill(pair: Pair, owner: Machine) -> None:
    pair.signal(owner, signal.SIGKILL)


def _restart(pair: Pair, owner: Machine) -> None:
    pair.begin(owner)


def _off(pair: Pair, owner: Machine) -> None:
    pair.power(owner, there=False)


def _on(pair: Pair, owner: Machine) -> None:
    """As after a power loss: nothing runs there that ran before."""
    pair.signal(owner, signal.SIGKILL)
    pair.power(owner, there=True)
    pair.begin(owner)


def _etcd_leader(pair: Directors, owner: Machine) -> None:
    pair.cluster.etcd_leader().kill()


def _etcd_all(pair: Directors, owner: Machine) -> None:
    for member in pair.cluster.etcd:
        member.kill()


def _etcd_back(pair: Directors, owner: Machine) -> None:
    for member in pair.cluster.etcd:
        if member.process is not None and member.process.poll() is not None:
            member.start()


def _etcd_leader_and_owner(pair: Directors, owner: Machine) -> None:
    _etcd_leader(pair, owner)
    _kill(pair, owner)


def _both_back(pair: Directors, owner: Machine) -> None:
    _etcd_back(pair, owner)
    pair.begin(owner)


def _etcd(pair: Directors) -> list[Machine]:
    return [each.machine for each in pair.cluster.etcd]


def _freeze_and_flush(pair: Directors, owner: Machine) -> None:
    pair.signal(owner, signal.SIGSTOP)
    nft(owner, "flush ruleset")


def _thaw_and_restore(pair: Directors, owner: Machine) -> None:
    pair.signal(owner, signal.SIGCONT)
    nft(owner, *CABLES)


def _freeze_and_unfence(pair: Directors, owner: Machine) -> None:
    pair.signal(owner, signal.SIGSTOP)
    subprocess.run(["tc", "-n", owner.namespace, "qdisc", "del", "dev", INTERFACE, "clsact"], check=True)


def _freeze_group(pair: Directors, owner: Machine) -> None:
    process = pair._on(owner).process
    assert process is not None
    pair.thaw = freeze([process.pid])


def _delete_record(pair: Directors, owner: Machine) -> None:
    """The leader's, by leases and by promises."""
    key = base64.b64encode(b"/txdirector/lab/leader").decode()
    pair.cluster.etcd[0].post("/v3/kv/deleterange", {"key": key})


FAULTS = (
    Fault("SIGKILL of the owner", _kill, _restart),
    Fault("SIGSTOP, later SIGCONT", lambda pair, owner: pair.signal(owner, signal.SIGSTOP),
          lambda pair, owner: pair.signal(owner, signal.SIGCONT)),
    Fault("frozen by its control group, later thawed", _freeze_group, lambda pair, owner: pair.thaw(), etcd=True),
    Fault("power loss", _off, _on),
    Fault("carrier lost on the clients' side", lambda pair, owner: pair.side.carrier(owner, there=False),
          lambda pair, owner: pair.side.carrier(owner, there=True)),
    Fault("orderly stop", lambda pair, owner: pair.signal(owner, signal.SIGTERM), _restart),
    Fault("cut from the other, both ways", lambda pair, owner: pair.cut(owner, pair.other(owner)),
          lambda pair, owner: pair.heal(*pair.machines), moves=False),
    Fault("not heard by the other", lambda pair, owner: pair.deafen(pair.other(owner), owner),
          lambda pair, owner: pair.heal(*pair.machines), moves=False),
    Fault("cut from etcd", lambda pair, owner: pair.cut(owner, *_etcd(pair)),
          lambda pair, owner: pair.heal(owner, *_etcd(pair)), moves=False, etcd=True),
    Fault("etcd's leader killed", _etcd_leader, _etcd_back, moves=False, etcd=True),
    Fault("etcd away for 4 s", _etcd_all, _etcd_back, moves=False, etcd=True),
    Fault("the leader's record deleted by hand", _delete_record, lambda pair, owner: None, moves=False, etcd=True),
    Fault("SIGKILL during an etcd election", _etcd_leader_and_owner, _both_back, etcd=True),
    Fault("SIGSTOP, and nft flush ruleset", _freeze_and_flush, _thaw_and_restore, etcd=True),
    Fault("SIGSTOP, and its fence removed", _freeze_and_unfence,
          lambda pair, owner: pair.signal(owner, signal.SIGCONT), etcd=True),
)


class Trial(NamedTuple):
    again_s: float
    gap_s: float
    doubled_ms: int
    moved: bool
    late_ms: float


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def trial(pair: Pair, fault: Fault, watchers: Callable[[], Watchers]) -> Trial:
    pair.ready()
    owner = pair.owner()
    time.sleep(random.uniform(0, 2))  # at any moment between renewals
    watching = watchers()
    time.sleep(BEFORE_S)
    began = boot_ns()
    fault.strike(pair, owner)
    if fault.moves:
        with contextlib.suppress(NotYet):
            until(lambda: pair.side.holds(pair.other(owner)), "another owner", MOST_S, every_s=0.01)
        time.sleep(AFTER_S)
    else:
        time.sleep(STILL_S)
    struck = boot_ns()
    fault.heal(pair, owner)
    time.sleep(HEALED_S)
    ended = boot_ns()
    seen: Seen = watching.stop()
    again_s, gap_s = served_again_s(seen, began, struck if fault.moves else ended)
    moved = len(owners([each for each in seen.answers if each[0] >= began])) > 1
    return Trial(again_s, gap_s, doubled_ms(seen.answers), moved, seen.late_ns / 1e6)


def summary(trials: list[Trial]) -> dict[str, float]:
    again, gaps = [each.again_s for each in trials], [each.gap_s for each in trials]
    return {
        "again_p50_s": quantile(again, 0.5), "again_p99_s": quantile(again, 0.99), "gap_p50_s": quantile(gaps, 0.5),
        "gap_p99_s": quantile(gaps, 0.99), "doubled_ms": sum(each.doubled_ms for each in trials),
        "doubled_trials": sum(each.doubled_ms > 0 for each in trials), "moved": sum(each.moved for each in trials),
        "count": len(trials), "observer_late_ms": max(each.late_ms for each in trials),
    }


def table(faults: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """For people: p50 and p99 of the time until clients are served again, and milliseconds with two owners."""
    yield f"| fault | {' | '.join(SYSTEMS)} |"
    yield "|---" * (1 + len(SYSTEMS)) + "|"
    for name, by_system in faults.items():
        cells = (f"{each['again_p50_s']:.2f} / {each['again_p99_s']:.2f} s, two owners {each['doubled_ms']:.0f} ms, "
                 f"moved {each['moved']:.0f} of {each['count']:.0f}" if each else "–"
                 for each in (by_system.get(system) for system in SYSTEMS))
        yield f"| {name} | {' | '.join(cells)} |"


SYSTEMS: dict[str, Callable[[Path], Pair]] = {
    "directors": Directors,
    "directors, promises": lambda directory: Directors(directory, 'takeover = "promises"'),
    "keepalived": lambda directory: Keepalived(directory, "1"),
    "keepalived, 0.1 s": lambda directory: Keepalived(directory, "0.1"),
}


@contextmanager
def running(make: Callable[[Path], Pair]) -> Iterator[tuple[Pair, Callable[[], Watchers]]]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        pair = make(directory)
        try:
            program = build(directory)
            clients = [pair.lab.machine(f"client{n}") for n in (1, 2)]
            observers = [pair.lab.machine(f"observer{n}") for n in (1, 2)]
            for machine in (*clients, *observers):
                pair.side.plug(machine)
            macs = [pair.side.mac(machine) for machine in pair.machines]
            yield pair, lambda: Watchers(program, SIDE_VIP, WEB, clients, [(each, address(each)) for each in observers],
                                         INTERFACE, macs)
        finally:
            pair.lab.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--system", choices=SYSTEMS, help="one of them; nothing is written")
    parser.add_argument("--only", help="faults whose names have this in them; nothing is written")
    options = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"this bench needs network namespaces: {reason}")
    result: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds")} | facts() | {"faults": {}}
    for name, make in SYSTEMS.items():
        if options.system not in (None, name):
            continue
        with running(make) as (pair, watchers):
            for fault in FAULTS:
                if (fault.etcd and not isinstance(pair, Directors)) or (options.only or "") not in fault.name:
                    continue
                trials = [trial(pair, fault, watchers) for _ in range(options.times)]
                result["faults"].setdefault(fault.name, {})[name] = found = summary(trials)
                print(f"{fault.name}: {name}: {json.dumps(found)}", file=sys.stderr, flush=True)
    print(json.dumps(result, indent=1))
    print("\n".join(table(result["faults"])))
    if options.system or options.only:
        return
    path = HERE / "results" / f"faults-{datetime.now(UTC):%Y%m%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
