"""The heartbeat protocol, fed whole, byte by byte, and with garbage."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster import wire
from cluster.model import LoadReport
from cluster.wire import Conversation, RemoteProtocolError, Role, State

HELLO = wire.Hello(version=1, agent="app1", boot_id="b1", hosts=[wire.HostClaim(host="web/blue/app1")])
WELCOME = wire.Welcome(version=1, director="d1", interval_s=1.0, directors=["10.0.0.1:7946"], leader="d1")
REPORT = wire.Report(seq=1, load=LoadReport(utilisation=0.5, custom={"memory": 0.25}))


def drain(connection: Conversation) -> list[wire.Message]:
    """Every message that can be had now."""
    return list(iter(connection.next_message, None))


def opened() -> tuple[Conversation, Conversation]:
    """An agent's and a director's side after the handshake."""
    agent, director = Conversation(Role.AGENT), Conversation(Role.DIRECTOR)
    director.receive_data(agent.send(HELLO))
    drain(director)
    agent.receive_data(director.send(WELCOME))
    drain(agent)
    return agent, director


def heard(chunks: list[bytes]) -> tuple[list[wire.Message], str | None]:
    """What a director understands of *chunks*, answering each hello at once; and its complaint."""
    connection = Conversation(Role.DIRECTOR)
    messages: list[wire.Message] = []
    for chunk in chunks:
        connection.receive_data(chunk)
        try:
            while (message := connection.next_message()) is not None:
                messages.append(message)
                if isinstance(message, wire.Hello):
                    connection.send(WELCOME)
        except RemoteProtocolError as error:
            return messages, error.reason
    return messages, None


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


class ConversationTests(SynchronousTestCase):
    def test_every_message_survives_the_wire(self) -> None:
        """What one side sends, the other receives as an equal value."""
        agent, director = opened()
        for message in (REPORT, wire.Leaving(deadline_s=30.0)):
            director.receive_data(agent.send(message))
            self.assertEqual(drain(director), [message])
        for answer in (
            wire.Instruction(order="drain", hosts=["web/blue/app1"], deadline_s=5.0),
            wire.Instruction(order="interval", interval_s=2.0),
            WELCOME,
            wire.Refused(reason="replaced", retry_after_s=1.0),
        ):
            agent.receive_data(director.send(answer))
            self.assertEqual(drain(agent), [answer])
        self.assertIs(agent.state, State.CLOSED)
        self.assertIs(director.state, State.CLOSED)

    def test_the_type_comes_first_and_defaults_are_left_out(self) -> None:
        """The bytes of a report are the specification's."""
        agent, _ = opened()
        self.assertEqual(
            agent.send(REPORT), b'{"type":"report","seq":1,"load":{"utilisation":0.5,"custom":{"memory":0.25}}}\n'
        )

    def test_a_director_hears_nothing_while_its_answer_is_due(self) -> None:
        """Reports sent along with the hello wait for the welcome, then count."""
        director = Conversation(Role.DIRECTOR)
        director.receive_data(wire.encode(HELLO) + wire.encode(REPORT))
        self.assertEqual(drain(director), [HELLO])
        director.send(WELCOME)
        self.assertEqual(drain(director), [REPORT])

    def test_nothing_is_heard_after_a_refusal(self) -> None:
        """Whatever came with it."""
        agent, director = opened()
        agent.receive_data(director.send(wire.Refused(reason="replaced")) + b"garbage\n")
        self.assertEqual(drain(agent), [wire.Refused(reason="replaced")])

    def test_local_misuse_changes_nothing(self) -> None:
        """A message out of turn, or the other side's, raises the local error and the conversation goes on."""
        agent = Conversation(Role.AGENT)
        for wrong in (REPORT, WELCOME, wire.Leaving(deadline_s=1)):
            self.assertRaises(wire.LocalProtocolError, agent.send, wrong)
        agent.send(HELLO)
        self.assertRaises(wire.LocalProtocolError, agent.send, HELLO)
        self.assertIs(agent.state, State.GREETED)

    def test_a_message_too_long_to_send_is_local_misuse(self) -> None:
        """Limits hold for the sender too."""
        agent, _ = opened()
        big = wire.Report(seq=1, load=LoadReport(custom={"x" * wire.MAX_LINE_BYTES: 1.0}))
        self.assertRaises(wire.LocalProtocolError, agent.send, big)
        self.assertIs(agent.state, State.OPEN)


class Garbage(SynchronousTestCase):
    def assert_fails(self, reason: str, data: bytes, *, greeted: bool = True) -> None:
        connection = opened()[1] if greeted else Conversation(Role.DIRECTOR)
        connection.receive_data(data)
        with self.assertRaises(RemoteProtocolError) as raised:
            drain(connection)
        self.assertEqual(raised.exception.reason, reason)
        self.assertIs(connection.state, State.ERROR)
        connection.receive_data(wire.encode(REPORT))
        self.assertEqual(drain(connection), [])

    def test_malformed(self) -> None:
        """What is no message of the specification is malformed, and nothing is heard afterwards."""
        for data in (
            b"\n",
            b"\xff\n",
            b"[]\n",
            b"{}\n",
            b"null\n",
            b'{"type":7}\n',
            b'{"type":"report"}\n',
            b'{"type":"report","seq":0}\n',
            b'{"type":"report","seq":1.5}\n',
            b'{"type":"report","seq":9007199254740992}\n',
            b'{"type":"report","seq":1,"load":{"utilisation":1.5}}\n',
            b'{"type":"report","seq":1,"load":{"utilisation":NaN}}\n',
            b'{"type":"report","seq":1,"load":{"rate":1e999}}\n',
            b'{"type":"report","seq":1,"load":{"state":"\xff"}}\n',
            b'{"type":"report","seq":1,"load":{"custom":{"a":"1"}}}\n',
            b'{"type":"leaving","deadline_s":-1}\n',
            b'{"type":"report","seq":1,"x":' + b"[" * 20000 + b"]" * 20000 + b"}\n",
            line(type="report", seq=1, load={"custom": {f"m{i}": 1 for i in range(wire.MAX_CUSTOM + 1)}}),
            line(type="report", seq=1, hosts={f"a/b/c{i}": {} for i in range(wire.MAX_HOSTS + 1)}),
        ):
            self.assert_fails("malformed", data)

    def test_malformed_hellos(self) -> None:
        """A hello names itself and between one and `MAX_HOSTS` hosts, in the model's alphabet."""
        good = {"type": "hello", "version": 1, "agent": "a", "boot_id": "b", "hosts": [{"host": "a/b/c"}]}
        for change in (
            {"version": 0},
            {"agent": "a b"},
            {"agent": "a\n"},
            {"boot_id": ""},
            {"hosts": []},
            {"hosts": [{"host": "a/b"}]},
            {"hosts": [{"host": "a/b/c/d"}]},
            {"hosts": [{"host": "a/b/c\n"}]},
            {"hosts": [{"host": f"a/b/{i}"} for i in range(wire.MAX_HOSTS + 1)]},
            {"hosts": [{"host": "a/b/c", "weight": -1}]},
            {"token": "x" * 513},
        ):
            self.assert_fails("malformed", line(**(good | change)), greeted=False)

    def test_oversized(self) -> None:
        """A line may have `MAX_LINE_BYTES` and not one more, ended or not."""
        at_most = b'{"type":"report","seq":1}'.ljust(wire.MAX_LINE_BYTES)
        self.assertEqual(len(heard([wire.encode(HELLO), at_most, b"\n"])[0]), 2)
        self.assert_fails("oversized", at_most + b" ")
        self.assert_fails("oversized", at_most + b" \n")

    def test_last_number(self) -> None:
        """Reports are numbered as far as every JSON implementation can count."""
        messages, why = heard([wire.encode(HELLO), line(type="report", seq=2**53 - 1)])
        self.assertEqual((messages[1:], why), ([wire.Report(seq=2**53 - 1)], None))

    def test_out_of_turn(self) -> None:
        """A report before the hello, a second hello, a director's message from an agent."""
        self.assert_fails("unexpected", wire.encode(REPORT), greeted=False)
        self.assert_fails("unexpected", wire.encode(HELLO))
        self.assert_fails("malformed", wire.encode(WELCOME))

    def test_what_came_before_garbage_is_delivered(self) -> None:
        """An error does not swallow the messages in front of it."""
        messages, complaint = heard([wire.encode(HELLO) + wire.encode(REPORT) + b"rubbish\n"])
        self.assertEqual((messages, complaint), ([HELLO, REPORT], "malformed"))


class Newer(SynchronousTestCase):
    def test_unknown_keys_are_ignored(self) -> None:
        """A newer agent may say more than we understand."""
        data = line(type="report", seq=1, load={"utilisation": 0.5, "custom": {"memory": 0.25}, "gpu": [1]}, new={})
        self.assertEqual(heard([wire.encode(HELLO), data])[0], [HELLO, REPORT])

    def test_unknown_types_are_ignored_up_to_a_bound(self) -> None:
        """`MAX_UNKNOWN` messages of new types pass, the next one ends it."""
        new = line(type="telemetry", x=1) * wire.MAX_UNKNOWN
        self.assertEqual(heard([wire.encode(HELLO), new, wire.encode(REPORT)]), ([HELLO, REPORT], None))
        self.assertEqual(heard([wire.encode(HELLO), new, line(type="telemetry")]), ([HELLO], "unknown_type"))


_lines = st.one_of(
    st.just(wire.encode(HELLO)),
    st.just(wire.encode(REPORT)),
    st.just(wire.encode(wire.Leaving(deadline_s=1.0))),
    st.just(line(type="new")),
    st.binary(max_size=60),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace") + b"\n"),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: json.dumps({"type": "report", "seq": 1, "load": value}).encode() + b"\n"),
)


class Properties(SynchronousTestCase):
    @settings(max_examples=150)
    @given(st.lists(_lines, max_size=6).map(b"".join))
    @example(b"\xff\n")
    def test_whole_or_byte_by_byte(self, data: bytes) -> None:
        """The same bytes give the same messages and the same complaint however they are cut; nothing else is raised."""
        whole = heard([data])
        self.assertEqual(heard([data[i : i + 1] for i in range(len(data))]), whole)
        self.assertEqual(heard([data[: len(data) // 2], data[len(data) // 2 :]]), whole)

    @settings(max_examples=150)
    @given(st.binary(max_size=200) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")))
    def test_posts_parse_or_raise_the_remote_error(self, body: bytes) -> None:
        """A posted body is a `Post` or a `RemoteProtocolError`."""
        try:
            self.assertIsInstance(wire.parse_post(body), wire.Post)
        except RemoteProtocolError as error:
            self.assertIn(error.reason, ("malformed", "oversized"))

    def test_oversized_posts(self) -> None:
        """A post is bounded like a line."""
        with self.assertRaises(RemoteProtocolError) as raised:
            wire.parse_post(b" " * (wire.MAX_LINE_BYTES + 1))
        self.assertEqual(raised.exception.reason, "oversized")


class Documentation(SynchronousTestCase):
    """``docs/protocols/heartbeat.md``."""

    text = (Path(__file__).parents[3] / "docs/protocols/heartbeat.md").read_text()

    def test_every_example_is_a_message(self) -> None:
        """Each line parses, and what it says is what we would send."""
        examples = [line for block in re.findall(r"```json\n(.*?)```", self.text, re.S) for line in block.splitlines()]
        kinds = set()
        for shown in examples:
            sender = Role.DIRECTOR if json.loads(shown)["type"] in ("welcome", "refused", "order") else Role.AGENT
            agent, director = opened()
            receiver = agent if sender is Role.DIRECTOR else director
            if '"hello"' in shown:
                receiver = Conversation(Role.DIRECTOR)
            receiver.receive_data(shown.encode() + b"\n")
            (message,) = drain(receiver)
            kinds.add(type(message))
            self.assertEqual(json.loads(wire.encode(message)), json.loads(shown))
        self.assertEqual(kinds, {wire.Hello, wire.Welcome, wire.Refused, wire.Report, wire.Leaving, wire.Instruction})

    def test_the_posted_example_is_one(self) -> None:
        """It parses too."""
        (body,) = re.findall(r"```json post\n(.*?)```", self.text, re.S)
        self.assertEqual(wire.parse_post(body.encode()).agent, "nightly")

    def test_the_limits_are_the_codes(self) -> None:
        """A changed constant is a changed specification."""
        for phrase, value in (
            ("bytes of a line, newline not counted", wire.MAX_LINE_BYTES),
            ("hosts of a hello or report", wire.MAX_HOSTS),
            ("custom metrics of one load", wire.MAX_CUSTOM),
            ("messages of unknown types on one connection", wire.MAX_UNKNOWN),
        ):
            self.assertIn(f"| {phrase} | {value:,} |", self.text)

    def test_every_key_is_specified(self) -> None:
        """Each field of each message is in a table."""
        for kind in (wire.Hello, wire.HostClaim, wire.Welcome, wire.Refused, wire.Report, wire.Leaving, wire.Instruction,
                     LoadReport):
            for field in msgspec.structs.fields(kind):
                self.assertIn(f"| `{field.encode_name}` |", self.text)
