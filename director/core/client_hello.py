"""The first message of a TLS client, as far as it tells where the client wants to go: bytes in, names out.

Sources: RFC 8446, 4.1.2 (ClientHello) and 5.1 (records); RFC 6066, 3 (server_name); RFC 7301, 3.1 (ALPN).

Rules:

- `decode` looks at the first bytes of a connection, whole or not, in one record or in several, and never at more than
  `MAX_HELLO_BYTES` of them. It consumes nothing.
- While bytes are missing it says how many there must be at least before another look is worth while. So a client that sends
  byte by byte costs a few looks.
- Whatever cannot become a hello raises, as early as the bytes tell: `NotTLS` where they do not even begin like TLS, else
  `RemoteError`. Nothing else is raised, and more bytes never mend it.
- Only what is looked at is judged: versions, ciphers and other extensions are the host's business. Of Encrypted Client Hello
  (RFC 9849) this is the outer hello: the inner one is for who has the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from cluster.errors import RemoteError

#: Most bytes that a hello may take, its records' headers included. Those of browsers have 500 to 2,000, with a session's
#: ticket and a key of post-quantum cryptography; the kernel holds so many unread in its smallest buffer.
MAX_HELLO_BYTES = 16_384
#: Most records that it may come in. One is usual; some clients send a few. Each costs a step at each look.
MAX_RECORDS = 256

#: How a record with handshake messages begins: its type, and the major version, which is that of SSL 3.
_BEGINNING = bytes((22, 3))
_CLIENT_HELLO = 1
_RECORD_BYTES = 5  #: of a record's header: type, version, length
#: A plain record's longest fragment (RFC 8446, 5.1).
_MAX_FRAGMENT = 1 << 14
_MESSAGE_BYTES = 4  #: of a message's header: type, length
_RANDOM_END = 2 + 32  #: version and random
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME = 0
#: Names as DNS has them, and underscores, which some have.
_NAME = re.compile(rb"(?=.{1,253}\.?\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.DOTALL)


class NotTLS(RemoteError):
    """The client speaks something else."""


class Hello(NamedTuple):
    """What a ClientHello asks for."""

    server_name: str | None = None  #: in lower case, without a dot at its end; None: it names none
    protocols: tuple[bytes, ...] = ()  #: of ALPN, in the client's order


def decode(data: bytes) -> Hello | int:
    """:param data: the connection's first bytes.
    :returns: the hello, or how many bytes there must be at least.
    :raises RemoteError: they are no ClientHello, or too long a one.
    """
    if not _BEGINNING.startswith(data[:2]):
        raise NotTLS("no TLS")
    if len(data) < 2:
        return len(data) + 1
    data = data[:MAX_HELLO_BYTES]
    message = bytearray()
    at, whole = 0, _MESSAGE_BYTES  # where the next record begins; what the message has at least
    for _ in range(MAX_RECORDS):
        end = _record_end(data, at)
        if end is None:
            return _at_least(at + _RECORD_BYTES + whole - len(message))
        message += data[at + _RECORD_BYTES : end]
        if message and message[0] != _CLIENT_HELLO:
            raise RemoteError(f"handshake message {message[0]} before a ClientHello")
        if len(message) >= _MESSAGE_BYTES:
            whole = _MESSAGE_BYTES + int.from_bytes(message[1:_MESSAGE_BYTES], "big")
        missing, coming = whole - len(message), end - len(data)
        if missing <= 0:
            return _hello(bytes(message[_MESSAGE_BYTES:whole]))
        if coming > 0:
            return _at_least(len(data) + missing + (_RECORD_BYTES if missing > coming else 0))
        at = end
    raise RemoteError(f"a ClientHello in more than {MAX_RECORDS} records")


def _at_least(count: int) -> int:
    if count > MAX_HELLO_BYTES:
        raise RemoteError(f"a ClientHello of more than {MAX_HELLO_BYTES} bytes")
    return count


def _record_end(data: bytes, at: int) -> int | None:
    """Where the record that begins *at* ends; None while that is not known."""
    header = data[at : at + _RECORD_BYTES]
    if not _BEGINNING.startswith(header[:2]):
        raise RemoteError("a ClientHello that ends amid its records")
    if len(header) < _RECORD_BYTES:
        return None
    length = int.from_bytes(header[3:], "big")
    if not 0 < length <= _MAX_FRAGMENT:
        raise RemoteError(f"a record of {length} bytes")
    return at + _RECORD_BYTES + length


def _hello(body: bytes) -> Hello:
    """Of a whole message, its header left out."""
    at = _RANDOM_END
    for size in (1, 2, 1):  # session, ciphers, compression
        at = _after(body, at, size)
    if at == len(body):  # TLS 1.2 without extensions
        return Hello()
    end = _after(body, at, 2)
    if end != len(body):
        raise RemoteError("a ClientHello with something behind it")
    name: str | None = None
    protocols: tuple[bytes, ...] = ()
    kinds: set[int] = set()
    at += 2
    while at < end:  # a dozen as a rule, for each client: nothing is called for those that do not matter
        start = at + 4
        if start > end:
            raise _amid_a_field()
        kind, at = body[at] << 8 | body[at + 1], start + (body[at + 2] << 8 | body[at + 3])
        if at > end:
            raise _amid_a_field()
        if kind in kinds:
            raise RemoteError(f"a ClientHello that has extension {kind} twice")
        kinds.add(kind)
        if kind == _SERVER_NAME:
            name = _server_name(body[start:at])
        elif kind == _ALPN:
            protocols = tuple(_protocols(body[start:at]))
    return Hello(name, protocols)


def _after(body: bytes, at: int, size: int) -> int:
    """Where a vector ends that begins *at* with *size* bytes of length."""
    end = at + size + int.from_bytes(body[at : at + size], "big")
    if at + size > len(body) or end > len(body):
        raise _amid_a_field()
    return end


def _amid_a_field() -> RemoteError:
    return RemoteError("a ClientHello that ends amid a field")


def _list(content: bytes) -> bytes:
    """The items of a list that fills *content*, of which there is at least one."""
    if len(content) <= 2 or _after(content, 0, 2) != len(content):
        raise RemoteError("a ClientHello with a list of another length than its extension")
    return content[2:]


def _protocols(content: bytes) -> Iterator[bytes]:
    items, at = _list(content), 0
    while at < len(items):
        end = _after(items, at, 1)
        if end == at + 1:
            raise RemoteError("a ClientHello with a protocol that has no name")
        yield items[at + 1 : end]
        at = end


def _server_name(content: bytes) -> str | None:
    """The host name of the list; None: it has names of other kinds only."""
    items, found, at = _list(content), None, 0
    while at < len(items):
        kind, end = items[at], _after(items, at + 1, 2)
        if kind == _HOST_NAME:
            name = items[at + 3 : end]
            if found is not None or not _NAME.fullmatch(name):
                raise RemoteError("a ClientHello with a server name that is none")
            found = name.decode("ascii").rstrip(".").lower()
        at = end
    return found
