"""ClientHellos for tests: as OpenSSL writes them, and put together by hand."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable, Sequence


def written_by_openssl(name: str | None, protocols: Sequence[str] = ()) -> bytes:
    """The first bytes of a client that asks for *name*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


def message(extensions: Iterable[tuple[int, bytes]] | None = (), *, session: bytes = b"") -> bytes:
    """A ClientHello, without records; None: without the field of extensions."""
    body = b"\x03\x03" + bytes(32) + vector(session, 1) + vector(b"\x13\x01", 2) + vector(b"\0", 1)
    if extensions is not None:
        body += vector(b"".join(kind.to_bytes(2, "big") + vector(content, 2) for kind, content in extensions), 2)
    return b"\x01" + vector(body, 3)


def server_name(*names: bytes, kind: int = 0) -> tuple[int, bytes]:
    """The extension."""
    return 0, vector(b"".join(bytes((kind,)) + vector(name, 2) for name in names), 2)


def alpn(*protocols: bytes) -> tuple[int, bytes]:
    """The extension."""
    return 16, vector(b"".join(vector(name, 1) for name in protocols), 2)


def records(data: bytes, size: int = 1 << 14) -> bytes:
    """*data* in records of *size* bytes each."""
    return b"".join(b"\x16\x03\x01" + vector(data[at : at + size], 2) for at in range(0, len(data), size))


def vector(content: bytes, size: int) -> bytes:
    """With its length before it, in *size* bytes."""
    return len(content).to_bytes(size, "big") + content
