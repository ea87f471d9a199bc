"""The peer link's bytes: who is let in, and what can be done to a line on its way."""

from __future__ import annotations

import contextlib
import hmac
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster import wire
from cluster.lines import MAX_LINE_BYTES, MAX_UNKNOWN
from cluster.model import LoadReport
from cluster.peer_wire import (
    _DECODERS,
    _KNOWN,
    MAX_COUNTS,
    MAX_ENTRIES,
    MAX_REFS,
    NONCE_BYTES,
    SEAL_DIGITS,
    TRANSITIONS,
    Alive,
    Ask,
    Bye,
    Challenge,
    Entries,
    Forwarded,
    Hello,
    Message,
    Missing,
    OwnerAck,
    OwnerBeat,
    PeerConversation,
    Promise,
    Reports,
    Role,
    State,
    Traffic,
    Welcome,
    batches,
)
from cluster.wire import LocalProtocolError, RemoteProtocolError

SECRET = b"the cluster's own secret"
NAME = "n" * 63
REF = f"{NAME}/{NAME}/{NAME}"
MESSAGES: tuple[Traffic, ...] = (
    Alive(),
    Alive(store=False, draining={"web/blue/app1": 3}, caps={"web": (17, 40, 55)}),
    Missing(all=True, add=["web/blue/app1"], remove=["web/blue/app2"]),
    Reports(reports=[Forwarded(host="web/blue/app1", age_s=0.25, load=LoadReport(utilisation=0.5))]),
    Entries(service="web", group="blue", entries=[("0a000001", "app1", 1799.5), ("20" * 16, "app2", 3.0)]),
    Ask(number=1, for_s=6.0),
    Promise(number=1, granted=False, why="etcd answers here"),
    OwnerBeat(term=812, incarnation="9f86d081884c7d65", sent=86_400_000_000_000, counts_ns=430_000_000),
    OwnerAck(term=812, incarnation="9f86d081884c7d65", sent=86_400_000_000_000, own="2c26b46b68ffc68f"),
    Bye(),
)


def dialer(secret: bytes | None = SECRET, *, nonce: int = 1, director: str = "d1", cluster: str = "c") -> PeerConversation:
    return PeerConversation(Role.DIALER, cluster=cluster, director=director, boot_id=f"{director}-boot", secret=secret,
                nonce=bytes([nonce]) * NONCE_BYTES)


def acceptor(secret: bytes | None = SECRET, *, nonce: int = 2, director: str = "d2", cluster: str = "c") -> PeerConversation:
    return PeerConversation(Role.ACCEPTOR, cluster=cluster, director=director, boot_id=f"{director}-boot", secret=secret,
                nonce=bytes([nonce]) * NONCE_BYTES)


def tell(link: PeerConversation, data: bytes) -> list[Message]:
    """Everything that *link* makes of *data*."""
    link.receive_data(data)
    heard = []
    while (message := link.next_message()) is not None:
        heard.append(message)
    return heard


def shake(one: PeerConversation, two: PeerConversation, to: str = "d2") -> None:
    tell(one, two.challenge())
    tell(two, one.hello(to))
    tell(one, two.welcome())


class LinkTestCase(SynchronousTestCase):
    def refused(self, reason: str, call: Callable[[], object]) -> None:
        with self.assertRaises(RemoteProtocolError) as caught:
            call()
        self.assertEqual(caught.exception.reason, reason, caught.exception)


class HandshakeTests(LinkTestCase):
    def test_both_know_each_other(self) -> None:
        """After the handshake each side knows the other's name and boot, proven, and traffic flows both ways; with a
        secret, and without one over a transport that vouches."""
        for secret in (SECRET, None):
            one, two = dialer(secret), acceptor(secret)
            shake(one, two)
            self.assertEqual((one.state, one.peer, one.peer_boot_id), (State.OPEN, "d2", "d2-boot"))
            self.assertEqual((two.state, two.peer, two.peer_boot_id), (State.OPEN, "d1", "d1-boot"))
            for sender, receiver in ((one, two), (two, one)):
                self.assertEqual(tell(receiver, b"".join(map(sender.send, MESSAGES))), list(MESSAGES))

    def test_the_secret_never_travels(self) -> None:
        """Nothing on the wire contains the secret, and equal traffic looks different under other nonces."""
        recordings = []
        for nonce in (1, 3):
            one, two = dialer(nonce=nonce), acceptor()
            challenge = two.challenge()
            tell(one, challenge)
            hello = one.hello("d2")
            tell(two, hello)
            welcome = two.welcome()
            tell(one, welcome)
            recordings.append([hello, welcome, one.send(Alive())])
            for line in (challenge, *recordings[-1]):
                self.assertNotIn(SECRET, line)
                self.assertNotIn(SECRET.hex().encode(), line)
        for first, second in zip(*recordings, strict=True):
            self.assertNotEqual(first, second)

    def test_wrong_secret(self) -> None:
        """Another secret, none, or an agent's token opens nothing: neither side takes the other."""
        for wrong in (b"another secret", b"agent-token-1234567890", None):
            one, two = dialer(wrong), acceptor()
            tell(one, two.challenge())
            self.refused("unauthenticated", lambda two=two, one=one: tell(two, one.hello("d2")))
            self.assertEqual((two.state, two.peer), (State.ERROR, None))

    def test_false_acceptor(self) -> None:
        """Whoever answers without the secret is not taken for the director that was dialled."""
        one, two = dialer(), acceptor(b"another secret")
        tell(one, two.challenge())
        one.hello("d2")
        welcome = msgspec.json.encode(Welcome(director="d2", boot_id="x", proof="0" * 64)) + b"\n"
        self.refused("unauthenticated", lambda: tell(one, welcome))

    def test_another_answers(self) -> None:
        """A director that knows the secret is not taken for another that was dialled, whichever of their names is less."""
        for director in ("d0", "d3"):
            one, two = dialer(), acceptor()
            tell(one, two.challenge())
            said = ("txdirector peer", "welcome", json.loads(one.hello("d2"))["proof"], director, "x")
            proof = hmac.digest(SECRET, "\n".join(said).encode(), "sha256").hex()
            welcome = msgspec.json.encode(Welcome(director=director, boot_id="x", proof=proof)) + b"\n"
            self.refused("unauthenticated", partial(tell, one, welcome))

    def test_an_agent_is_no_director(self) -> None:
        """An agent's hello, with whatever token, is garbage here; so are its reports."""
        agent = wire.Conversation(wire.Role.AGENT)
        hello = agent.send(wire.Hello(version=1, agent="app1", boot_id="b", token=SECRET.decode(),
                                      hosts=[wire.HostClaim(host="web/blue/app1")]))
        for line in (hello, wire.encode(wire.Report(seq=1))):
            two = acceptor()
            two.challenge()
            two.receive_data(line)
            if b"report" in line:
                self.assertIsNone(two.next_message(), "of a type that this protocol does not know")
                self.assertIs(two.state, State.CHALLENGED)
            else:
                self.refused("malformed", two.next_message)

    def test_recorded_hello(self) -> None:
        """A hello that was overheard proves nothing on another connection, nor to another director."""
        one, two = dialer(), acceptor()
        tell(one, two.challenge())
        hello = one.hello("d2")
        other = acceptor(nonce=9)
        other.challenge()
        self.refused("unauthenticated", lambda: tell(other, hello))
        third = acceptor(director="d3")
        third.challenge()
        self.refused("unauthenticated", lambda: tell(third, hello))

    def test_claims_are_part_of_the_proof(self) -> None:
        """Whatever is changed in a hello or a welcome, the proof does not fit any more."""
        for key, value in (("director", "d9"), ("boot_id", "x"), ("cluster", "d"), ("to", "d3"), ("nonce", "0" * 32)):
            one, two = dialer(), acceptor()
            tell(one, two.challenge())
            hello = json.loads(one.hello("d2")) | {key: value}
            self.refused("unauthenticated", lambda two=two, hello=hello: tell(two, json.dumps(hello).encode() + b"\n"))
        for key, value in (("director", "d9"), ("boot_id", "x")):
            one, two = dialer(), acceptor()
            tell(one, two.challenge())
            tell(two, one.hello("d2"))
            welcome = json.loads(two.welcome()) | {key: value}
            self.refused("unauthenticated", lambda one=one, welcome=welcome: tell(one, json.dumps(welcome).encode() + b"\n"))

    def test_strangers(self) -> None:
        """Who looks for another director or cluster, or has our own name, is not let in though it knows the secret."""
        for one, to in ((dialer(), "d3"), (dialer(cluster="other"), "d2"), (dialer(director="d2"), "d2")):
            two = acceptor()
            tell(one, two.challenge())
            self.refused("unauthenticated", lambda two=two, one=one, to=to: tell(two, one.hello(to)))

    def test_refused(self) -> None:
        """A refusal ends the link."""
        one, two = dialer(), acceptor()
        tell(one, two.challenge())
        tell(two, one.hello("d2"))
        self.assertEqual(len(tell(one, two.refuse("too many") + b"garbage\n")), 1)
        self.assertIs(one.state, State.CLOSED)
        self.assertEqual(tell(one, b"garbage\n"), [])

    def test_what_comes_before_the_answer(self) -> None:
        """It waits while our answer is due, to a challenge or to a hello; and is looked at then."""
        one, two = dialer(), acceptor()
        self.assertEqual(len(tell(one, two.challenge() + b"garbage\n")), 1)
        self.assertEqual(len(tell(two, one.hello("d2") + b"garbage\n")), 1)
        two.welcome()
        for link in (one, two):
            self.refused("malformed" if link is one else "unauthenticated", link.next_message)

    def test_misuse(self) -> None:
        """What a state or a role does not allow is our mistake and changes nothing."""
        one, two = dialer(), acceptor()
        for call in (lambda: one.hello("d2"), one.challenge, two.welcome, lambda: two.send(Alive())):
            self.assertRaises(LocalProtocolError, call)
        self.assertEqual((one.state, two.state), (State.IDLE, State.IDLE))
        self.assertEqual({state for state, _ in TRANSITIONS}, set(State) - {State.CLOSED, State.ERROR})


class SealTests(LinkTestCase):
    def setUp(self) -> None:
        self.one, self.two = dialer(), acceptor()
        shake(self.one, self.two)

    def test_changed(self) -> None:
        """A line of which any byte was changed ends the link, and is not delivered."""
        line = self.one.send(Ask(number=1, for_s=6.0))
        for index in range(len(line) - 1):
            one, two = dialer(), acceptor()
            shake(one, two)
            sent = bytearray(one.send(Ask(number=1, for_s=6.0)))
            sent[index] ^= 1
            if sent[index] == ord("\n"):
                continue
            self.refused("unauthenticated", lambda two=two, sent=sent: tell(two, bytes(sent)))

    def test_order(self) -> None:
        """Lines that are left out, repeated, swapped or sent back are not taken."""
        lines = [self.one.send(Ask(number=number, for_s=6.0)) for number in range(3)]
        self.assertEqual(len(tell(self.two, lines[0])), 1)
        self.refused("unauthenticated", lambda: tell(self.two, lines[2]))
        for again in (lambda one, line: tell(one, line), lambda one, line: tell(one, line)):
            one, two = dialer(), acceptor()
            shake(one, two)
            line = one.send(Alive())
            tell(two, line)
            self.refused("unauthenticated", lambda two=two, line=line: tell(two, line))
            self.refused("unauthenticated", lambda one=one, line=line, again=again: again(one, line))

    def test_bare_lines(self) -> None:
        """With a secret no line goes unsealed."""
        self.refused("unauthenticated", lambda: tell(self.two, b'{"type":"alive"}\n'))


class LineTests(LinkTestCase):
    def test_however_it_is_cut(self) -> None:
        """The same bytes give the same messages, byte by byte too."""
        one, two = dialer(), acceptor()
        shake(one, two)
        stream = b"".join(map(one.send, MESSAGES))
        heard = [message for index in range(len(stream)) for message in tell(two, stream[index : index + 1])]
        self.assertEqual(heard, list(MESSAGES))

    def test_the_longest_fit(self) -> None:
        """Messages with as much as they may hold, of the longest names, fit a line; more is malformed."""
        refs = [f"{n:03}{REF[3:]}" for n in range(MAX_REFS)]
        counts = dict.fromkeys(refs[:MAX_COUNTS], 2 ** 53 - 1)
        caps = {ref[:63]: (2**53 - 1,) * 3 for ref in refs[:MAX_COUNTS]}
        largest: tuple[Traffic, ...] = (
            Alive(draining=counts, caps=caps),  # type: ignore[arg-type]
            Missing(add=refs),
            Entries(service=NAME, group=NAME, entries=[("f" * 32, NAME, 123456.789)] * MAX_ENTRIES),
        )
        one, two = dialer(), acceptor()
        shake(one, two)
        self.assertEqual(tell(two, b"".join(map(one.send, largest))), list(largest))
        self.refused("malformed", lambda: tell(two, one.send(Missing(add=[*refs, REF]))))

    def test_limits(self) -> None:
        """Are part of the protocol: a director of another version refuses what is above its own."""
        self.assertEqual((MAX_REFS, MAX_COUNTS, MAX_ENTRIES, MAX_LINE_BYTES), (300, 150, 400, 65536))

    def test_numbers(self) -> None:
        """No larger than JSON's numbers are the same everywhere (RFC 8259, 6)."""
        for number, fits in ((0, True), (2**53 - 1, True), (2**53, False), (2**53 + 1, False), (-1, False)):
            data = {"type": "ask", "number": number, "for_s": 6.0}
            if fits:
                self.assertEqual(msgspec.convert(data, Ask).number, number)
            else:
                self.assertRaises(msgspec.ValidationError, msgspec.convert, data, Ask)

    def test_too_long_to_send(self) -> None:
        """A message that with its seal is longer than a line is not sent, and the link stays as it was."""
        one, two = dialer(), acceptor()
        shake(one, two)
        room = MAX_LINE_BYTES - len(one.send(Missing(add=["x"]))) + 2  # all of the line but its end
        for more in (1, SEAL_DIGITS, MAX_LINE_BYTES):
            with self.assertRaises(LocalProtocolError):
                one.send(Missing(add=["x" * (room + more)]))
        self.assertEqual(len(one.send(Missing(add=["x" * room]))), MAX_LINE_BYTES + 1)

    def test_batches(self) -> None:
        """Reports of any size fit lines, in order, none twice."""
        loads = [LoadReport(custom={f"{n:02}{'é' * 61}": 1.0 for n in range(size)}) for size in (0, 32, 1) * 20]
        reports = [Forwarded(host=REF, age_s=0.1, load=load) for load in loads]
        messages = list(batches(reports))
        self.assertEqual([report for message in messages for report in message.reports], reports)
        one, two = dialer(), acceptor()
        shake(one, two)
        self.assertEqual(tell(two, b"".join(map(one.send, messages))), messages)
        self.assertEqual(list(batches([])), [])

    def test_batches_are_filled(self) -> None:
        """A message has 32 KiB of reports before there is another: a thousand hosts are some messages, not a thousand."""
        report = Forwarded(host="web/blue/" + "a" * 68, age_s=0.25, load=LoadReport(utilisation=0.5))
        self.assertEqual(len(msgspec.json.encode(report)), 128)
        self.assertEqual([len(message.reports) for message in batches([report] * 600)], [256, 256, 88])

    def test_unknown(self) -> None:
        """Types of a newer director are ignored, up to a number; unknown keys always."""
        two = acceptor(None)
        one = dialer(None)
        shake(one, two)
        self.assertEqual(tell(two, b'{"type":"alive","colour":"red"}\n'), [Alive()])
        self.assertEqual(tell(two, b'{"type":"gossip"}\n' * MAX_UNKNOWN), [])
        self.refused("unknown_type", lambda: tell(two, b'{"type":"gossip"}\n'))

    def test_oversized(self) -> None:
        """A line beyond the limit ends the link, ended or not."""
        two = acceptor()
        two.challenge()
        self.refused("oversized", lambda: tell(two, b"x" * (MAX_LINE_BYTES + 1)))

    @given(st.binary(max_size=200), st.booleans())
    def test_garbage(self, data: bytes, open_already: bool) -> None:
        """Any bytes are messages, or raise the one error of the peer's, once."""
        one, two = dialer(None), acceptor(None)
        if open_already:
            shake(one, two)
        else:
            two.challenge()
        try:
            tell(two, data + b"\n")
        except RemoteProtocolError:
            self.assertIs(two.state, State.ERROR)
            self.assertEqual(tell(two, data + b"\n"), [])

    def test_versions(self) -> None:
        """A dialer speaks no more than it was offered; a hello that does is refused."""
        one = dialer(None)
        tell(one, msgspec.json.encode(Challenge(version=7, nonce="0" * 32)) + b"\n")
        self.assertEqual(json.loads(one.hello("d2"))["version"], 1)
        two = acceptor(None)
        two.challenge()
        hello = Hello(version=2, cluster="c", director="d1", boot_id="b", to="d2", nonce="0" * 32)
        self.refused("unexpected", lambda: tell(two, msgspec.json.encode(hello) + b"\n"))


class SpecificationTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Every example of the specification is a message, and every type has one."""
        page = Path(__file__).parents[3] / "docs" / "protocols" / "peer.md"
        known: set[str] = set()
        for block in re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                for decode in _DECODERS.values():
                    with contextlib.suppress(msgspec.ValidationError):
                        known.add(type(decode(line.encode())).__struct_config__.tag)
                        break
                else:
                    self.fail(line)
        self.assertEqual(known, _KNOWN)

    def test_seal_and_proof_as_specified(self) -> None:
        """The proof and the seal are what the text says, computed here from the text alone."""
        one, two = dialer(), acceptor()
        challenge = json.loads(two.challenge())
        tell(one, json.dumps(challenge).encode() + b"\n")
        hello = json.loads(one.hello("d2"))

        def mac(*words: str) -> bytes:
            return hmac.digest(SECRET, "\n".join(("txdirector peer", *words)).encode(), "sha256")

        self.assertEqual(hello["proof"], mac("hello", "1", challenge["nonce"], "1", "c", "d1", "d1-boot", "d2",
                                             hello["nonce"]).hex())
        tell(two, json.dumps(hello).encode() + b"\n")
        welcome = json.loads(two.welcome())
        self.assertEqual(welcome["proof"], mac("welcome", hello["proof"], "d2", "d2-boot").hex())
        tell(one, json.dumps(welcome).encode() + b"\n")
        line = one.send(Alive())
        key = mac("key", "dialer", hello["proof"])
        body = b'{"type":"alive"}'
        self.assertEqual(line, hmac.digest(key, bytes(8) + body, "sha256").hex()[:32].encode() + body + b"\n")
