"""Probes that a program makes: an own process for each, which passes by exiting with 0.

The program is run as it stands in ``command``, without a shell, as the director's user, in a session and process group of
its own. What it says on stdout and stderr is kept in part, for the operator. When it has exited, or its time is over, all of
its process group is killed, so that nothing it began outlives it.

Programs come from the cluster's configuration, which whoever has full access to the admin can change; so this node says in
which directory they have to be (``node.scripts``), and by default runs none.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, succeed
from twisted.logger import Logger

from cluster.address import Address
from cluster.model import HostRef, Probe
from cluster.shortage import PROCESSES, short_of
from director.checks.child import Child, inherited_by_child
from director.checks.probes import ProbeResult
from director.checks.programs import refusal
from director.resources.shortages import PROBE, Shortages
from director.timing.seldom import Seldom, more

#: Scripts under way at the same time, over all hosts: each is a process, with two descriptors here, and may be busy.
MAX_SCRIPTS = 16
#: How long it is told that a program could not be begun, after the last time that it was tried.
PROBLEM_S = 60.0


def environment(target: Address, ref: HostRef, inherited: Mapping[str, str]) -> dict[str, str]:
    """What a script is told of the host. The port of a UNIX socket is empty, its address the path."""
    return inherited_by_child(inherited) | {
        "TXDIRECTOR_SERVICE": ref.service, "TXDIRECTOR_GROUP": ref.group, "TXDIRECTOR_HOST": ref.host,
        "TXDIRECTOR_ADDRESS": target.path if target.path is not None else target.host,
        "TXDIRECTOR_PORT": "" if target.is_unix else str(target.port),
    }


class Scripts(Service):
    """Runs script probes, at most `MAX_SCRIPTS` at a time, in the order they were asked for.

    A program that could not be begun says nothing about a host: there is no result, and `problems` says so.

    :param directory: where the programs have to be; None: there are none.
    :param inherited: the director's own environment.
    """

    log = Logger()

    def __init__(self, directory: str | None, *, reactor: Any, monotonic: Callable[[], float] = time.monotonic,
                 shortages: Shortages | None = None, inherited: Mapping[str, str] = os.environ) -> None:
        self.setName("scripts")
        self._directory = directory
        self._reactor = reactor
        self._monotonic = monotonic
        self._shortages = shortages or Shortages(monotonic=monotonic)
        self._inherited = inherited
        self._gate = DeferredSemaphore(MAX_SCRIPTS)
        self._running: dict[Deferred[ProbeResult], tuple[Deferred[None], Callable[[], None]]] = {}
        self._seldom = Seldom(monotonic=monotonic)
        self._problems: dict[str, tuple[str, float]] = {}  # by program: why not, and until when that is news

    @property
    def problems(self) -> tuple[str, ...]:
        """Programs that could not be begun lately, and why, for the operator."""
        now = self._monotonic()
        self._problems = {program: told for program, told in self._problems.items() if now < told[1]}
        return tuple(f"probes by {program} are not made: {why}" for program, (why, _) in self._problems.items())

    def probe(self, target: Address, spec: Probe, ref: HostRef) -> Deferred[ProbeResult]:
        """Run the command of *spec* for the host *ref* at *target*.

        Never fails. The timeout counts from when the script begins. A cancelled probe, or one that is under way when the
        service stops, ends with the detail ``cancelled``.
        """
        if not self.running:
            return succeed(ProbeResult(False, "cancelled", 0.0))
        begun = self._monotonic()
        process: Child | None = None

        def finish(ok: bool | None, detail: str) -> None:
            """Hand out the result, once: how the process ends is nobody's concern."""
            if not result.called:
                result.callback(ProbeResult(ok, detail, self._monotonic() - begun))

        def run() -> Deferred[None]:
            nonlocal begun, process
            begun = self._monotonic()
            if result.called:
                return succeed(None)
            try:
                process = self._begin(target, spec, ref, finish)
            except _NotBegun as error:
                finish(None, str(error))
                return succeed(None)
            return process.ended

        def cancel(_: object = None) -> None:
            finish(False, "cancelled")
            if process is not None:
                process.kill()

        def ended(_: object) -> None:
            del self._running[result]
            finish(False, "cancelled")  # unless it has a result

        result: Deferred[ProbeResult] = Deferred(cancel)
        task: Deferred[None] = self._gate.run(run)
        self._running[result] = task, cancel
        task.addErrback(lambda failure: self.log.failure("a script probe broke", failure))
        task.addBoth(ended)
        return result

    def stopService(self) -> Deferred[Any]:
        """Fires when every script has ended, or will not."""
        super().stopService()
        tasks, cancels = zip(*self._running.values(), strict=True) if self._running else ((), ())
        for cancel in cancels:
            cancel()
        return DeferredList(tasks)

    def _begin(self, target: Address, spec: Probe, ref: HostRef, finish: Callable[[bool | None, str], None]) -> Child:
        """:raises _NotBegun: with the reason, which has been told."""
        program = spec.command[0]
        why = refusal(program, self._directory)
        if not why:
            try:
                process = Child(spec.command, environment(target, ref, self._inherited), finish, timeout_s=spec.timeout_s,
                                reactor=self._reactor, monotonic=self._monotonic)
            except OSError as error:
                what = PROCESSES if error.errno == errno.EAGAIN else short_of(error.errno or 0)
                if what:
                    self._shortages.met(what, PROBE, f"cannot run {program}")
                    raise _NotBegun(f"this machine is out of {what}") from error
                why = os.strerror(error.errno or 0).lower()
            else:
                self._problems.pop(program, None)
                return process
        self._problems[program] = why, self._monotonic() + PROBLEM_S
        held = self._seldom.due(program)
        if held is not None:
            self.log.warn("{host} is not probed by {program}: {why}{more}", host=str(ref), program=program, why=why,
                          more=more(held))
        raise _NotBegun(why)


class _NotBegun(Exception):
    """No process was made; says why."""
