"""The heartbeat protocol between agents and directors: bytes in, messages out, no I/O.

Theory of operation
-------------------
Each side keeps one `Conversation` per TCP connection. Bytes that arrive go to `Conversation.receive_data`; then
`Conversation.next_message` is called until it returns None. What is to be sent goes through `Conversation.send`,
which returns the bytes. The connection holds the state both sides share::

    IDLE --hello--> GREETED --welcome--> OPEN --report, leaving, order, welcome, moved--> OPEN
                       \\--refused--> CLOSED <--refused--/

Two rules:

1. Garbage from the peer raises `RemoteProtocolError`, and nothing else; the connection is then unusable and has to be
   closed. Messages that arrived before the garbage are delivered first. A call of ours that the state forbids raises
   `LocalProtocolError` and changes nothing.
2. The same bytes give the same messages, however they were cut. While a hello waits for its answer the director's
   side parses nothing, so that an answer always precedes what follows.

A message is one line of JSON, an object whose ``type`` names it. Unknown keys are ignored; unknown types are
ignored up to `MAX_UNKNOWN`; both let a newer side speak to an older one. The specification for other languages is
``docs/protocols/heartbeat.md``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from cluster.errors import Misuse
from cluster.lines import MAX_LINE_BYTES as MAX_LINE_BYTES
from cluster.lines import MAX_UNKNOWN as MAX_UNKNOWN
from cluster.lines import Reader
from cluster.lines import RemoteProtocolError as RemoteProtocolError
from cluster.model import NAME_PATTERN, LoadReport, Name, Seconds, SecondsOrOff, Weight

#: What this module speaks. Raised only by a change that unknown keys and types cannot carry.
VERSION = 1
#: Hosts one connection may stand for: the containers or processes of one machine.
MAX_HOSTS = 64
#: Custom metrics of one report; each is kept for every host by every director.
MAX_CUSTOM = 32
#: Directors named to an agent, each of which it will connect to.
MAX_DIRECTORS = 64
#: Characters of a release's name, which is a label of a metric.
MAX_RELEASE = 63

_PART = NAME_PATTERN.removeprefix("^").removesuffix(r"\Z")

Ref = Annotated[str, Meta(pattern=rf"^{_PART}/{_PART}/{_PART}\Z")]
BootId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,63}\Z")]
Text = Annotated[str, Meta(max_length=255)]  #: an address or a sentence
#: Text that a line's length bounds already; looked up, never kept.
HostKey: TypeAlias = str
#: Of a program, as package managers write it.
Release = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9.!_+~-]{{1,{MAX_RELEASE}}}\Z")]
Sequence = Annotated[int, Meta(ge=1, le=2**53 - 1)]  #: what every JSON implementation can count


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of everything on the wire."""


class HostClaim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host that an agent wants to speak for."""

    host: Ref
    address: Text | None = None  #: join the group at this address; ``:port`` means the agent's address as seen
    weight: Weight = 1.0  #: for joining


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """Agent, first: who it is and for whom it speaks."""

    version: Annotated[int, Meta(ge=1, le=1_000_000)]  #: the highest the agent speaks
    agent: Name
    boot_id: BootId  #: a new one each time the agent's process starts
    token: Annotated[str, Meta(max_length=512)] | None = None
    hosts: Annotated[list[HostClaim], Meta(min_length=1, max_length=MAX_HOSTS)]
    interval_s: Seconds | None = None  #: what the agent would choose
    release: Release | None = None  #: of the agent's program


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """Director: the hello's answer; again, whenever something in it changed."""

    version: Annotated[int, Meta(ge=1, le=1_000_000)]  #: what is spoken from now on, at most the hello's
    director: Name
    directors: Annotated[list[Text], Meta(max_length=MAX_DIRECTORS)] = []  #: agent addresses of all of them
    interval_s: Seconds  #: between reports
    leader: Name | None = None
    refused: dict[str, Text] = {}  #: hosts of the hello that are not accepted (yet), and why


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """Director, last: go away, and come back not before *retry_after_s*."""

    reason: Text
    retry_after_s: SecondsOrOff = 0.0


class Report(Message, frozen=True, kw_only=True, tag="report"):
    """Agent: heartbeat and load. *load* is every host's that *hosts* does not name."""

    seq: Sequence  #: grows with every report of one boot id, over all its connections and posts
    load: LoadReport | None = None
    hosts: Annotated[dict[HostKey, LoadReport], Meta(max_length=MAX_HOSTS)] = {}


class Leaving(Message, frozen=True, kw_only=True, tag="leaving"):
    """Agent: its hosts go away; no new connections please. Open ones are cut after *deadline_s*."""

    deadline_s: SecondsOrOff


class Instruction(Message, frozen=True, kw_only=True, tag="order"):
    """Director: ``drain`` (until ``up`` or for *deadline_s*), ``up``, or ``interval`` (*interval_s* from now on)."""

    order: Literal["drain", "up", "interval"]
    hosts: Annotated[list[Ref], Meta(max_length=MAX_HOSTS)] = []  #: empty: all hosts of the connection
    deadline_s: Seconds | None = None
    interval_s: Seconds | None = None


class Moved(Message, frozen=True, kw_only=True, tag="moved"):
    """Director: another process of it answers at the same address. Connect there, and once welcome leave this connection,
    where nobody listens any more."""


class Post(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A report by HTTP POST: hello and report in one."""

    agent: Name
    boot_id: BootId
    token: Annotated[str, Meta(max_length=512)] | None = None
    seq: Sequence
    hosts: Annotated[dict[HostKey, LoadReport], Meta(min_length=1, max_length=MAX_HOSTS)]


class LocalProtocolError(Misuse):
    """This side may not send that now."""


class Role(enum.Enum):
    AGENT = "agent"
    DIRECTOR = "director"


class State(enum.Enum):
    IDLE = "idle"  #: nothing said yet
    GREETED = "greeted"  #: hello said, not answered
    OPEN = "open"
    CLOSED = "closed"  #: refused
    ERROR = "error"  #: the peer sent garbage


#: Every message that a state allows, and the state after it.
TRANSITIONS: dict[tuple[State, type[Message]], State] = {
    (State.IDLE, Hello): State.GREETED,
    (State.IDLE, Refused): State.CLOSED,  # no room, or no hello in time
    (State.GREETED, Welcome): State.OPEN,
    (State.GREETED, Refused): State.CLOSED,
    (State.OPEN, Report): State.OPEN,
    (State.OPEN, Leaving): State.OPEN,
    (State.OPEN, Instruction): State.OPEN,
    (State.OPEN, Welcome): State.OPEN,
    (State.OPEN, Moved): State.OPEN,
    (State.OPEN, Refused): State.CLOSED,
}


_encode = msgspec.json.Encoder().encode
_post = msgspec.json.Decoder(Post).decode
_SENT_BY: dict[Role, tuple[type[Message], ...]] = {
    Role.AGENT: (Hello, Report, Leaving),
    Role.DIRECTOR: (Welcome, Refused, Instruction, Moved),
}
_DECODERS = {
    Role.AGENT: msgspec.json.Decoder(Welcome | Refused | Instruction | Moved).decode,
    Role.DIRECTOR: msgspec.json.Decoder(Hello | Report | Leaving).decode,
}
_KNOWN = frozenset(str(kind.__struct_config__.tag) for kinds in _SENT_BY.values() for kind in kinds)


class Conversation:
    """One side of one connection.

    :param role: who we are; the peer is the other one.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = State.IDLE
        self._reader: Reader[Message] = Reader(_checked(_DECODERS[role]), _KNOWN)
        self._ours = _SENT_BY[role]

    def send(self, message: Message) -> bytes:
        """Encode *message* for the peer.

        :raises LocalProtocolError: if our role or the state forbids it, or it is longer than a line may be.
        """
        after = TRANSITIONS.get((self.state, type(message)))
        if after is None or not isinstance(message, self._ours):
            raise LocalProtocolError(f"{self.role.value} may not send {type(message).__name__} in {self.state.value}")
        line = encode(message)
        self.state = after
        return line

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; `next_message` tells what they said."""
        if self.state not in _DEAF:
            self._reader.feed(data)

    def next_message(self) -> Message | None:
        """The next complete message; None until more bytes arrive, or while our answer to a hello is due.

        :raises RemoteProtocolError: the peer sent what it must not; raised once, then nothing more is heard.
        """
        if self.state in _DEAF or (self.state is State.GREETED and self.role is Role.DIRECTOR):
            return None
        try:
            message = self._reader.next()
            if message is None:
                return None
            after = TRANSITIONS.get((self.state, type(message)))
            if after is None:
                raise RemoteProtocolError("unexpected", f"{type(message).__name__} in {self.state.value}")
        except RemoteProtocolError:
            self.state = State.ERROR
            self._reader.clear()
            raise
        self.state = after
        return message


_DEAF = frozenset((State.CLOSED, State.ERROR))


def encode(message: Message) -> bytes:
    """*message* as a line.

    :raises LocalProtocolError: it is longer than a line may be.
    """
    line = _encode(message)
    if len(line) > MAX_LINE_BYTES:
        raise LocalProtocolError(f"{len(line)} bytes do not fit a line")
    return line + b"\n"


def parse_post(body: bytes) -> Post:
    """Parse the body of a posted report.

    :raises RemoteProtocolError: it is too long or not what it should be.
    """
    if len(body) > MAX_LINE_BYTES:
        raise RemoteProtocolError("oversized", f"a body of more than {MAX_LINE_BYTES} bytes")
    try:
        post = _post(body)
        _check_loads(post.hosts.values())
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("malformed", str(error)) from None
    return post


def _checked(decode: Callable[[bytes], Message]) -> Callable[[bytes], Message]:
    def checked(line: bytes) -> Message:
        message = decode(line)
        if type(message) is Report:
            _check_loads((message.load, *message.hosts.values()))
        return message

    return checked


def _check_loads(loads: Iterable[LoadReport | None]) -> None:
    for load in loads:
        if load is not None and len(load.custom) > MAX_CUSTOM:
            raise ValueError(f"more than {MAX_CUSTOM} custom metrics")
