"""Programs of the operator's that the director runs: each an own process, bounded in time and in what it may say.

A program is run without a shell, as the director's user, in a session and process group of its own. When it has exited, or
its time is over, all of its process group is killed, so that nothing it began outlives it.

Python's `subprocess` makes the process: by vfork, closing every descriptor, in a session of its own, and it says why a
program could not be begun. Twisted's `spawnProcess` does none of the four where a session is wanted. Its end is
told by a descriptor (pidfd_open(2), Linux 5.3), so SIGCHLD, and who else handles it, does not matter.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

#: What one may say. More is no check's answer, and to take it would be the reactor's time.
MAX_OUTPUT_BYTES = 65_536
#: How much of it the operator is shown: the last line that is not empty.
MAX_SHOWN = 200
#: How long a killed process holds its place while it does not end: one that waits for a dead disk or NFS server may never.
KILL_GRACE_S = 1.0
#: Beyond that a pipe, made with the usual size, might not have room at once.
MAX_INPUT_BYTES = 32_768
#: Of the director's own environment a program gets these; others may hold secrets.
_INHERITED = ("PATH", "LANG", "TZ")


def inherited_by_child(inherited: Mapping[str, str]) -> dict[str, str]:
    """What a program gets of the environment *inherited*."""
    return {"PATH": os.defpath, **{name: inherited[name] for name in _INHERITED if name in inherited}}


def shown(output: bytes) -> str:
    """The last line of *output* that is not empty, fit for a log and a page."""
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    text = " ".join(lines[-1].split()) if lines else ""
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN - 1] + "…"


class Child:
    """One program, from its begin until it is reaped.

    :param finish: told how it went; more than once if there is more to tell.
    :param stdin: what it can read there, at most `MAX_INPUT_BYTES`.
    :ivar ended: fires when it holds its place no more.
    :raises OSError: it could not be begun.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], finish: Callable[[bool | None, str], None], *,
                 timeout_s: float, reactor: Any, monotonic: Callable[[], float], stdin: bytes = b"") -> None:
        self.ended: Deferred[None] = Deferred()
        self._finish = finish
        self._reactor = reactor
        self._monotonic = monotonic
        self._begun = monotonic()
        self._said = b""
        assert len(stdin) <= MAX_INPUT_BYTES
        given = _pipe_with(stdin) if stdin else subprocess.DEVNULL
        try:
            self._popen = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, bufsize=0,
                                           stderr=subprocess.STDOUT, start_new_session=True, env=env, cwd="/")
        finally:
            if given != subprocess.DEVNULL:
                os.close(given)
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
        self._exit = Readable(pidfd, self._exited)
        self._output = Readable(self._pipe.fileno(), self._read)
        reactor.addReader(self._exit)
        reactor.addReader(self._output)
        self._timer = reactor.callLater(timeout_s, self._timed_out, timeout_s)

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
            self._reactor.addReader(self._output)  # see `Readable`
        if len(self._said) > MAX_OUTPUT_BYTES:
            self._finish(False, f"said more than {MAX_OUTPUT_BYTES} bytes")
            self.kill()

    def _exited(self) -> None:
        """It has exited, as far as the reactor knows."""
        if os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._reactor.addReader(self._exit)  # see `Readable`
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


def _pipe_with(data: bytes) -> int:
    """The end to read of a pipe that holds *data*, and nothing after it.

    :raises OSError: no descriptors."""
    reads, writes = os.pipe()
    try:
        os.set_blocking(writes, False)
        os.write(writes, data)
    finally:
        os.close(writes)
    return reads


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@implementer(IReadDescriptor)
class Readable:
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
