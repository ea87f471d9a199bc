"""The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): addresses in, bytes out, and back.

Rules:

- `decode` looks at the first bytes of a connection, never more than `MAX_HEADER_BYTES`, and says how many belong to the
  header; the caller peeks and then consumes exactly those.
- Whatever cannot become a header raises `RemoteError`, as early as the bytes tell.
- A header without usable addresses (``UNKNOWN``, ``UNSPEC``, datagrams, ``LOCAL``) is valid: the connection's own
  addresses count then.
- Extensions of version 2 (TLVs) must fit into the header, and a checksum among them (CRC32C, section 2.2.3) must be right.
  They are kept for who is told of the client next, but for that checksum, which the next header changes, and padding. Those
  of a header whose addresses are to be ignored are ignored with them.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Literal, NamedTuple

from cluster.address import Address
from cluster.errors import Misuse, RemoteError

Version = Literal["v1", "v2"]

#: Longest line of version 1, CRLF included, as the specification computes it.
MAX_V1_BYTES = 107
#: Longest header of version 2 that is accepted. The format allows 65,551, but all of it must be in the kernel's buffer
#: before it can be consumed; the largest extension in use, a client's certificate, fits.
MAX_V2_BYTES = 8192
#: How much a reader has to peek at.
MAX_HEADER_BYTES = max(MAX_V1_BYTES, MAX_V2_BYTES)

_V1_SIGNATURE = b"PROXY "
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = struct.Struct("!12sBBH")  # signature, version and command, family and transport, length of the rest
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _UDP4, _TCP6, _UDP6, _UNIX_STREAM, _UNIX_DATAGRAM = 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32
_V2_INET = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}
_V2_UNIX = struct.Struct("!108s108s")
#: Bytes of addresses that each protocol byte promises; any other protocol byte is an error.
_V2_ADDRESS_BYTES = {_UNSPEC: 0, _TCP4: 12, _UDP4: 12, _TCP6: 36, _UDP6: 36, _UNIX_STREAM: 216, _UNIX_DATAGRAM: 216}

_TLV = struct.Struct("!BH")  # type and length of what follows
_TLV_CRC32C, _TLV_NOOP = 0x03, 0x04

_V1_PORT = re.compile(r"0|[1-9][0-9]{0,4}")

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class Header(NamedTuple):
    """A decoded header."""

    consumed: int  #: bytes that belong to it
    source: Address | None  #: the client; None: the connection's own peer
    destination: Address | None  #: what the client connected to
    local: bool  #: the proxy speaks for itself (a health check), not for a client
    extensions: bytes = b""  #: TLVs, as they are to be passed on


# --- encoding ---------------------------------------------------------------------------------------------


def encode(
    version: Version, source: Address | None, destination: Address | None, *, local: bool = False, extensions: bytes = b""
) -> bytes:
    """The header that tells a host about its client.

    Addresses that *version* cannot express (none, UNIX in version 1, UNIX mixed with TCP) become ``UNKNOWN`` or
    ``LOCAL``: the host goes by the connection it sees. IPv4 mapped into IPv6 is IPv4 again; when only one side is IPv4,
    both are sent as IPv6. Scopes of link-local addresses are left out.

    :param local: this connection is the director's own.
    :param extensions: as `Header.extensions`; only a header of version 2 with addresses takes them.
    :raises Misuse: for a host name: only literal addresses can be sent.
    """
    inet: tuple[int, IP, IP] | None = None
    unix: tuple[str, str] | None = None
    if source is not None and destination is not None and not local:
        if source.path is not None and destination.path is not None:
            unix = source.path, destination.path
        elif source.path is None and destination.path is None:
            inet = _common_family(_literal(source.host), _literal(destination.host))
    ports = (source.port, destination.port) if source is not None and destination is not None else (0, 0)
    if version == "v1":
        if inet is None:
            return b"PROXY UNKNOWN\r\n"
        family, *ips = inet
        name = "TCP4" if family == _TCP4 else "TCP6"
        return f"PROXY {name} {ips[0]} {ips[1]} {ports[0]} {ports[1]}\r\n".encode("ascii")
    command, protocol, body = _PROXY, _UNSPEC, b""
    if inet is None and unix is None:
        extensions = b""
    if inet is None and unix is None:
        command = _LOCAL  # not PROXY with UNSPEC: receivers are free to refuse that, and HAProxy does
    elif inet is not None:
        protocol, *ips = inet
        body = _V2_INET[protocol].pack(ips[0].packed, ips[1].packed, *ports)
    elif unix is not None:
        protocol = _UNIX_STREAM
        body = _V2_UNIX.pack(*map(_sun_path, unix))  # struct pads with NUL
    body += extensions
    return _V2_FIXED.pack(_V2_SIGNATURE, command, protocol, len(body)) + body


def _literal(host: str) -> IP:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        raise Misuse(f"{host!r} is not an IP address") from None


def _common_family(source: IP, destination: IP) -> tuple[int, IP, IP]:
    v4 = [ip if ip.version == 4 else ip.ipv4_mapped for ip in (source, destination)]
    if v4[0] is not None and v4[1] is not None:
        return _TCP4, v4[0], v4[1]
    v6 = [ipaddress.IPv6Address(f"::ffff:{ip}") if ip.version == 4 else ip for ip in (source, destination)]
    return _TCP6, v6[0], v6[1]


def _sun_path(path: str) -> bytes:
    raw = path.encode(errors="surrogateescape")
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw


# --- decoding ---------------------------------------------------------------------------------------------


def decode(data: bytes) -> Header | None:
    """Decode the header that *data*, the connection's first bytes, begins with.

    :returns: None while it may become one with more bytes.
    :raises RemoteError: when it cannot.
    """
    if data.startswith(_V1_SIGNATURE):
        return _decode_v1(data)
    if data.startswith(_V2_SIGNATURE):
        return _decode_v2(data)
    if _V1_SIGNATURE.startswith(data) or _V2_SIGNATURE.startswith(data):
        return None
    raise RemoteError("no PROXY protocol header")


def _decode_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, MAX_V1_BYTES)
    if end < 0:
        if len(data) >= MAX_V1_BYTES:
            raise RemoteError(f"a PROXY line of more than {MAX_V1_BYTES} bytes")
        return None
    consumed = end + 2
    fields = data[:end].decode("latin-1").split(" ")
    if fields[1] == "UNKNOWN":  # what follows on the line is to be ignored
        return Header(consumed, None, None, False)
    if len(fields) != 6 or fields[1] not in ("TCP4", "TCP6"):
        raise RemoteError("a malformed PROXY line")
    parse = ipaddress.IPv4Address if fields[1] == "TCP4" else ipaddress.IPv6Address
    source, destination = (_v1_address(parse, host, port) for host, port in zip(fields[2:4], fields[4:6], strict=True))
    return Header(consumed, source, destination, False)


def _v1_address(
    parse: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address], host: str, port: str
) -> Address:
    if "%" in host:
        raise RemoteError("a scoped address in a PROXY line")
    try:
        ip = parse(host)
    except ValueError as error:
        raise RemoteError("a malformed address in a PROXY line") from error
    if not _V1_PORT.fullmatch(port) or int(port) > 65535:
        raise RemoteError("a malformed port in a PROXY line")
    return Address(str(ip), int(port))


def _decode_v2(data: bytes) -> Header | None:
    # Judged byte by byte, so that an incomplete header that cannot become valid is refused now.
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise RemoteError(f"PROXY version and command {data[12]:#04x}")
    if len(data) < _V2_FIXED.size:
        return None
    _, command, protocol, length = _V2_FIXED.unpack_from(data)
    consumed = _V2_FIXED.size + length
    if consumed > MAX_V2_BYTES:
        raise RemoteError(f"a PROXY header of {consumed} bytes, at most {MAX_V2_BYTES} are accepted")
    if command == _PROXY:
        if protocol not in _V2_ADDRESS_BYTES:
            raise RemoteError(f"PROXY family and transport {protocol:#04x}")
        if length < _V2_ADDRESS_BYTES[protocol]:
            raise RemoteError("a PROXY header too short for its addresses")
    if len(data) < consumed:
        return None
    if command == _LOCAL:  # its addresses, if any, are to be ignored
        return Header(consumed, None, None, True)
    if protocol == _UNSPEC:
        return Header(consumed, None, None, False)
    extensions = _extensions(data[:consumed], _V2_FIXED.size + _V2_ADDRESS_BYTES[protocol])
    if protocol in _V2_INET:
        source, destination, source_port, destination_port = _V2_INET[protocol].unpack_from(data, _V2_FIXED.size)
        return Header(consumed, Address(str(ipaddress.ip_address(source)), source_port),
                      Address(str(ipaddress.ip_address(destination)), destination_port), False, extensions)
    if protocol == _UNIX_STREAM:
        source, destination = _V2_UNIX.unpack_from(data, _V2_FIXED.size)
        return Header(consumed, Address("", 0, _path(source)), Address("", 0, _path(destination)), False, extensions)
    return Header(consumed, None, None, False, extensions)


def _extensions(header: bytes, at: int) -> bytes:
    """Those of a whole *header* that begin *at* there and are to be passed on."""
    kept = b""
    while at < len(header):
        if len(header) - at < _TLV.size:
            raise RemoteError("a PROXY extension that runs past its header's end")
        kind, length = _TLV.unpack_from(header, at)
        start, end = at + _TLV.size, at + _TLV.size + length
        if end > len(header):
            raise RemoteError(f"PROXY extension {kind:#04x} runs past its header's end")
        if kind == _TLV_CRC32C:
            if length != 4 or crc32c(header[:start] + bytes(4) + header[end:]) != int.from_bytes(header[start:end], "big"):
                raise RemoteError("a PROXY header with a wrong checksum")
        elif kind != _TLV_NOOP:
            kept += header[at:end]
        at = end
    return kept


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960, appendix B (Castagnoli's polynomial)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc32c_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = tuple(_crc32c_of(byte) for byte in range(256))


def _path(raw: bytes) -> str:
    """Text of a ``sun_path``: up to its NUL; an abstract name, which begins with one, as ``@name``."""
    abstract = raw.startswith(b"\0")
    name = raw[1:].partition(b"\0")[0] if abstract else raw.partition(b"\0")[0]
    return ("@" if abstract and name else "") + name.decode(errors="surrogateescape")
