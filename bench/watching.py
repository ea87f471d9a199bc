"""What `watch.c` saw, and what it means: when clients were served again, and for how long two machines answered."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, NamedTuple

from bench.machine import HERE
from deploy.lab.net import Machine

#: So often a client makes a handshake that is then a connection of the balancer's; that every millisecond would be its load.
CONNECT_EVERY_MS = 5
#: Gaps between successful handshakes up to this, and by what the observer was late, are its own.
GAP_NS = 30_000_000
MS_NS = 1_000_000


class Seen(NamedTuple):
    """Of one trial, all instants in nanoseconds of CLOCK_BOOTTIME."""

    handshakes: list[int]  #: when they succeeded
    answers: list[tuple[int, str]]  #: when, and whose MAC
    late_ns: int  #: the longest that an observer was late


class Watchers:
    """Two clients and two observers of who answers, each on a machine of its own, from its making to `stop`.

    :param program: see `build`.
    """

    def __init__(self, program: Path, address: str, port: int, clients: Sequence[Machine],
                 observers: Sequence[tuple[Machine, str]], interface: str, macs: Iterable[str]) -> None:
        self._machines = [*clients, *(machine for machine, _ in observers)]
        connects = (str(program), "connects", address, str(port), str(CONNECT_EVERY_MS))
        answers = [(str(program), "answers", address, str(port), interface, own, *macs) for _, own in observers]
        self._outputs: list[IO[bytes]] = []
        self._running = []
        for machine, words in zip(self._machines, [*[connects] * len(clients), *answers], strict=True):
            self._outputs.append(tempfile.TemporaryFile())  # noqa: SIM115 - until `stop`; a pipe that nobody reads fills up
            self._running.append(machine.start(*words, stdout=self._outputs[-1].fileno()))

    def stop(self) -> Seen:
        handshakes, answers, late = [], [], 0
        for machine, process, output in zip(self._machines, self._running, self._outputs, strict=True):
            process.communicate()
            machine.processes.remove(process)
            with output:
                output.seek(0)
                said = output.read().decode()
            for line in said.splitlines():
                match line.split():
                    case ["ticks", _, "late", worst]:
                        late = max(late, int(worst))
                    case [_, done]:
                        handshakes.append(int(done))
                    case [at, "arp" | "syn", mac]:
                        answers.append((int(at), mac))
        return Seen(sorted(handshakes), sorted(answers), late)


def build(directory: Path) -> Path:
    """Compile the observer. Raises CalledProcessError."""
    program = directory / "watch"
    subprocess.run(["cc", "-O2", "-o", str(program), str(HERE / "watch.c")], check=True, stdout=sys.stderr)
    return program


def served_again_s(seen: Seen, since: int, until: int) -> tuple[float, float]:
    """From *since* until the end of the longest time without a handshake, and how long that was; zeros: there was none."""
    times = [since, *(each for each in seen.handshakes if since <= each <= until), until]
    longest, end = max((later - earlier, later) for earlier, later in pairwise(times))
    return ((end - since) / 1e9, longest / 1e9) if longest > GAP_NS + seen.late_ns else (0.0, 0.0)


def doubled_ms(answers: Sequence[tuple[int, str]]) -> int:
    """Milliseconds in which two machines answered. One that stopped before the other began, in the same millisecond, is one
    after the other."""
    by_ms: dict[int, list[str]] = {}
    for at, mac in answers:
        by_ms.setdefault(at // MS_NS, []).append(mac)
    return sum(len(set(macs)) > 1 and not _handed_over(macs) for macs in by_ms.values())


def _handed_over(macs: Sequence[str]) -> bool:
    changes = sum(one != two for one, two in pairwise(macs))
    return changes == 1


def owners(answers: Sequence[tuple[int, str]]) -> list[str]:
    """Who answered, in turn."""
    found: list[str] = []
    for _, mac in answers:
        if not found or found[-1] != mac:
            found.append(mac)
    return found
