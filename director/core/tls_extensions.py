"""What a host is told of its client's TLS, which ended at the director: extensions (TLVs) of a PROXY header of version 2.

Source: haproxy.org, proxy-protocol.txt, section 2.2: PP2_TYPE_ALPN, PP2_TYPE_AUTHORITY and PP2_TYPE_SSL with its sub-TLVs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_TLV = struct.Struct("!BH")
_ALPN, _AUTHORITY, _SSL = 0x01, 0x02, 0x20
_SSL_VERSION, _SSL_CN, _SSL_CIPHER = 0x21, 0x22, 0x23
#: Flags of PP2_TYPE_SSL: TLS was spoken; a certificate was shown over this connection; or when this session began.
_SPOKEN, _CERTIFIED, _CERTIFIED_SESSION = 0x01, 0x02, 0x04
#: PP2_TYPE_SSL begins with the flags, and a number that is 0 if a certificate was shown and is right.
_SSL_FIXED = struct.Struct("!BL")
#: No name is longer (RFC 5280: a common name has 64 characters); one that is, is cut, so that a header stays short.
MAX_NAME_BYTES = 255


class Spoken(NamedTuple):
    """A client's TLS."""

    version: str  #: as OpenSSL calls it
    cipher: str
    protocol: bytes = b""  #: agreed on by ALPN; empty: none
    server_name: bytes = b""  #: asked for; empty: none
    certified: bool = False  #: by a certificate, which was verified
    common_name: str | None = None  #: of that certificate
    resumed: bool = False  #: a session, in which that certificate was shown before


def with_tls(extensions: bytes, spoken: Spoken) -> bytes:
    """*extensions*, well-formed, which came from whoever was before us, and after them what the client's TLS here was. What
    they say of the same things is left out: it was about other TLS, and a receiver may take the first for ours."""
    kept = b"".join(extensions[start:end] for kind, start, end in _each(extensions) if kind not in (_ALPN, _AUTHORITY, _SSL))
    return kept + b"".join(_ours(spoken))


def _ours(spoken: Spoken) -> Iterator[bytes]:
    if spoken.protocol:
        yield _tlv(_ALPN, spoken.protocol)
    if spoken.server_name:
        yield _tlv(_AUTHORITY, spoken.server_name)
    flags = _SPOKEN
    if spoken.certified:
        flags |= _CERTIFIED_SESSION if spoken.resumed else _CERTIFIED | _CERTIFIED_SESSION
    inside = _tlv(_SSL_VERSION, spoken.version.encode()) + _tlv(_SSL_CIPHER, spoken.cipher.encode())
    if spoken.common_name is not None:
        inside += _tlv(_SSL_CN, spoken.common_name.encode()[:MAX_NAME_BYTES])
    yield _tlv(_SSL, _SSL_FIXED.pack(flags, 0 if spoken.certified else 1) + inside)


def _tlv(kind: int, value: bytes) -> bytes:
    return _TLV.pack(kind, len(value)) + value


def _each(extensions: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end."""
    at = 0
    while at + _TLV.size <= len(extensions):
        kind, length = _TLV.unpack_from(extensions, at)
        end = at + _TLV.size + length
        yield kind, at, end
        at = end
