"""What the kernel's datagrams tell, and that none of them raises."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.ha.lookout import LinkState, Lookout, Removed, parse


def message(kind: int, body: bytes) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return whole + bytes(-len(whole) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    whole = struct.pack("=HH", 4 + len(value), kind) + value
    return whole + bytes(-len(whole) % 4)


def link(kind: int, name: bytes, flags: int) -> bytes:
    return message(kind, struct.pack("=BxHiII", 0, 1, 7, flags, 0) + attribute(3, name + b"\0"))


GONE = message(21, struct.pack("=BBBBI", 2, 24, 0, 0, 7) + attribute(1, b"\x0a\0\0\x01") + attribute(2, b"\x0a\0\0\x02"))
DOWN, UP, DELETED = link(16, b"eth0", 0x1003), link(16, b"eth0", 0x1043), link(17, b"eth0", 0x1043)
EVENTS = {GONE: Removed(7, b"\x0a\0\0\x02"), DOWN: LinkState("eth0", running=False), UP: LinkState("eth0", running=True),
          DELETED: LinkState("eth0", running=False)}


class ParseTests(SynchronousTestCase):
    @given(st.lists(st.sampled_from([*EVENTS, message(20, b""), message(24, b"x" * 30)])))
    def test_several(self, messages: list[bytes]) -> None:
        """Every message of a datagram is told in order, those about anything else left out."""
        self.assertEqual(list(parse(b"".join(messages))), [EVENTS[each] for each in messages if each in EVENTS])

    @given(st.binary() | st.tuples(st.sampled_from(list(EVENTS)), st.integers(0, 60), st.binary(max_size=4)).map(
        lambda each: each[0][:each[1]] + each[2] + each[0][each[1]:]))
    def test_garbage(self, data: bytes) -> None:
        """Whatever comes, it is read to an end."""
        for each in parse(data):
            self.assertIsInstance(each, LinkState | Removed)

    def test_quiet(self) -> None:
        """Nothing befell an interface of which nothing was told."""
        lookout = Lookout("lo")
        self.addCleanup(lookout.close)
        self.assertEqual(lookout.look()[1:], (False, True))
        self.assertTrue(socket.if_nametoindex("lo"))
