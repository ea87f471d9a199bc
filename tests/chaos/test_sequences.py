"""Random sequences of faults on two directors that follow each other by promises: never two owners, watched packet by packet,
and somebody serves within a bound when no fault is left, and while one alone is there that the documentation says is none.

A sequence is its seed: ``SEQUENCE_SEED=N SEQUENCES=1`` does one alone. A failure tells it, and what was done. One cluster
lives through all of them. ``make soak`` does 1,000, an hour and a half; CI as many as fit into a minute and a half.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from bench.faults import FAULTS, Fault, boot_ns, running
from bench.freezing import freeze
from bench.pairs import Directors
from bench.watching import doubled_ms
from deploy.lab.cluster import WEB, until
from deploy.lab.net import Machine
from deploy.lab.side import INTERFACE, SIDE_VIP
from tests.chaos.kit import require_namespaces

SEQUENCES = int(os.environ.get("SEQUENCES", "15"))
SEED = int(os.environ.get("SEQUENCE_SEED", "1"))
#: Of the directors: patient, so that a machine that is busy loses no promise; how fast it can be the bench says.
TAKEOVER_S = float(os.environ.get("SEQUENCE_TAKEOVER_S", "2.0"))
#: Until somebody serves while one fault is there: the promise, and what a busy machine takes for it.
SERVED_S = float(os.environ.get("SEQUENCE_SERVED_S", "10"))
#: Until somebody serves when all faults are over: a director starts, etcd elects; and until all is as before.
HEALED_S = 30.0
NODE = f'takeover = "promises"\ntakeover_s = {TAKEOVER_S}'
MOST_FAULTS = 4
#: Between one step and the next: now within a promise, now beyond it.
PAUSE_S = (0.0, 0.8)

#: What a fault touches of the machine, and of all; of two that touch the same, one is over before the other begins.
PROCESS, SIDE, LINKS, ETCD, UNDO = "process", "side", "links", "etcd", "undo"
OF_MACHINE = {PROCESS, SIDE}
TOUCHES = {
    "SIGKILL of the owner": {PROCESS},
    "SIGSTOP, later SIGCONT": {PROCESS},
    "frozen by its control group, later thawed": {PROCESS, UNDO},
    "power loss": {PROCESS, SIDE},
    "carrier lost on the clients' side": {SIDE},
    "orderly stop": {PROCESS},
    "cut from the other, both ways": {LINKS},
    "not heard by the other": {LINKS},
    "cut from etcd": {LINKS},
    "etcd's leader killed": {ETCD},
    "etcd away for 5 s": {ETCD},
    "cut from the other, and etcd slow": {LINKS, ETCD, UNDO},
    "every lease revoked by hand": {ETCD},
    "SIGSTOP, and nft flush ruleset": {PROCESS, LINKS},
    "the fence's filter removed": {PROCESS},
}


def _unfence(pair: Directors, machine: Machine) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):  # it was not there yet, or is being put back
        subprocess.run(["tc", "-n", machine.namespace, "qdisc", "del", "dev", INTERFACE, "clsact"], check=True,
                       stderr=subprocess.DEVNULL)


def _fenced(pair: Directors, machine: Machine) -> None:
    words = ("tc", "-n", machine.namespace, "filter", "show", "dev", INTERFACE, "egress")
    until(lambda: subprocess.run(words, check=True, capture_output=True).stdout, "the fence is put back", every_s=0.05)


KNOWN = {fault.name: fault for fault in (*FAULTS, Fault("the fence's filter removed", _unfence, _fenced))}


class Step(NamedTuple):
    fault: str
    machine: int
    alone: bool  #: when all is well, and until somebody serves
    pause_s: float
    heal: int | None  #: which of the steps' faults is over instead

    def __str__(self) -> str:
        if self.heal is not None:
            return f"{self.fault} is over ({self.heal}), {self.pause_s:.2f} s"
        return f"{self.fault} at {self.machine}{', alone' if self.alone else ''}, {self.pause_s:.2f} s"


def plan(chance: random.Random, kinds: list[str]) -> list[Step]:
    """Faults begin and are over in any order; all are over in the end."""
    steps: list[Step] = []
    there: list[int] = []  # indices of steps
    left = chance.randint(1, MOST_FAULTS)
    while left or there:
        pause_s = chance.uniform(*PAUSE_S)
        fault, machine = chance.choice(kinds), chance.choice((0, 0, 0, 1))
        taken = set().union(*(_touched(steps[each]) for each in there))
        if left and not taken & _touched(Step(fault, machine, False, 0, None)) and chance.random() < (0.6 if there else 1):
            alone = not there and chance.random() < 0.5
            there.append(len(steps))
            steps.append(Step(fault, machine, alone, pause_s, None))
            left -= 1
        elif there:
            over = there.pop(chance.randrange(len(there)))
            steps.append(Step(steps[over].fault, steps[over].machine, False, pause_s, over))
    return steps


def _touched(step: Step) -> set[Any]:
    return {(each, step.machine) if each in OF_MACHINE else each for each in TOUCHES[step.fault]}


class SequencesTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_namespaces()

    def test_random(self) -> None:
        kinds = sorted(TOUCHES)
        try:
            freeze([])()
        except OSError:
            kinds.remove("frozen by its control group, later thawed")
        took: list[float] = []
        with running(lambda directory: Directors(directory, NODE)) as (pair, watchers):
            assert isinstance(pair, Directors)
            client = pair.lab.machine("asking")
            pair.side.plug(client)
            pair.ready()
            for seed in range(SEED, SEED + SEQUENCES):
                steps = plan(random.Random(seed), kinds)
                with self._told(pair, seed, steps):
                    watching = watchers()
                    try:
                        took += play(pair, client, steps)
                    finally:
                        seen = watching.stop()
                    self.assertTrue(seen.answers)
                    self.assertEqual(doubled_ms(seen.answers), 0, "milliseconds with two owners")
                print(f"sequence {seed}: well", flush=True)
        took.sort()
        print(f"{SEQUENCES} sequences from {SEED}; somebody served after {took[len(took) // 2]:.2f} s, {took[-1]:.2f} s at most")

    @contextlib.contextmanager
    def _told(self, pair: Directors, seed: int, steps: list[Step]) -> Iterator[None]:
        """Of a sequence that fails: how to repeat it, what it did, and the ends of the logs."""
        try:
            yield
        except BaseException:
            print(f"SEQUENCE_SEED={seed} SEQUENCES=1:", *steps, sep="\n  ")
            self.tails = {each.name: "\n".join(each.log.splitlines()[-60:]) for each in pair.cluster.directors}
            raise


def play(pair: Directors, client: Machine, steps: list[Step]) -> list[float]:
    """Answers how long it took until somebody served, of the faults that were alone, and of the end."""
    took = []
    owner = pair.owner()
    machines = (owner, pair.other(owner))
    for step in steps:
        if step.heal is not None:
            KNOWN[step.fault].heal(pair, machines[step.machine])
            time.sleep(step.pause_s)
            continue
        if step.alone:
            pair.ready()
        KNOWN[step.fault].strike(pair, machines[step.machine])
        if step.alone:
            took.append(served(client, SERVED_S, f"somebody serves with one fault: {step}"))
        time.sleep(step.pause_s)
    took.append(served(client, HEALED_S, "somebody serves when all faults are over"))
    pair.ready()
    return took


def served(client: Machine, within_s: float, what: str) -> float:
    """Seconds until a client of the address heard from the backend. Raises NotYet."""
    began = boot_ns()
    until(lambda: _asked(client), what, within_s)
    return (boot_ns() - began) / 1e9


def _asked(client: Machine) -> bool:
    with client.inside():
        sock = socket.socket()
    with sock:
        sock.settimeout(0.3)
        sock.connect((SIDE_VIP, WEB))
        return bool(sock.recv(64))

