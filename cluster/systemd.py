"""What a process tells systemd that started it: sd_notify(3), "Standalone Implementations".

A datagram of ``NAME=value`` lines to the UNIX socket that ``NOTIFY_SOCKET`` names. Without that variable nothing is sent.
No library: those there are, are one function and unmaintained, or bind libsystemd, which must then be there to compile.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

#: systemd reads at once unless its machine is in trouble, and nobody else's clients shall wait for that.
SEND_S = 0.5
#: The watchdog is fed so many times in the time after which it bites: one datagram may be late, or lost.
FEEDS = 3
#: The status line is never older than this, where no watchdog asks for more: what it tells changes with every client.
STATUS_S = 10.0
_STDERR = 2
#: What a stop takes beyond the wait for connections: cutting them, writing the log.
STOP_S = 30.0


class Notifier:
    """One for each process.

    :param environment: the process's own. The variables are taken out, so that no child speaks for us.
    :param status: what `systemctl status` shows, asked for every now and then.
    :param stuck: what of the process hangs, in words, though the reactor turns; empty: nothing. While something does, the
        watchdog is not fed.
    """

    log = Logger()

    def __init__(self, environment: MutableMapping[str, str], *, reactor: Any, status: Callable[[], str],
                 stuck: Callable[[], str] = lambda: "") -> None:
        self._passed = {name: environment[name] for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC") if name in environment}
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self._watchdog_s = _watchdog_s(environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", ""))
        self._status = status
        self._stuck = stuck
        self._told = ""  # the last status
        self._ready = False
        self._hung = False
        self._turning = LoopingCall(self._turn)
        self._turning.clock = reactor
        self._failing = False

    def start(self) -> None:
        """Tell the status from now on and, once `ready` was said, feed the watchdog. The reactor does it: one that does not
        turn lets it bite."""
        if self._watchdog_s:
            faulthandler.enable(_STDERR)  # it bites with SIGABRT: the journal then has what each thread was doing
        if self._address and not self._turning.running:
            self._turning.start(min(self._watchdog_s / FEEDS or STATUS_S, STATUS_S))

    def ready(self) -> None:
        """It serves; or a reload is over, whatever came of it."""
        self._ready = True
        self._send("READY=1", f"MAINPID={os.getpid()}", self._status_line())

    def reloading(self) -> None:
        """`ready` must follow. systemd's clock for it is the kernel's monotonic one."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, *, within_s: float) -> None:
        """It ends within so many seconds and `STOP_S`, however soon systemd would lose patience."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int((within_s + STOP_S) * 1e6)}", self._status_line())

    def environment(self) -> dict[str, str]:
        """For a process that takes this one's place."""
        return dict(self._passed)

    def hand_over(self, pid: int) -> None:
        """That process is the main one from now on, and says the rest."""
        self._send(f"MAINPID={pid}")
        self.stop()
        self._address = ""

    def stop(self) -> None:
        """Feed the watchdog no more."""
        if self._turning.running:
            self._turning.stop()

    def _turn(self) -> None:
        watched = self._ready and self._watchdog_s > 0
        why = self._stuck() if watched else ""
        if why and not self._hung:
            self.log.critical("systemd's watchdog is not fed: {why}", why=why)
        elif self._hung and not why:
            self.log.warn("systemd's watchdog is fed again")
        self._hung = bool(why)
        before, line = self._told, self._status_line(why)
        lines = ["WATCHDOG=1"] if watched and not why else []
        if line != before:
            lines.append(line)
        if lines:
            self._send(*lines)

    def _status_line(self, why: str = "") -> str:
        """One line, as the protocol has it."""
        text = self._status()
        self._told = "STATUS=" + "; ".join((f"{why}; {text}" if why else text).splitlines())
        return self._told

    def _send(self, *lines: str) -> None:
        """A failure is no reason to serve no clients; the first in a row is logged."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(SEND_S)
                sock.sendto("\n".join(lines).encode(errors="backslashreplace"), address)
        except OSError as error:
            if not self._failing:
                self.log.warn("systemd was not told {line}: {why}", line=lines[0], why=str(error))
            self._failing = True
        else:
            self._failing = False


def _watchdog_s(usec: str, pid: str) -> float:
    """After how long without food it bites; 0: there is none, or it watches another process. See sd_watchdog_enabled(3)."""
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 1e6
