"""What hosts are told of a client's TLS."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from director.core.proxy_protocol import decode, encode
from director.core.tls_extensions import MAX_NAME_BYTES, Spoken, with_tls


def read(extensions: bytes) -> dict[int, bytes]:
    found = {}
    while extensions:
        kind, size = extensions[0], int.from_bytes(extensions[1:3], "big")
        assert kind not in found
        found[kind], extensions = extensions[3 : 3 + size], extensions[3 + size :]
        assert len(found[kind]) == size
    return found


class ExtensionTests(SynchronousTestCase):
    def test_all(self) -> None:
        """ALPN, authority, version, cipher, common name; whether a certificate was shown now or before."""
        spoken = Spoken("TLSv1.3", "TLS_AES_128_GCM_SHA256", b"h2", b"www.example.org", certified=True, common_name="zoë")
        for resumed, flags in ((False, 7), (True, 5)):
            found = read(with_tls(b"", spoken._replace(resumed=resumed)))
            self.assertEqual((found[0x01], found[0x02], found[0x20][:5]), (b"h2", b"www.example.org", bytes((flags, 0, 0, 0, 0))))
            inside = read(found[0x20][5:])
            self.assertEqual(inside, {0x21: b"TLSv1.3", 0x22: "zoë".encode(), 0x23: b"TLS_AES_128_GCM_SHA256"})

    def test_little(self) -> None:
        """What there was not is left out, and without a certificate nothing is verified."""
        found = read(with_tls(b"", Spoken("TLSv1.2", "C")))
        self.assertEqual(found, {0x20: b"\1\0\0\0\1" + b"\x21\0\7TLSv1.2" + b"\x23\0\1C"})

    def test_others(self) -> None:
        """What came from the proxy before us is passed on, but for what ours says of the same; the header can be read."""
        before = b"\x02\0\1a" + b"\x05\0\3one" + b"\x20\0\5\7\0\0\0\0" + b"\xe0\0\0"
        found = with_tls(before, Spoken("TLSv1.3", "C", server_name=b"b"))
        self.assertEqual({kind: value for kind, value in read(found).items() if kind != 0x20}, {5: b"one", 0xE0: b"", 2: b"b"})
        header = decode(encode("v2", Address("10.0.0.1", 1), Address("10.0.0.2", 2), extensions=found))
        assert header is not None
        self.assertEqual(header.extensions, found)

    def test_long_names(self) -> None:
        """A name that nobody should have is cut."""
        found = read(with_tls(b"", Spoken("TLSv1.3", "C", certified=True, common_name="x" * 70_000)))
        self.assertEqual(read(found[0x20][5:])[0x22], b"x" * MAX_NAME_BYTES)
