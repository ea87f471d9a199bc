"""A log's target that takes each record as one datagram at a UNIX socket: syslog's, or the journal's.

The socket is connected, so that poll(2) tells of room in the *receiver's* queue. When the receiver is gone, the next record
connects anew: it is another socket under the same name by then.
"""

from __future__ import annotations

import errno
import os
import select
import socket

#: Where each kind of receiver listens, unless told otherwise.
PLACES = {"syslog": "/dev/log", "journal": "/run/systemd/journal/socket"}


def receiver(target: str) -> tuple[str, str] | None:
    """Kind and path of a *target* such as ``syslog`` or ``journal:/run/a/socket``; None for a stream's or file's name."""
    kind, colon, path = target.partition(":")
    return (kind, path if colon else PLACES[kind]) if kind in PLACES else None


class Datagrams:
    """A channel (`cluster.log.writer`) whose writes are whole records.

    :raises OSError: nobody receives at *path*.
    """

    may_wait = False
    whole = True  #: `write` takes one record, and all of it
    most = 0

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.fd = self._socket.fileno()
        self._connected = False
        try:
            self._connect()
        except OSError:
            self._socket.close()
            raise

    def _connect(self) -> None:
        self._socket.connect(self._path)
        self._connected = True

    def write(self, data: bytes) -> int:
        """Send one record.

        :raises BlockingIOError: there is no room now.
        :raises OSError: nobody receives.
        """
        if not self._connected:
            self._connect()
        try:
            return self._socket.send(data)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.EMSGSIZE:  # than net.core.wmem_default has room for: it would never go
                return len(data)
            self._connected = False
            raise

    def ready(self, wait_s: float = 0.0) -> bool:
        """Whether `write` would find room or fail at once; waits for that at most *wait_s*."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(wait_s * 1000))

    def close(self) -> None:
        """Never raises."""
        self._socket.close()


def unreachable(path: str) -> str:
    """Why nobody receives datagrams at *path*; empty when somebody does. Nothing is sent."""
    try:
        Datagrams(path).close()
    except OSError as error:
        return error.strerror or os.strerror(error.errno or 0)
    return ""
