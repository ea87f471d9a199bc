"""What a process tells systemd that started it: sd_notify(3), "Standalone Implementations".

A datagram of ``NAME=value`` lines to the UNIX socket that ``NOTIFY_SOCKET`` names. Without that variable nothing is sent.
No library: those there are, are one function and unmaintained, or bind libsystemd, which must then be there to compile.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

#: systemd reads at once unless its machine is in trouble, and nobody else's clients shall wait for that.
SEND_S = 0.5
#: The watchdog is fed so many times in the time after which it bites: one datagram may be late, or lost.
FEEDS = 3
#: What a stop takes beyond the wait for connections: cutting them, writing the log.
STOP_S = 30.0


class Notifier:
    """One for each process.

    :param environment: the process's own. The variables are taken out, so that no child speaks for us.
    """

    log = Logger()

    def __init__(self, environment: MutableMapping[str, str], *, reactor: Any) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self._watchdog_s = _watchdog_s(environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", ""))
        self._feeding = LoopingCall(self._send, "WATCHDOG=1")
        self._feeding.clock = reactor
        self._failing = False

    def ready(self, status: str) -> None:
        """It serves; or a reload is over, whatever came of it. From now on the watchdog is fed, by the reactor: one that
        does not turn lets it bite."""
        self._send("READY=1", f"MAINPID={os.getpid()}", _status(status))
        if self._address and self._watchdog_s and not self._feeding.running:
            self._feeding.start(self._watchdog_s / FEEDS)

    def reloading(self) -> None:
        """`ready` must follow. systemd's clock for it is the kernel's monotonic one."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}",
                   _status("reloading"))

    def stopping(self, status: str, *, within_s: float) -> None:
        """It ends within so many seconds and `STOP_S`, however soon systemd would lose patience."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int((within_s + STOP_S) * 1e6)}", _status(status))

    def stop(self) -> None:
        """Feed the watchdog no more."""
        if self._feeding.running:
            self._feeding.stop()

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


def _status(text: str) -> str:
    """One line, as the protocol has it."""
    return "STATUS=" + "; ".join(text.splitlines())


def _watchdog_s(usec: str, pid: str) -> float:
    """After how long without food it bites; 0: there is none, or it watches another process. See sd_watchdog_enabled(3)."""
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 1e6
