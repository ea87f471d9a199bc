"""The ClientHello's parser: what it finds, and that no bytes surprise it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import RemoteError
from director.core.client_hello import MAX_HELLO_BYTES, MAX_RECORDS, Hello, NotTLS, decode
from tests.unit.core.client_hellos import alpn, message, records, server_name, vector, written_by_openssl

OPENSSL = [written_by_openssl("a.example.org", ["h2", "http/1.1"]), written_by_openssl(None)]
NAMES = st.lists(st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True), min_size=1, max_size=6).map(".".join)
PROTOCOLS = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4)


def hellos() -> st.SearchStrategy[tuple[bytes, Hello]]:
    """In records of any size, with what is to be found in them."""
    def put_together(name: str | None, protocols: list[bytes] | None, other: bytes, size: int) -> tuple[bytes, Hello]:
        extensions = [(51, other)]
        extensions += [] if name is None else [server_name(name.encode())]
        extensions += [] if protocols is None else [alpn(*protocols)]
        whole = message(extensions)
        return (records(whole, max(size, len(whole) // MAX_RECORDS + 1)),
                Hello(None if name is None else name.lower(), tuple(protocols or ())))
    return st.builds(put_together, st.none() | NAMES, st.none() | PROTOCOLS, st.binary(max_size=1500), st.integers(1, 2000))


def outcome(data: bytes) -> object:
    """A hello, an error's class and text, or None while bytes are missing."""
    try:
        found = decode(data)
    except RemoteError as error:
        return type(error), str(error)
    return None if isinstance(found, int) else found


class DecodeTests(SynchronousTestCase):
    def test_openssl(self) -> None:
        """What OpenSSL says is understood."""
        self.assertEqual([decode(data) for data in OPENSSL], [Hello("a.example.org", (b"h2", b"http/1.1")), Hello()])

    def test_names(self) -> None:
        """A name is told in lower case, without its last dot; an old client without extensions names none."""
        for extensions, expected in (
            ([server_name(b"WWW.Example.org.")], "www.example.org"),
            ([server_name(b"x", kind=1)], None),
            ([], None),
            (None, None),
        ):
            self.assertEqual(decode(records(message(extensions))), Hello(expected))

    def test_other_kinds_of_names(self) -> None:
        """Names that are no host names are passed over, however long they are."""
        for size in range(1, 9):
            names = b"\1" + vector(bytes(size), 2) + b"\0" + vector(b"a.example.org", 2)
            self.assertEqual(decode(records(message([(0, vector(names, 2))]))), Hello("a.example.org"), size)

    def test_missing(self) -> None:
        """Amid a record: its rest, and another record's header where it cannot hold all that is missing."""
        whole = message([server_name(b"a.example.org")])
        half = len(whole) // 2 + 1
        for size in (half, len(whole)):
            data = records(whole, size)
            self.assertEqual(decode(data[: 5 + half - 1]), len(data), size)

    def test_more_behind_it(self) -> None:
        """What a client sends after its hello, in the same record or the next, does not count."""
        hello = message([server_name(b"a.example.org")])
        for data in (records(hello + b"\x0b\0\0\0"), records(hello) + b"\x14\x03\x03\0\1\1", records(hello) + b"??"):
            self.assertEqual(decode(data), Hello("a.example.org"))

    def test_what_is_none(self) -> None:
        """Whatever is no hello is refused, and what does not even begin like TLS is told apart."""
        twice = [server_name(b"a"), server_name(b"b")]
        good = records(message([server_name(b"a.example.org")]))
        for data in (b"GET / HTTP/1.1\r\n", b"SSH-2.0-", b"\0", b"\x16\x02", b"\x80\x2e\x01\x03\x01"):
            self.assertRaises(NotTLS, decode, data)
        for data in (
            b"\x16\x03\x01\0\0",  # an empty record
            b"\x16\x03\x01\x40\x01",  # one that is longer than records are
            records(b"\x02\0\0\0"),  # a ServerHello
            good[:9] + good[:9],  # one inside itself
            records(message()[:20]) + b"\x17\x03\x03\0\1",  # data amid the hello
            records(message(twice)),
            records(message([server_name(b"a", b"b")])),
            records(message([server_name(b"")])),
            records(message([server_name(b"a..b")])),
            records(message([server_name(b"a\0b")])),
            records(message([server_name("ä.example".encode())])),
            records(message([server_name(b"a" * 64)])),
            records(message([(0, b"")])),
            records(message([(0, b"\0\0")])),
            records(message([alpn(b"")])),
            records(message([(16, b"\0\5\1a")])),
            records(message([(16, b"\0\2\1a\1b")])),  # a list that ends before its extension does
            records(message([alpn(b"h2", b"")])),
            records(message()[:-2] + b"\0\5"),
            records(b"\x01\0\0\x05" + bytes(5)),
        ):
            with self.assertRaises(RemoteError) as raised:
                decode(data + bytes(300))
            self.assertNotIsInstance(raised.exception, NotTLS)

    def test_limits(self) -> None:
        """A hello of more bytes or records than a sane one has is refused, the long one as soon as its length is known."""
        self.assertRaises(RemoteError, decode, records(message([(21, bytes(MAX_HELLO_BYTES))]))[:9])
        fits = message([(21, bytes(MAX_HELLO_BYTES - 5 - len(message([(21, b"")])))), ])
        self.assertEqual(decode(records(fits)), Hello())
        self.assertRaises(RemoteError, decode, records(fits + b"?", 9000))
        hello = message([(21, bytes(2 * MAX_RECORDS))])
        self.assertRaises(RemoteError, decode, records(hello, 1))
        self.assertEqual(decode(records(hello, len(hello) // MAX_RECORDS + 1)), Hello())

    def test_looks(self) -> None:
        """Who sends byte by byte is looked at a few times only: each answer says how many bytes to wait for."""
        for data, most in ((OPENSSL[0], 4), (records(OPENSSL[0][5:], 10), 20), (records(message(), 1), 40)):
            there, looks = 0, 0
            while isinstance(more := decode(data[:there]), int):
                self.assertGreater(more, there)
                there, looks = more, looks + 1
            self.assertEqual(there, len(data))
            self.assertLessEqual(looks, most)

    @given(hellos())
    def test_any_beginning(self, case: tuple[bytes, Hello]) -> None:
        """However much of a hello is there, the answer is that bytes are missing, as many as there are at most; or the hello."""
        data, expected = case
        for end in range(len(data)):
            more = decode(data[:end])
            assert isinstance(more, int), end
            assert end < more <= len(data), (end, more)
        assert decode(data) == expected

    @given(st.binary(max_size=80) | st.tuples(hellos(), st.integers(0, 400), st.binary(max_size=4)).map(
        lambda case: case[0][0][: case[1]] + case[2] + case[0][0][case[1] + len(case[2]) :]))
    def test_any_bytes(self, data: bytes) -> None:
        """Garbage, and hellos with some of it inside, raise nothing else; and an answer is the same with more bytes."""
        found = None
        for end in range(len(data) + 1):
            now = outcome(data[:end])
            if found is not None and not (isinstance(found, Hello) or now == found):
                assert isinstance(now, tuple), (found, now)
            if isinstance(found, Hello):
                assert now == found
            found = now
