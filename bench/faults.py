"""Faults of a pair that owns an address, and what clients see: ``python -m bench.faults [--times N] [--only WORD]``.

``--log FILE --minutes M`` takes M minutes' worth of trials, those first of which FILE has fewest, and adds each to FILE at
once; ``--times 0 --log FILE`` tells what is there.

Directors that follow each other by leases, as they come, and by promises; and Debian's keepalived, with its default and at
0.1 s: in namespaces of the same kind, a network for etcd and each other, another one for clients. Of each fault: the time
until a handshake succeeds again, the longest time without one, and the milliseconds in which two machines answered for the
address, by ARP or handshake. A handshake is the kernel's: that of a frozen owner makes some, which nobody serves, as long
as its fence is open or its address there; where that hides the takeover the time until the other one answers says it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.cluster import quantile
from bench.freezing import freeze
from bench.machine import HERE, facts
from bench.pairs import Directors, Keepalived, Pair, address, nft
from bench.watching import Seen, Watchers, build, doubled_ms, owners, served_again_s
from deploy.lab.cluster import WEB, NotYet, until
from deploy.lab.net import CABLES, Machine, why_not
from deploy.lab.side import INTERFACE, SIDE_VIP

#: Of watching before the fault, and after what was waited for.
BEFORE_S, AFTER_S = 0.3, 0.5
#: For another owner to come; what has not come by then does not.
MOST_S = 10.0
#: How long is watched whether nothing moves: longer than keepalived's 3.6 s; where etcd is away; than any promise.
STILL_S, AWAY_S, ETCD_STILL_S = 4.0, 5.0, 2.0
#: etcd is slow: its members stand still for this long out of twice as long.
SLOW_S = 0.04
#: How long is watched after a fault is over: a thawed owner acts at once, keepalived's master within its interval.
HEALED_S = 1.5


# --- faults


class Fault(NamedTuple):
    """*strike* and *heal* may answer the instant from which the time without a handshake counts instead of the strike's."""

    name: str
    strike: Callable[[Any, Machine], int | None]
    heal: Callable[[Any, Machine], int | None]
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


def _etcd_leader_and_owner(pair: Directors, owner: Machine) -> int:
    """Counts from when the others have a leader again."""
    dead = pair.cluster.etcd_leader()
    before = dead.leader()
    dead.kill()
    _kill(pair, owner)
    others = [each for each in pair.cluster.etcd if each is not dead]
    until(lambda: any(each.leader() not in ("0", before) for each in others), "etcd has another leader", every_s=0.005)
    return boot_ns()


def _slow(pair: Directors, owner: Machine) -> None:
    """Cut from the other, and every transaction takes up to `SLOW_S` longer."""
    pair.cut(owner, pair.other(owner))
    over = threading.Event()

    def slow() -> None:
        while not over.wait(SLOW_S):
            for member in pair.cluster.etcd:
                member.freeze()
            time.sleep(SLOW_S)
            for member in pair.cluster.etcd:
                member.thaw()

    thread = threading.Thread(target=slow)
    thread.start()

    def end() -> None:
        over.set()
        thread.join()
        pair.heal(*pair.machines)

    pair.thaw = end


def _etcd_and_other(pair: Directors, owner: Machine) -> None:
    pair.signal(pair.other(owner), signal.SIGKILL)
    _etcd_all(pair, owner)


def _etcd_back_alone(pair: Directors, owner: Machine) -> int:
    """Counts from when etcd takes transactions again; the other director comes back after that."""
    _etcd_back(pair, owner)
    until(lambda: any(each.leader() != "0" for each in pair.cluster.etcd), "etcd has a leader", every_s=0.005)
    back = boot_ns()
    time.sleep(HEALED_S)
    pair.begin(pair.other(owner))
    return back


def _revoke(pair: Directors, owner: Machine) -> None:
    """Every lease that there is: of leadership by leases, and of membership."""
    etcd = pair.cluster.etcd[0]
    for lease in etcd.post("/v3/lease/leases", {})["leases"]:
        etcd.post("/v3/lease/revoke", {"ID": lease["ID"]})


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
    Fault("etcd away for 5 s", _etcd_all, _etcd_back, moves=False, etcd=True),
    Fault("cut from the other, and etcd slow", _slow, lambda pair, owner: pair.thaw(), moves=False, etcd=True),
    Fault("the leader's record deleted by hand", _delete_record, lambda pair, owner: None, moves=False, etcd=True),
    Fault("every lease revoked by hand", _revoke, lambda pair, owner: None, moves=False, etcd=True),
    Fault("the other and all of etcd lost", _etcd_and_other, _etcd_back_alone, moves=False, etcd=True),
    Fault("SIGKILL during an etcd election", _etcd_leader_and_owner, _both_back, etcd=True),
    Fault("SIGSTOP, and nft flush ruleset", _freeze_and_flush, _thaw_and_restore, etcd=True),
    Fault("SIGSTOP, and its fence removed", _freeze_and_unfence,
          lambda pair, owner: pair.signal(owner, signal.SIGCONT), etcd=True),
)


class Trial(NamedTuple):
    other_s: float  #: from the strike until another machine answered for the address; `NEVER`
    again_s: float
    gap_s: float
    doubled_ms: int
    moved: bool
    late_ms: float


#: No other machine answered.
NEVER = -1.0


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def trial(pair: Pair, fault: Fault, watchers: Callable[[], Watchers]) -> Trial:
    pair.ready()
    owner = pair.owner()
    time.sleep(random.uniform(0, 2))  # at any moment between renewals
    watching = watchers()
    time.sleep(BEFORE_S)
    began = boot_ns()
    counts = fault.strike(pair, owner) or began
    if fault.moves:
        with contextlib.suppress(NotYet):
            until(lambda: pair.side.holds(pair.other(owner)), "another owner", MOST_S, every_s=0.05)
        time.sleep(AFTER_S)
    else:
        time.sleep(AWAY_S if fault.strike is _etcd_all else ETCD_STILL_S if fault.etcd else STILL_S)
    struck = boot_ns()
    counts = fault.heal(pair, owner) or counts
    time.sleep(HEALED_S)
    ended = boot_ns()
    seen: Seen = watching.stop()
    again_s, gap_s = served_again_s(seen, counts, struck if fault.moves else ended)
    answers = [each for each in seen.answers if each[0] >= began]
    mac = pair.side.mac(owner)
    other_s = next(((at - began) / 1e9 for at, whose in answers if whose != mac), NEVER)
    return Trial(other_s, again_s, gap_s, doubled_ms(seen.answers), len(owners(answers)) > 1, seen.late_ns / 1e6)


def summary(trials: list[Trial]) -> dict[str, float]:
    again, gaps = [each.again_s for each in trials], [each.gap_s for each in trials]
    other = [each.other_s for each in trials if each.other_s != NEVER]
    return {
        "other_p50_s": quantile(other, 0.5) if other else NEVER, "other_p99_s": quantile(other, 0.99) if other else NEVER,
        "again_p50_s": quantile(again, 0.5), "again_p99_s": quantile(again, 0.99), "gap_p50_s": quantile(gaps, 0.5),
        "gap_p99_s": quantile(gaps, 0.99), "doubled_ms": sum(each.doubled_ms for each in trials),
        "doubled_trials": sum(each.doubled_ms > 0 for each in trials), "moved": sum(each.moved for each in trials),
        "never_failed": sum(each.gap_s == 0 for each in trials), "count": len(trials),
        "observer_late_ms": max(each.late_ms for each in trials),
    }


def table(faults: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """For people: p50 and p99 of the time until the other one answers, and until clients succeed again; two owners."""
    yield f"| fault | {' | '.join(SYSTEMS)} |"
    yield "|---" * (1 + len(SYSTEMS)) + "|"
    for name, by_system in faults.items():
        cells = (f"other {each['other_p50_s']:.2f} / {each['other_p99_s']:.2f} s, clients {each['again_p50_s']:.2f} / "
                 f"{each['again_p99_s']:.2f} s (never failed in {each['never_failed']:.0f}), two owners "
                 f"{each['doubled_ms']:.0f} ms, moved {each['moved']:.0f} of {each['count']:.0f}" if each else "–"
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


class Log:
    """Trials by fault and system, in a file besides where one is named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.trials: dict[str, dict[str, list[Trial]]] = {fault.name: {} for fault in FAULTS}
        if path is not None and path.exists():
            for fault, system, trial in map(json.loads, path.read_text().splitlines()):
                self._keep(fault, system, Trial(*trial))

    def _keep(self, fault: str, system: str, trial: Trial) -> None:
        self.trials[fault].setdefault(system, []).append(trial)

    def add(self, fault: str, system: str, trial: Trial) -> None:
        self._keep(fault, system, trial)
        print(f"{fault}: {system}: {json.dumps(trial._asdict())}", file=sys.stderr, flush=True)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps([fault, system, trial]) + "\n")

    def count(self, fault: Fault, system: str) -> int:
        return len(self.trials[fault.name].get(system, ()))

    def summaries(self) -> dict[str, dict[str, dict[str, float]]]:
        return {fault: {system: summary(trials) for system, trials in by_system.items()}
                for fault, by_system in self.trials.items() if by_system}


def try_all(name: str, faults: list[Fault], log: Log, times: int, until_s: float) -> None:
    """One after the other, that with the fewest trials first, so that whatever ends it leaves as many of each."""
    with running(SYSTEMS[name]) as (pair, watchers):
        mine = [fault for fault in faults if isinstance(pair, Directors) or not fault.etcd]
        while time.monotonic() < until_s and mine:
            fault = min(mine, key=lambda fault: log.count(fault, name))
            if log.count(fault, name) >= times:
                return
            log.add(fault.name, name, trial(pair, fault, watchers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of each system; none is begun after that")
    parser.add_argument("--log", type=Path, help="where each trial is added; those that are there count")
    parser.add_argument("--system", choices=SYSTEMS, help="one of them; no summary is written")
    parser.add_argument("--only", default="", help="faults whose names have this in them; no summary is written")
    options = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"this bench needs network namespaces: {reason}")
    log = Log(options.log)
    for name in SYSTEMS if options.times else ():
        if options.system in (None, name):
            faults = [fault for fault in FAULTS if options.only in fault.name]
            try_all(name, faults, log, options.times, time.monotonic() + 60 * options.minutes)
    result = {"at": datetime.now(UTC).isoformat(timespec="seconds")} | facts() | {"faults": log.summaries()}
    print(json.dumps(result, indent=1))
    print("\n".join(table(result["faults"])))
    if options.system or options.only:
        return
    path = HERE / "results" / f"faults-{datetime.now(UTC):%Y%m%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
