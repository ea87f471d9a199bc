"""The PROXY protocol's codec."""

from __future__ import annotations

import ipaddress

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from cluster.errors import Misuse, RemoteError
from director.core.proxy_protocol import MAX_V1_BYTES, MAX_V2_BYTES, Header, Version, crc32c, decode, encode

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

ports = st.integers(0, 65535)
v4 = st.builds(Address, st.ip_addresses(v=4).map(str), ports, st.none())
v6 = st.builds(Address, st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None).map(str), ports, st.none())
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=26)
unix = st.builds(lambda prefix, name: Address("", 0, prefix + name), st.sampled_from("/@"), names)
pairs = st.tuples(v4, v4) | st.tuples(v6, v6)
versions = st.sampled_from(["v1", "v2"])
headers = st.builds(lambda version, pair: encode(version, *pair), versions, pairs)


def v2(command: int, protocol: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, protocol]) + (len(body) if length is None else length).to_bytes(2, "big") + body


def outcome(data: bytes) -> Header | str | None:
    try:
        return decode(data)
    except RemoteError:
        return "refused"


class EncodeTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        """The bytes of every kind of header, as the specification gives them."""
        a, b = Address("192.0.2.1", 1000), Address("192.0.2.2", 443)
        c, d = Address("2001:db8::1", 1000), Address("2001:db8::2", 443)
        self.assertEqual(encode("v1", a, b), b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n")
        self.assertEqual(encode("v1", c, d), b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 443\r\n")
        self.assertEqual(encode("v1", None, b), b"PROXY UNKNOWN\r\n")
        self.assertEqual(encode("v1", a, b, local=True), b"PROXY UNKNOWN\r\n")
        ipv4 = b"\xc0\0\x02\x01\xc0\0\x02\x02\x03\xe8\x01\xbb"
        self.assertEqual(encode("v2", a, b), SIGNATURE + b"\x21\x11\0\x0c" + ipv4)
        self.assertEqual(encode("v2", c, d)[12:17], b"\x21\x21\0\x24\x20")
        self.assertEqual(encode("v2", None, b), SIGNATURE + b"\x20\0\0\0")
        self.assertEqual(encode("v2", a, b, local=True), SIGNATURE + b"\x20\0\0\0")
        path = Address("", 0, "/run/x")
        self.assertEqual(encode("v2", path, path),
                         SIGNATURE + b"\x21\x31\0\xd8" + 2 * (b"/run/x" + bytes(102)))

    def test_families_are_made_common(self) -> None:
        """Mapped IPv4 is sent as IPv4; IPv4 beside IPv6 is sent mapped; UNIX beside TCP as none; no scopes."""
        v4, mapped, v6 = Address("192.0.2.1", 1), Address("::ffff:192.0.2.2", 2), Address("fe80::1%eth0", 3)
        self.assertEqual(encode("v1", mapped, v4), b"PROXY TCP4 192.0.2.2 192.0.2.1 2 1\r\n")
        header = decode(encode("v2", v4, v6))
        assert header is not None and header.source is not None and header.destination is not None
        self.assertEqual(ipaddress.ip_address(header.source.host), ipaddress.ip_address("::ffff:192.0.2.1"))
        self.assertEqual(header.destination, Address("fe80::1", 3))
        self.assertEqual(encode("v1", Address("", 0, "/x"), v4), b"PROXY UNKNOWN\r\n")
        self.assertEqual(encode("v2", Address("", 0, "/x"), v4), encode("v2", None, None))

    def test_host_names_are_misuse(self) -> None:
        """A name can't be sent; the caller has to have resolved it."""
        self.assertRaises(Misuse, encode, "v1", Address("example.org", 1), Address("192.0.2.1", 1))


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


tlvs = st.lists(st.tuples(st.integers(0, 255).filter(lambda kind: kind != 0x03), st.binary(max_size=40)), max_size=5)


class RoundTripTests(SynchronousTestCase):
    @given(versions, pairs, st.binary(max_size=20))
    def test_tcp(self, version: Version, pair: tuple[Address, Address], more: bytes) -> None:
        """What was encoded is decoded, and the bytes after it are not the header's."""
        data = encode(version, *pair)
        self.assertEqual(decode(data + more), Header(len(data), *pair, False))

    @given(unix, unix)
    def test_unix(self, source: Address, destination: Address) -> None:
        """UNIX paths, abstract ones too, survive version 2 and are unknown in version 1."""
        data = encode("v2", source, destination)
        self.assertEqual(decode(data), Header(len(data), source, destination, False))
        self.assertEqual(encode("v1", source, destination), b"PROXY UNKNOWN\r\n")

    def test_without_addresses(self) -> None:
        """Unknown and local headers decode to no addresses; version 1 has no local."""
        self.assertEqual(decode(encode("v1", None, None)), Header(15, None, None, False))
        self.assertEqual(decode(encode("v2", None, None)), Header(16, None, None, True))
        self.assertEqual(decode(v2(0x21, 0, b"")), Header(16, None, None, False))

    @given(pairs, tlvs)
    def test_extensions(self, pair: tuple[Address, Address], extensions: list[tuple[int, bytes]]) -> None:
        """Extensions are kept and passed on as they came, but for padding; version 1 has none."""
        raw = b"".join(tlv(*each) for each in extensions)
        data = encode("v2", *pair, extensions=raw)
        kept = b"".join(tlv(*each) for each in extensions if each[0] != 0x04)
        self.assertEqual(decode(data), Header(len(data), *pair, False, kept))
        self.assertEqual(encode("v1", *pair, extensions=raw), encode("v1", *pair))
        self.assertEqual(encode("v2", None, None, extensions=raw), encode("v2", None, None))

    @given(pairs, tlvs, tlvs)
    def test_checksum(self, pair: tuple[Address, Address], before: list[tuple[int, bytes]],
                      after: list[tuple[int, bytes]]) -> None:
        """A right checksum is taken off, wherever it is; every wrong one is refused."""
        first, rest = (b"".join(tlv(*each) for each in some if each[0] != 0x04) for some in (before, after))
        start = encode("v2", *pair, extensions=first)
        bare = encode("v2", *pair, extensions=first + tlv(0x03, bytes(4)) + rest)
        at = len(start) + 3
        good = bare[:at] + crc32c(bare).to_bytes(4, "big") + bare[at + 4 :]
        self.assertEqual(decode(good), Header(len(good), *pair, False, first + rest))
        for bit in range(32):
            flipped = bytearray(good)
            flipped[at + bit // 8] ^= 1 << bit % 8
            self.assertEqual(outcome(bytes(flipped)), "refused")
        self.assertEqual(outcome(encode("v2", *pair, extensions=tlv(0x03, b"abc"))), "refused")

    def test_padding(self) -> None:
        """Is left out, and nothing else is."""
        extensions = tlv(0x05, b"before") + tlv(0x04, b"\0\0\0") + tlv(0x04, b"") + tlv(0xE0, b"after")
        header = decode(encode("v2", Address("192.0.2.1", 1), Address("192.0.2.2", 2), extensions=extensions))
        assert header is not None
        self.assertEqual(header.extensions, tlv(0x05, b"before") + tlv(0xE0, b"after"))

    def test_known_checksum(self) -> None:
        """RFC 3720, appendix B.4."""
        self.assertEqual((crc32c(bytes(32)), crc32c(b"123456789")), (0x8A9136AA, 0xE3069283))

    @given(pairs, tlvs, st.integers(1, 4000))
    def test_extensions_that_run_past_the_end(
        self, pair: tuple[Address, Address], extensions: list[tuple[int, bytes]], missing: int
    ) -> None:
        """Refused, whether its length or its value is cut off."""
        whole = b"".join(tlv(*each) for each in extensions)
        cut = tlv(0xE0, bytes(4000))[:-missing]
        self.assertEqual(outcome(encode("v2", *pair, extensions=whole + cut)), "refused")
        self.assertEqual(outcome(encode("v2", *pair, extensions=whole + b"\xe0\x00")), "refused")


class IncrementalTests(SynchronousTestCase):
    @given(headers | headers.map(lambda data: data[:-3] + b"~" + data[-2:]) | st.binary(max_size=150)
           | st.binary(max_size=150).map(lambda more: b"PROXY " + more) | st.binary(max_size=60).map(SIGNATURE.__add__))
    @example(b"PROXY " + b"x" * 200)
    @example(v2(0x21, 0x11, b"", 65535))
    def test_byte_by_byte_equals_whole(self, data: bytes) -> None:
        """The first verdict on a growing prefix is the verdict on the whole; garbage only ever raises RemoteError."""
        verdicts = (outcome(data[:length]) for length in range(len(data) + 1))
        self.assertEqual(next((verdict for verdict in verdicts if verdict is not None), None), outcome(data))

    @given(headers)
    def test_nothing_before_the_last_byte(self, data: bytes) -> None:
        """A header is complete with its last byte and not before."""
        self.assertEqual([outcome(data[:length]) for length in range(len(data))], [None] * len(data))


class StrictnessTests(SynchronousTestCase):
    def test_lines_refused(self) -> None:
        """Version 1 lines that only look right."""
        for line in (
            "TCP4", "TCP4 1.2.3.4 1.2.3.4 1", "TCP4 1.2.3.4 1.2.3.4 1 2 3", "TCP4  1.2.3.4 1.2.3.4 1 2",
            "TCP4 1.2.3.4 1.2.3.4 1 2 ", "TCP4 1.2.3.4 1.2.3.4 01 2", "TCP4 1.2.3.4 1.2.3.4 1 65536",
            "TCP4 1.2.3.4 1.2.3.4 -1 2", "TCP4 1.2.3.4 1.2.3.4 1 ²", "TCP4 1.2.3.04 1.2.3.4 1 2",
            "TCP4 1.2.3 1.2.3.4 1 2", "TCP4 ::1 ::1 1 2", "TCP6 1.2.3.4 1.2.3.4 1 2", "TCP6 fe80::1%eth0 ::1 1 2",
            "TCP6 1::2::3 ::1 1 2", "UNIX /a /b", "UNKNOWNS", "tcp4 1.2.3.4 1.2.3.4 1 2", "",
            "TCP4 1.2.3.4 1.2.3.4 1 2\n", "TCP4 1.2.3.4 1.2.3.4 +1 2", "TCP4 1.2.3.4 1.2.3.4 1_0 2",
        ):
            self.assertEqual(outcome(b"PROXY " + line.encode("latin-1") + b"\r\n"), "refused", line)

    def test_lines_accepted(self) -> None:
        """Unknown with anything after it; the longest line."""
        self.assertEqual(outcome(b"PROXY UNKNOWN \xff whatever 1 2 3\r\nX"), Header(32, None, None, False))
        full = ":".join(["ffff"] * 8)
        line = f"PROXY UNKNOWN {full} {full} 65535 65535\r\n".encode()
        self.assertEqual(len(line), MAX_V1_BYTES)
        self.assertEqual(outcome(line), Header(MAX_V1_BYTES, None, None, False))
        self.assertEqual(outcome(line[:-2] + b"5\r\n"), "refused")

    def test_binary_refused(self) -> None:
        """Version 2 headers with a wrong version, command, family, or too few bytes for their addresses."""
        for data in (v2(0x11, 0x11, bytes(12)), v2(0x22, 0x11, bytes(12)), v2(0x2F, 0, b""), v2(0x21, 0x01, b""),
                     v2(0x21, 0x10, bytes(12)), v2(0x21, 0x13, bytes(12)), v2(0x21, 0x41, bytes(216)),
                     v2(0x21, 0x11, bytes(11)), v2(0x21, 0x21, bytes(35)), v2(0x21, 0x31, bytes(215)),
                     v2(0x21, 0, b"", MAX_V2_BYTES - 15)):
            self.assertEqual(outcome(data), "refused", data[12:16])

    def test_binary_accepted(self) -> None:
        """Datagram families and local headers of any family are valid, and without addresses."""
        for data, local in ((v2(0x21, 0x12, bytes(12)), False), (v2(0x21, 0x22, bytes(36)), False),
                            (v2(0x21, 0x32, bytes(216)), False), (v2(0x20, 0x11, bytes(12)), True),
                            (v2(0x20, 0x99, b"xyz"), True), (v2(0x21, 0, bytes(MAX_V2_BYTES - 16)), False)):
            self.assertEqual(outcome(data), Header(len(data), None, None, local), data[12:16])

    def test_other_protocols_are_refused_at_once(self) -> None:
        """A client that speaks something else is known by its first differing byte."""
        for data in (b"G", b"PROXy", b"\r\n\r\n\r", b"\x16\x03\x01", b"PROXY\t"):
            self.assertEqual(outcome(data), "refused", data)
        self.assertIsNone(outcome(b""))
