"""What pyOpenSSL leaves to whoever has OpenSSL read and write sockets."""

from __future__ import annotations

import os
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import lib

#: In place of an errno: FIN came where the protocol goes on.
FIN = -1


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
