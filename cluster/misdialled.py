"""What the other side seems to speak instead of lines of JSON, by its first bytes: a hint for who dialled the wrong port."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.python.failure import Failure

#: A TLS record (RFC 8446, 5.1): a content type, alert or handshake, and the major version 3.
_TLS = (b"\x15\x03", b"\x16\x03")
_HTTP = (b"HTTP/", b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"<!DOCTYPE", b"<html")
#: OpenSSL's words for bytes that are no TLS at all.
_NO_TLS = ("wrong version number", "http request", "https proxy request", "packet length too long", "record layer failure")


def spoken(first: bytes) -> str:
    """``TLS``, ``HTTP``, ``SSH``, or '' for nothing that is known here."""
    for name, beginnings in (("TLS", _TLS), ("HTTP", _HTTP), ("SSH", (b"SSH-",))):
        if first.startswith(beginnings):
            return name
    return ""


def tls_trouble(reason: Failure) -> str:
    """Why a handshake failed, in a line; '' when it was not TLS that failed."""
    error = reason.value
    if not isinstance(error, SSL.Error):
        return ""
    errors = error.args[0] if error.args and isinstance(error.args[0], list) else []
    words = "; ".join(str(each[-1]) for each in errors) or type(error).__name__
    return f"the other side speaks no TLS ({words})" if any(each in words for each in _NO_TLS) else words
