"""Probes that a program makes: an own process for each, which passes by exiting with 0.

The program is run as it stands in ``command``, without a shell, as the director's user, in a session and process group of
its own. What it says on stdout and stderr is kept in part, for the operator. When it has exited, or its time is over, all of
its process group is killed, so that nothing it began outlives it.

Programs come from the cluster's configuration, which whoever has full access to the admin can change; so this node says in
which directory they have to be (``node.scripts``), and by default runs none.

Python's `subprocess` makes the process: by vfork, closing every descriptor, in a session of its own, and it says why a
program could not be begun. Twisted's `spawnProcess` does none of the four where a session is wanted. Its end is
told by a descriptor (pidfd_open(2), Linux 5.3), so SIGCHLD, and who else handles it, does not matter.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, succeed
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from cluster.address import Address
from cluster.model import HostRef, Probe
from cluster.shortage import PROCESSES, short_of
from director.checks.probes import ProbeResult
from director.checks.programs import refusal
from director.resources.shortages import PROBE, Shortages
from director.timing.seldom import Seldom, more

#: Scripts under way at the same time, over all hosts: each is a process, with two descriptors here, and may be busy.
MAX_SCRIPTS = 16
#: What one may say. More is no check's answer, and to take it would be the reactor's time.
MAX_OUTPUT_BYTES = 65_536
#: How much of it the operator is shown: the last line that is not empty.
MAX_SHOWN = 200
#: How long a killed process holds its place while it does not end: one that waits for a dead disk or NFS server may never.
KILL_GRACE_S = 1.0
#: How long it is told that a program could not be begun, after the last time that it was tried.
PROBLEM_S = 60.0
#: Of the director's own environment a script gets these; others may hold secrets.
_INHERITED = ("PATH", "LANG", "TZ")


def environment(target: Address, ref: HostRef, inherited: Mapping[str, str]) -> dict[str, str]:
    """What a script is told of the host. The port of a UNIX socket is empty, its address the path."""
    return {
        "PATH": os.defpath, **{name: inherited[name] for name in _INHERITED if name in inherited},
        "TXDIRECTOR_SERVICE": ref.service, "TXDIRECTOR_GROUP": ref.group, "TXDIRECTOR_HOST": ref.host,
        "TXDIRECTOR_ADDRESS": target.path if target.path is not None else target.host,
        "TXDIRECTOR_PORT": "" if target.is_unix else str(target.port),
    }


def shown(output: bytes) -> str:
    """The last line of *output* that is not empty, fit for a log and a page."""
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    text = " ".join(lines[-1].split()) if lines else ""
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN - 1] + "…"


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
        process: _Process | None = None

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

    def _begin(self, target: Address, spec: Probe, ref: HostRef, finish: Callable[[bool | None, str], None]) -> _Process:
        """:raises _NotBegun: with the reason, which has been told."""
        program = spec.command[0]
        why = refusal(program, self._directory)
        if not why:
            try:
                process = _Process(spec, environment(target, ref, self._inherited), finish,
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


class _Process:
    """One script, from its begin until it is reaped.

    :param finish: told how it went, if nobody told it before.
    :ivar ended: fires when it holds its place no more.
    :raises OSError: it could not be begun.
    """

    def __init__(self, spec: Probe, env: Mapping[str, str], finish: Callable[[bool | None, str], None], *,
                 reactor: Any, monotonic: Callable[[], float]) -> None:
        self.ended: Deferred[None] = Deferred()
        self._finish = finish
        self._reactor = reactor
        self._monotonic = monotonic
        self._begun = monotonic()
        self._said = b""
        self._popen = subprocess.Popen(spec.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0,
                                       stderr=subprocess.STDOUT, start_new_session=True, env=env, cwd="/")
        assert self._popen.stdout is not None
        self._pipe = self._popen.stdout
        os.set_blocking(self._pipe.fileno(), False)
        try:
            pidfd = os.pidfd_open(self._popen.pid)
        except OSError:
            self._signal()
            self._pipe.close()
            self._popen.wait()
            raise
        self._exit = _Readable(pidfd, self._exited)
        self._output = _Readable(self._pipe.fileno(), self._read)
        reactor.addReader(self._exit)
        reactor.addReader(self._output)
        self._timer = reactor.callLater(spec.timeout_s, self._timed_out, spec.timeout_s)

    def kill(self) -> None:
        """End it and all that it began, now."""
        if self._popen.returncode is None:
            self._signal()
            if self._timer.active():
                self._timer.cancel()
            self._timer = self._reactor.callLater(KILL_GRACE_S, self._leave)

    def _signal(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # it is another user's, by a set-user-id program
            os.killpg(self._popen.pid, signal.SIGKILL)

    def _timed_out(self, timeout_s: float) -> None:
        self._finish(False, self._with_output(f"timed out after {timeout_s:g} s"))
        self.kill()

    def _read(self) -> None:
        """Some of what it says, while that is not too much."""
        over = False
        with suppress(BlockingIOError):
            data = os.read(self._pipe.fileno(), MAX_OUTPUT_BYTES)
            self._said += data
            over = not data or len(self._said) > MAX_OUTPUT_BYTES
        if over:
            self._reactor.removeReader(self._output)
        else:
            self._reactor.addReader(self._output)  # see `_Readable`
        if len(self._said) > MAX_OUTPUT_BYTES:
            self._finish(False, f"said more than {MAX_OUTPUT_BYTES} bytes")
            self.kill()

    def _exited(self) -> None:
        """It has exited, as far as the reactor knows."""
        if os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._reactor.addReader(self._exit)  # see `_Readable`
            return
        self._signal()  # it is a zombie, whose number nobody else can have yet: the last moment to end what it began
        self._read()
        status = self._popen.wait()
        for reader in (self._exit, self._output):
            self._reactor.removeReader(reader)
        if self._timer.active():
            self._timer.cancel()
        took_ms = max(1, round((self._monotonic() - self._begun) * 1000))
        how = f"exit {status}" if status >= 0 else f"killed by {_name_of(-status)}"
        self._finish(status == 0, self._with_output(f"{how} in {took_ms} ms" if status == 0 else how))
        self._reactor.callLater(0, self._close)

    def _close(self) -> None:
        """Not before the reactor's next turn: of this one it may have an event left, for whoever has the number then."""
        os.close(self._exit.fileno())
        self._pipe.close()
        self._leave()

    def _leave(self) -> None:
        if not self.ended.called:
            self.ended.callback(None)

    def _with_output(self, how: str) -> str:
        said = shown(self._said)
        return f"{how}: {said}" if said else how


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@implementer(IReadDescriptor)
class _Readable:
    """A descriptor of the reactor's.

    The reactor takes events in batches, and who closes a descriptor amid one leaves its event to whoever is given the number
    next. So neither `doRead` nor `connectionLost`, after which the reactor reads no more, is believed without a look.
    """

    def __init__(self, fd: int, look: Callable[[], None]) -> None:
        self._fd = fd
        self._look = look

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "script"

    def connectionLost(self, reason: Any) -> None:
        self._look()

    def doRead(self) -> None:
        self._look()
