"""The peer link between directors: bytes in, messages out, no I/O.

Theory of operation
-------------------
Of two directors the one whose name sorts first dials. Each side keeps one `PeerConversation` per connection::

    IDLE --challenge--> CHALLENGED --hello--> GREETED --welcome--> OPEN --alive, missing, reports, entries, ask, promise,
                                                                                          beat, ack, bye, addresses
                                                    \\--refused--> CLOSED

A director proves who it is by the cluster's secret: hello and welcome each carry an HMAC over both sides' nonces and all
that is claimed, so that the secret never travels, a recording is worth nothing, and both sides know whom they speak to.
Every later line carries an HMAC under a key of this connection and direction, over its number: nothing can be put in,
changed, left out or repeated on the way. Without a secret the transport (mutual TLS) has to vouch for both; the proofs are
empty then, and lines go bare.

The rules of `cluster.wire` hold: garbage raises `RemoteProtocolError` and ends the link; our own misuse raises
`LocalProtocolError` and changes nothing; the same bytes give the same messages, however they were cut. The
specification is ``docs/protocols/peer.md``.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Iterable, Iterator
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from cluster.lines import MAX_LINE_BYTES, Reader, RemoteProtocolError
from cluster.model import LoadReport, Name, Seconds, SecondsOrOff
from cluster.wire import BootId, LocalProtocolError, Ref, Text

VERSION = 1
#: Of random bytes: as many as the HMAC's key strength is worth.
NONCE_BYTES = 16
#: A shorter secret can be guessed by whoever recorded a handshake.
LEAST_SECRET_BYTES = 16
#: Of a line's HMAC, in hexadecimal digits: 128 bits.
SEAL_DIGITS = 32
#: Hosts, counts or entries of one message: what fits a line in any case, with the longest names.
MAX_REFS = 300
MAX_COUNTS = 150
MAX_ENTRIES = 400
#: Of virtual addresses in one message, 260 bytes each at the most.
MAX_SAID = 200
#: Of the reports in one message; one alone may have 10 KB, of custom metrics.
BATCH_BYTES = 32 * 1024

Nonce = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Proof = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
IPAddress = Annotated[str, Meta(pattern=r"^[0-9a-f.:]{2,45}\Z")]
Client = Annotated[str, Meta(pattern=r"^([0-9a-f]{8}|[0-9a-f]{32})\Z")]  #: a packed IP address, in hexadecimal
Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Nanoseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of everything on the wire."""


class Challenge(Message, frozen=True, kw_only=True, tag="challenge"):
    """Acceptor, first."""

    version: Annotated[int, Meta(ge=1, le=1_000_000)]  #: the highest it speaks
    nonce: Nonce


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """Dialer: who it is, and whom it wants to speak to."""

    version: Annotated[int, Meta(ge=1, le=1_000_000)]  #: what is spoken from now on, at most the challenge's
    cluster: Name
    director: Name
    boot_id: BootId
    to: Name
    nonce: Nonce
    proof: Proof = ""


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """Acceptor: the hello's answer."""

    director: Name
    boot_id: BootId
    proof: Proof = ""


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """Acceptor, last: why not."""

    reason: Text


class Alive(Message, frozen=True, kw_only=True, tag="alive"):
    """The sender lives; what others need to know of it all the time."""

    store: bool = True  #: it reaches the shared store
    draining: Annotated[dict[Ref, Number], Meta(max_length=MAX_COUNTS)] = {}  #: connections of hosts being drained
    caps: Annotated[dict[Name, tuple[Number, Number, Number]], Meta(max_length=MAX_COUNTS)] = {}
    """Of each service under a shared maximum: the number of the shares that the sender keeps to, its open connections, and
    how many it would have with those that wait."""


class Missing(Message, frozen=True, kw_only=True, tag="missing"):
    """Hosts whose agents the sender does not hear (*add*), or hears again (*remove*); with *all*, forget the former."""

    all: bool = False
    add: Annotated[list[Ref], Meta(max_length=MAX_REFS)] = []
    remove: Annotated[list[Ref], Meta(max_length=MAX_REFS)] = []


class Forwarded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host's last report, as the sender had it from the host's agent *age_s* ago."""

    host: Ref
    age_s: SecondsOrOff
    load: LoadReport


class Reports(Message, frozen=True, kw_only=True, tag="reports"):
    """Reports that the receiver said it misses."""

    reports: list[Forwarded]


class Entries(Message, frozen=True, kw_only=True, tag="entries"):
    """Clients of one group and the hosts they stay on, each for so many seconds still."""

    service: Name
    group: Name
    entries: Annotated[list[tuple[Client, Name, Seconds]], Meta(max_length=MAX_ENTRIES)]


class Ask(Message, frozen=True, kw_only=True, tag="ask"):
    """The holder of the virtual addresses asks for a promise not to campaign for *for_s*."""

    number: Number
    for_s: Seconds


class Promise(Message, frozen=True, kw_only=True, tag="promise"):
    """The answer; *why* says why not."""

    number: Number
    granted: bool
    why: Text = ""


class OwnerBeat(Message, frozen=True, kw_only=True, tag="beat"):
    """The owner of the virtual addresses, by promises (`cluster.takeover.words.Beat`)."""

    term: Number
    incarnation: BootId
    sent: Nanoseconds  #: by the sender's clock
    counts_ns: Nanoseconds


class OwnerAck(Message, frozen=True, kw_only=True, tag="ack"):
    """The promise, naming the beat."""

    term: Number
    incarnation: BootId
    sent: Nanoseconds
    own: BootId  #: the incarnation of who promises, so that it can be handed over to
    held: bool = False  #: who promises would not answer now: it has no carrier, no fence, or was told to hold back


class Bye(Message, frozen=True, kw_only=True, tag="bye"):
    """The sender answers for no address any more, and stops."""


class Addresses(Message, frozen=True, kw_only=True, tag="addresses"):
    """Beats, promises and good-byes about single virtual addresses, of those that each have an owner of its own."""

    said: Annotated[list[tuple[IPAddress, OwnerBeat | OwnerAck | Bye]], Meta(max_length=MAX_SAID)]


Traffic: TypeAlias = Alive | Missing | Reports | Entries | Ask | Promise | OwnerBeat | OwnerAck | Bye | Addresses


class Role(enum.Enum):
    DIALER = "dialer"
    ACCEPTOR = "acceptor"


class State(enum.Enum):
    IDLE = "idle"
    CHALLENGED = "challenged"
    GREETED = "greeted"
    OPEN = "open"
    CLOSED = "closed"  #: refused
    ERROR = "error"  #: the peer sent garbage


_TRAFFIC: tuple[type[Message], ...] = (Alive, Missing, Reports, Entries, Ask, Promise, OwnerBeat, OwnerAck, Bye, Addresses)

#: Every message that a state allows, and the state after it.
TRANSITIONS: dict[tuple[State, type[Message]], State] = {
    (State.IDLE, Challenge): State.CHALLENGED,
    (State.CHALLENGED, Hello): State.GREETED,
    (State.GREETED, Welcome): State.OPEN,
    (State.GREETED, Refused): State.CLOSED,
    **{(State.OPEN, kind): State.OPEN for kind in _TRAFFIC},
}

_encode = msgspec.json.Encoder().encode
_SENT_BY: dict[Role, tuple[type[Message], ...]] = {
    Role.DIALER: (Hello, *_TRAFFIC),
    Role.ACCEPTOR: (Challenge, Welcome, Refused, *_TRAFFIC),
}
_DECODERS = {
    Role.DIALER: msgspec.json.Decoder(Challenge | Welcome | Refused | Traffic).decode,
    Role.ACCEPTOR: msgspec.json.Decoder(Hello | Traffic).decode,
}
_KNOWN = frozenset(str(kind.__struct_config__.tag) for kinds in _SENT_BY.values() for kind in kinds)
_DEAF = frozenset((State.CLOSED, State.ERROR))


class PeerConversation:
    """One side of one connection.

    :param role: who we are in it.
    :param cluster, director, boot_id: who we are.
    :param nonce: `NONCE_BYTES` random bytes, never used before.
    :param secret: the cluster's; None: the transport vouches for the peer.
    """

    def __init__(self, role: Role, *, cluster: str, director: str, boot_id: str, nonce: bytes,
                 secret: bytes | None) -> None:
        self.role = role
        self.state = State.IDLE
        self.peer: str | None = None  #: the other director's name: proven once the state is OPEN
        self.peer_boot_id = ""
        self._cluster = cluster
        self._director = director
        self._boot_id = boot_id
        self._nonce = nonce.hex()
        self._secret = secret
        self._challenge: Challenge | None = None
        self._hello: Hello | None = None
        self._keys: tuple[bytes, bytes] | None = None  # to seal, to unseal
        self._sealed = 0
        self._unsealed = 0
        self._reader: Reader[Message] = Reader(_DECODERS[role], _KNOWN)

    # --- our side

    def challenge(self) -> bytes:
        """The acceptor's first line."""
        self._allow(Challenge)
        self._challenge = Challenge(version=VERSION, nonce=self._nonce)
        return self._send(self._challenge)

    def hello(self, to: str) -> bytes:
        """The dialer's answer to the challenge."""
        self._allow(Hello)
        assert self._challenge is not None
        hello = Hello(version=min(VERSION, self._challenge.version), cluster=self._cluster, director=self._director,
                      boot_id=self._boot_id, to=to, nonce=self._nonce)
        hello = msgspec.structs.replace(hello, proof=self._proof(hello))
        self.peer = to
        self._hello = hello
        return self._send(hello)

    def welcome(self) -> bytes:
        """The acceptor takes the hello."""
        self._allow(Welcome)
        welcome = Welcome(director=self._director, boot_id=self._boot_id)
        line = self._send(msgspec.structs.replace(welcome, proof=self._proof(welcome)))
        self._take_keys()
        return line

    def refuse(self, reason: str) -> bytes:
        """The acceptor does not."""
        return self._send(Refused(reason=reason))

    def send(self, message: Traffic) -> bytes:
        """Encode *message*. Raises `LocalProtocolError` unless the link is open and it fits a line."""
        return self._send(message)

    def _send(self, message: Message) -> bytes:
        after = self._allow(type(message))
        line = _encode(message)
        if len(line) + SEAL_DIGITS > MAX_LINE_BYTES:
            raise LocalProtocolError(f"{len(line)} bytes do not fit a line")
        if self._keys is not None:
            line = _seal(self._keys[0], self._sealed, line) + line
            self._sealed += 1
        self.state = after
        return line + b"\n"

    def _allow(self, kind: type[Message]) -> State:
        """The state after sending a *kind*."""
        after = TRANSITIONS.get((self.state, kind))
        if after is None or not issubclass(kind, _SENT_BY[self.role]):
            raise LocalProtocolError(f"{self.role.value} may not send {kind.__name__} in {self.state.value}")
        return after

    # --- the peer's

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; `next_message` tells what they said."""
        if self.state not in _DEAF:
            self._reader.feed(data)

    def next_message(self) -> Message | None:
        """The next message; None until more bytes arrive, or while our answer to a challenge or a hello is due.

        A hello or a welcome that is returned has proven what it says.

        :raises RemoteProtocolError: raised once, then nothing more is heard.
        """
        waits = State.CHALLENGED if self.role is Role.DIALER else State.GREETED
        if self.state in _DEAF or self.state is waits:
            return None
        try:
            message = self._reader.next(self._unseal if self._keys is not None else None)
            if message is None:
                return None
            after = TRANSITIONS.get((self.state, type(message)))
            if after is None:
                raise RemoteProtocolError("unexpected", f"{type(message).__name__} in {self.state.value}")
            self._understand(message)
        except RemoteProtocolError:
            self.state = State.ERROR
            self._reader.clear()
            raise
        self.state = after
        return message

    def _understand(self, message: Message) -> None:
        if isinstance(message, Challenge):
            self._challenge = message
        elif isinstance(message, Hello):
            self._check_hello(message)
        elif isinstance(message, Welcome):
            if message.director != self.peer or not self._proven(message):
                raise RemoteProtocolError("unauthenticated", f"not proven to be {self.peer}")
            self.peer_boot_id = message.boot_id
            self._take_keys()

    def _check_hello(self, hello: Hello) -> None:
        self._hello = hello
        if not self._proven(hello):
            raise RemoteProtocolError("unauthenticated", f"not proven to be {hello.director}")
        if (hello.cluster, hello.to) != (self._cluster, self._director) or hello.director == self._director:
            raise RemoteProtocolError("unauthenticated", f"{hello.director} looks for {hello.to} of {hello.cluster}")
        if hello.version > VERSION:
            raise RemoteProtocolError("unexpected", f"version {hello.version}, offered was {VERSION}")
        self.peer, self.peer_boot_id = hello.director, hello.boot_id

    # --- proofs and seals

    def _mac(self, purpose: str, *words: str) -> bytes:
        """HMAC-SHA256 of unambiguous text: no word contains a newline."""
        assert self._secret is not None
        return hmac.digest(self._secret, "\n".join(("txdirector peer", purpose, *words)).encode(), "sha256")

    def _proof(self, message: Hello | Welcome) -> str:
        if self._secret is None:
            return ""
        challenge, hello = self._challenge, self._hello
        if isinstance(message, Hello):
            assert challenge is not None
            said = (str(challenge.version), challenge.nonce, str(message.version), message.cluster, message.director,
                    message.boot_id, message.to, message.nonce)
            return self._mac("hello", *said).hex()
        assert hello is not None
        return self._mac("welcome", hello.proof, message.director, message.boot_id).hex()

    def _proven(self, message: Hello | Welcome) -> bool:
        return hmac.compare_digest(message.proof, self._proof(message))

    def _take_keys(self) -> None:
        if self._secret is not None and self._hello is not None:
            dialer, acceptor = (self._mac("key", role.value, self._hello.proof) for role in (Role.DIALER, Role.ACCEPTOR))
            self._keys = (dialer, acceptor) if self.role is Role.DIALER else (acceptor, dialer)

    def _unseal(self, line: bytes) -> bytes:
        assert self._keys is not None
        seal, body = line[:SEAL_DIGITS], line[SEAL_DIGITS:]
        if not hmac.compare_digest(seal, _seal(self._keys[1], self._unsealed, body)):
            raise RemoteProtocolError("unauthenticated", f"line {self._unsealed} is not as it was sent")
        self._unsealed += 1
        return body


def batches(reports: Iterable[Forwarded]) -> Iterator[Reports]:
    """*reports* in as many messages as they need."""
    batch: list[Forwarded] = []
    size = 0
    for report in reports:
        length = len(_encode(report))
        if batch and size + length > BATCH_BYTES:
            yield Reports(reports=batch)
            batch, size = [], 0
        batch.append(report)
        size += length
    if batch:
        yield Reports(reports=batch)


def _seal(key: bytes, number: int, body: bytes) -> bytes:
    return hmac.digest(key, number.to_bytes(8, "big") + body, "sha256").hex()[:SEAL_DIGITS].encode()
