"""What two processes of one director say to each other while one gives way to the other. Bytes in, messages out; no I/O.

    old                                     new
     │ Offer, with the listening sockets ──► │ reads its file, binds what is new, follows the store, probes; accepts nobody
     │ ◄────────────────── Ready, or Refused │
     │ accepts nobody, writes nothing        │
     │ Take: all that it knows ────────────► │ knows it
     │ ◄─────────────────────────── Accepting │ accepts
     │ Retired ────────────────────────────► │ is the main process
     │ Progress, again and again ──────────► │ counts and shows it
     │ ◄───────────────────────── Tell, or Cut │ before a scrape; where an operator wants that
     │ the end of the connection ──────────► │ may be upgraded in turn

A frame is its length in four bytes, then MessagePack. Fields that a release does not know are left out, and those that it
misses have defaults; so processes of different releases understand each other as far as they can.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec

from cluster.errors import Misuse
from director.core.snapshot import ConnectionsPicture

#: Of one frame: a store of a hundred thousand hosts, with its history.
MAX_FRAME_BYTES = 512 * 1024 * 1024
_LENGTH = struct.Struct("!I")


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="frame"):
    """Base of all."""


class Offer(Frame, frozen=True, kw_only=True, tag="offer"):
    """The old one, first. The sockets' descriptors came before it, in the order of *sockets*; the lock's is the last."""

    sockets: tuple[tuple[str, int], ...] = ()  #: the addresses as configured, and how many descriptors each has
    foreign: tuple[str, ...] = ()  #: files of UNIX sockets that systemd made
    lock: bool = False  #: of the store's file
    store: bytes | None = None  #: of a store of this director's own: what it holds
    boot_id: str = ""
    name: str = ""  #: ``node.name``
    store_name: str = ""  #: ``node.store``, with the cluster's name


class Ready(Frame, frozen=True, kw_only=True, tag="ready"):
    """The new one could serve."""

    version: str = ""


class Refused(Frame, frozen=True, kw_only=True, tag="refused"):
    """The new one cannot serve, and ends."""

    why: str


class Take(Frame, frozen=True, kw_only=True, tag="take"):
    """The old one serves nobody any more."""

    sections: dict[str, tuple[int, bytes]] = {}  #: see `director.handover.sections`
    store: bytes | None = None  #: as in the offer, as it is now
    ordered_by: str = ""  #: the operator


class Accepting(Frame, frozen=True, kw_only=True, tag="accepting"):
    """The new one serves."""


class Retired(Frame, frozen=True, kw_only=True, tag="retired"):
    """systemd knows who the main process is now."""


class Progress(Frame, frozen=True, kw_only=True, tag="progress"):
    """What the old one counted since it last said so, and what it still has."""

    answers: int = 0  #: the last `Tell`
    connections: int = 0
    at_most_s: float = 0.0  #: until it ends
    in_flight: dict[str, int] = {}  #: by host, ``service/group/host``
    clients: dict[str, ConnectionsPicture] = {}  #: some of each service's, the oldest first
    sections: dict[str, tuple[int, bytes]] = {}


class Tell(Frame, frozen=True, kw_only=True, tag="tell"):
    """The new one: say now what you have counted."""

    number: int


class Cut(Frame, frozen=True, kw_only=True, tag="cut"):
    """The new one: end this client's connections."""

    service: str
    client: str


AnyFrame: TypeAlias = Offer | Ready | Refused | Take | Accepting | Retired | Progress | Tell | Cut

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyFrame).decode


class Garbled(Exception):
    """The other process says what this one cannot read."""


def encode(frame: AnyFrame) -> bytes:
    """With its length.

    :raises Misuse: it is longer than a frame may be.
    """
    body = _encode(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise Misuse(f"{len(body)} bytes are more than one process tells another")
    return _LENGTH.pack(len(body)) + body


class Reader:
    """Frames out of bytes, however they were cut."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        self._data += data

    def next(self) -> AnyFrame | None:
        """None until more bytes arrive.

        :raises Garbled: it is no frame, or none of this release.
        """
        if len(self._data) < _LENGTH.size:
            return None
        [length] = _LENGTH.unpack_from(self._data)
        if length > MAX_FRAME_BYTES:
            raise Garbled(f"a frame of {length} bytes")
        end = _LENGTH.size + length
        if len(self._data) < end:
            return None
        body = bytes(self._data[_LENGTH.size : end])
        del self._data[:end]
        try:
            frame: AnyFrame = _decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Garbled(str(error)) from error
        return frame
