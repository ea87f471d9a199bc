"""What two processes of one director say to each other, as bytes."""

from __future__ import annotations

import struct

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.handover.frames import (
    MAX_FRAME_BYTES,
    Accepting,
    AnyFrame,
    Garbled,
    Offer,
    Progress,
    Reader,
    Ready,
    Take,
    encode,
)

FRAMES: list[AnyFrame] = [
    Offer(sockets=(("127.0.0.1:80", 1), ("@s", 2)), lock=True, store=b"\0x", boot_id="b", name="d", store_name="memory:"),
    Ready(version="1"), Take(sections={"hosts": (1, b"..")}, store=None), Accepting(),
    Progress(connections=3, at_most_s=1.5, in_flight={"web/blue/a": 2}),
]


def framed(value: object) -> bytes:
    body = msgspec.msgpack.encode(value)
    return struct.pack("!I", len(body)) + body


class FrameTests(SynchronousTestCase):
    @given(st.lists(st.integers(1, 40), max_size=30))
    def test_cut_anywhere(self, sizes: list[int]) -> None:
        """The same bytes are the same frames, however they come."""
        data, reader, found = b"".join(map(encode, FRAMES)), Reader(), []
        for size in [*sizes, len(data)]:
            reader.feed(data[:size])
            data = data[size:]
            while (frame := reader.next()) is not None:
                found.append(frame)
        self.assertEqual(found, FRAMES)

    def test_other_releases(self) -> None:
        """What a newer release says besides is passed over, what an older one does not say has its default."""
        reader = Reader()
        reader.feed(framed({"frame": "offer", "boot_id": "b", "mood": "good"}))
        self.assertEqual(reader.next(), Offer(boot_id="b"))

    def test_garbage(self) -> None:
        """Anything else is one error."""
        for data in (framed(7), framed({"frame": "other"}), framed({"frame": "take", "sections": 1}),
                     struct.pack("!I", MAX_FRAME_BYTES + 1), struct.pack("!I", 1) + b"\xc1"):
            reader = Reader()
            reader.feed(data)
            with self.assertRaises(Garbled):
                reader.next()
