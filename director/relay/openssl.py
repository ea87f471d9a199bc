"""What pyOpenSSL leaves to whoever has OpenSSL read and write sockets."""

from __future__ import annotations

import os
import select
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

#: In place of an errno: FIN came where the protocol goes on.
FIN = -1
#: What one record holds at most (RFC 8446, 5.1), and so all that one read can give.
RECORD_BYTES = 16_384

# What every connection does a few times goes past pyOpenSSL's methods, which ask for an error where there is none, and raise
# one where a connection only has to wait. Measured in turns: 0.9 us of 7.2 for a record read, 1.6 of 14.1 for 32 KB written,
# each 4 % of the director's CPU for a GB; 15 us of a connection's 1,000.
_do_handshake, _read, _write, _error = lib.SSL_do_handshake, lib.SSL_read, lib.SSL_write, lib.SSL_get_error
_WANT_READ, _WANT_WRITE = lib.SSL_ERROR_WANT_READ, lib.SSL_ERROR_WANT_WRITE
_room = ffi.new("char[]", RECORD_BYTES)  # of every read: of one thread
_bytes = ffi.buffer


def shake(tls: SSL.Connection) -> int:
    """A step of the handshake; answers the event that the next one waits for, 0: it is over.

    :raises SSL.Error: it has failed.
    """
    result = _do_handshake(tls._ssl)
    return 0 if result == 1 else _waits_for(tls, result)


def receive(tls: SSL.Connection) -> bytes | None:
    """What the next record holds; None: nothing has come.

    :raises SSL.WantWriteError: it has to write first.
    :raises SSL.Error: the stream has ended or is broken.
    """
    count = _read(tls._ssl, _room, RECORD_BYTES)
    if count > 0:
        data: bytes = _bytes(_room, count)[:]
        return data
    if _waits_for(tls, count) == select.EPOLLOUT:
        raise SSL.WantWriteError
    return None


def send(tls: SSL.Connection, data: bytes) -> int:
    """How many bytes were taken; 0: none, there is no room. They are to be offered again just so.

    :raises SSL.Error: the stream is broken.
    """
    count: int = _write(tls._ssl, data, len(data))
    if count > 0 or _waits_for(tls, count) == select.EPOLLOUT:
        return max(count, 0)
    raise SSL.WantReadError


def _waits_for(tls: SSL.Connection, result: int) -> int:
    """Of a call with *result*, which was not what it was for."""
    error = _error(tls._ssl, result)
    if error == _WANT_READ:
        return select.EPOLLIN
    if error == _WANT_WRITE:
        return select.EPOLLOUT
    tls._raise_ssl_error(tls._ssl, result)
    raise SSL.Error("the connection waits for what nobody gives")  # certificates looked up elsewhere, which we have not


def errno_of(error: SSL.SysCallError) -> int:
    """Of a read or write that the kernel refused, or `FIN`.

    OpenSSL also keeps such an error in a queue of the thread, and pyOpenSSL leaves it there. It would be taken for the next
    connection's, whatever that only waits for: so it is thrown away here, and every `SSL.SysCallError` has to come here.
    """
    lib.ERR_clear_error()
    number: Any = error.args[0]
    return int(number)


def in_words(error: BaseException) -> str:
    """Why TLS failed."""
    if isinstance(error, SSL.SysCallError):
        number = errno_of(error)
        return "the connection ended" if number == FIN else os.strerror(number)
    if error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][-1][-1])  # the last of (library, function, reason): those before it led to that
    return str(error) or type(error).__name__
