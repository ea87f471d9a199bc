"""Who may speak for which host, and what becomes of everything else."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster import wire
from cluster.model import HostRef, Identity, LoadReport
from director.reports.roster import (
    ALIVE_S,
    CONTEST_BURST,
    CONTEST_EVERY_S,
    LEFT,
    MAX_REPORTS_PER_S,
    REPORT_BURST,
    RETRY_REFUSED_S,
    Admitted,
    PeerFacts,
    PostAnswer,
    Refusal,
    Reject,
    Roster,
    Speaker,
)
from tests.unit.reports.agent_sink import RecordingSink

APP1 = "web/blue/app1"
APP2 = "web/blue/app2"
REMOTE = PeerFacts("10.0.0.9:5000", "10.0.0.9", False)
LOCAL = PeerFacts("127.0.0.1:5000", "127.0.0.1", True)
BUSY = LoadReport(utilisation=0.9)
IDLE = LoadReport(utilisation=0.1)


def token(text: str, *patterns: str) -> Identity:
    return Identity(hosts=patterns, token_sha256=hashlib.sha256(text.encode()).hexdigest())


def hello(*hosts: str, agent: str = "app1", boot: str = "b1", token: str | None = None,
          address: str | None = None) -> wire.Hello:
    return wire.Hello(version=1, agent=agent, boot_id=boot, token=token,
                      hosts=[wire.HostClaim(host=host, address=address) for host in hosts])


class RosterCase(SynchronousTestCase):
    identities: ClassVar[dict[str, Identity]] = {"blue": token("secret", "web/blue/*"), "other": token("else", "*/*/*")}

    def setUp(self) -> None:
        self.sink = RecordingSink(APP1, APP2)
        self.roster = Roster(self.identities, self.sink)

    def join(self, *hosts: str, evidence: PeerFacts = REMOTE, **kind: str) -> Speaker:
        answer = self.roster.hello(hello(*hosts, **({"token": "secret"} | kind)), evidence, 0.0)
        assert isinstance(answer, Admitted), answer
        self.sink.take()
        return answer.speaker

    def assert_refused(self, reason: Reject, message: wire.Hello, evidence: PeerFacts = REMOTE) -> None:
        answer = self.roster.hello(message, evidence, 0.0)
        assert isinstance(answer, Refusal), answer
        self.assertIs(answer.reason, reason)
        self.assertEqual(self.sink.take(), [])
        self.assertEqual(self.sink.rejects, [reason.value])


class Identities(RosterCase):
    def test_a_token_proves_an_identity(self) -> None:
        """The right token admits; a wrong one, or none, changes nothing."""
        self.join(APP1)
        for wrong in ("Secret", "", None):
            self.sink.rejects.clear()
            self.assert_refused(Reject.UNAUTHENTICATED, hello(APP1, token=wrong))

    def test_a_certificate_proves_an_identity(self) -> None:
        """A verified DNS name admits, in whatever case the configuration has it."""
        self.roster = Roster({"x": Identity(hosts=(APP1,), certificate_name="App1.Example")}, self.sink)
        self.join(APP1, evidence=REMOTE._replace(names=frozenset({"app1.example"})))
        self.assert_refused(Reject.UNAUTHENTICATED, hello(APP1), REMOTE._replace(names=frozenset({"app2.example"})))

    def test_both_when_both_are_asked_for(self) -> None:
        """An identity with a name and a token needs both."""
        both = Identity(hosts=(APP1,), certificate_name="a.example", token_sha256=token("t").token_sha256)
        self.roster = Roster({"x": both}, self.sink)
        named = REMOTE._replace(names=frozenset({"a.example"}))
        self.join(APP1, evidence=named, token="t")
        self.assert_refused(Reject.UNAUTHENTICATED, hello(APP1, token="no"), named)
        self.sink.rejects.clear()
        self.assert_refused(Reject.UNAUTHENTICATED, hello(APP1, token="t"))

    def test_an_identity_without_proof_admits_nobody(self) -> None:
        """A configuration mistake is not an open door."""
        self.roster = Roster({"x": Identity(hosts=("*/*/*",))}, self.sink)
        self.assert_refused(Reject.UNAUTHENTICATED, hello(APP1))

    def test_patterns_hold_by_part(self) -> None:
        """``web/blue/*`` is no licence for another group; the other hosts of the hello are admitted all the same."""
        self.sink.hosts.add(HostRef.parse("web/green/app1"))
        answer = self.roster.hello(hello(APP1, "web/green/app1", token="secret"), REMOTE, 0.0)
        assert isinstance(answer, Admitted)
        self.assertEqual(answer.speaker.refused, {"web/green/app1": "this agent may not speak for it"})
        self.assertEqual(self.sink.take(), [("connected", APP1, "app1", "b1")])
        self.assertEqual(self.sink.rejects, ["forbidden_host"])

    def test_agents_of_different_identities_do_not_share_names(self) -> None:
        """An agent cannot throw out another identity's agent by taking its name."""
        first = self.join(APP1)
        self.join(APP2, token="else", boot="b2")
        self.assertIs(self.roster.speaker(HostRef.parse(APP1)), first)


class Reports(RosterCase):
    def report(self, speaker: Speaker, seq: int, now: float = 1.0, **fields: object) -> Reject | None:
        return self.roster.report(speaker, wire.Report(seq=seq, **fields), now)  # type: ignore[arg-type]

    def test_one_load_for_all_and_one_each(self) -> None:
        """``load`` is every host's that ``hosts`` does not name; nothing at all is a heartbeat."""
        speaker = self.join(APP1, APP2)
        self.report(speaker, 1, load=BUSY, hosts={APP2: IDLE})
        self.report(speaker, 2, hosts={APP1: IDLE})
        self.report(speaker, 3)
        empty = LoadReport()
        self.assertEqual(self.sink.take(), [
            ("reported", APP1, BUSY), ("reported", APP2, IDLE),
            ("reported", APP1, IDLE),
            ("reported", APP1, empty), ("reported", APP2, empty),
        ])

    def test_replayed_and_stale_reports_are_dropped(self) -> None:
        """The last sequence number again, or an older one, changes nothing; the connection goes on."""
        speaker = self.join(APP1)
        self.assertIsNone(self.report(speaker, 5))
        self.sink.take()
        for seq, reason in ((5, "replayed"), (4, "stale"), (1, "stale")):
            self.assertIsNone(self.report(speaker, seq))
            self.assertEqual((self.sink.take(), self.sink.rejects.pop()), ([], reason))
        self.report(speaker, 6)
        self.assertEqual(len(self.sink.take()), 1)

    def test_sequences_go_on_over_reconnects_of_one_boot(self) -> None:
        """A replay into a new connection is still a replay; a new boot counts from the start."""
        speaker = self.join(APP1)
        self.report(speaker, 5)
        self.roster.lost(speaker, "gone")
        again = self.join(APP1)
        self.report(again, 5)
        self.assertEqual((self.sink.take(), self.sink.rejects), ([], ["replayed"]))
        self.roster.lost(again, "gone")
        self.report(self.join(APP1, boot="b2"), 1)
        self.assertEqual(len(self.sink.take()), 1)

    def test_hosts_outside_the_hello_are_dropped(self) -> None:
        """A report cannot name what the hello did not, or was refused."""
        speaker = self.join(APP1, "api/blue/x")
        self.sink.rejects.clear()
        self.report(speaker, 1, hosts={APP2: BUSY, "api/blue/x": BUSY, "rubbish": BUSY})
        self.assertEqual((self.sink.take(), self.sink.rejects), ([], ["unclaimed_host"] * 3))

    def test_a_flood_is_cut_off(self) -> None:
        """Beyond rate and burst the connection has to go; within them nothing happens."""
        speaker = self.join(APP1)
        answers = [self.report(speaker, seq, now=1.0) for seq in range(1, int(REPORT_BURST) + 2)]
        self.assertEqual(answers, [None] * int(REPORT_BURST) + [Reject.TOO_FAST])
        self.assertIsNone(self.report(speaker, 1000, now=1.0 + 1.1 / MAX_REPORTS_PER_S))

    def test_a_host_that_becomes_known_later_counts_from_then(self) -> None:
        """Configured or approved after the hello: the next report finds it. Removed again: dropped."""
        late = "web/blue/late"
        speaker = self.join(late)
        self.assertIn(late, speaker.refused)
        self.report(speaker, 1)
        self.assertEqual((self.sink.take(), self.sink.rejects), ([], ["unknown_host"]))
        self.sink.hosts.add(HostRef.parse(late))
        self.report(speaker, 2)
        self.assertEqual([event[0] for event in self.sink.take()], ["connected", "reported"])
        self.sink.hosts.clear()
        self.report(speaker, 3)
        self.assertEqual((self.sink.take(), self.roster.speaker(HostRef.parse(late))), ([], None))


class Connections(RosterCase):
    def test_lost_and_left(self) -> None:
        """A break is a loss with its reason; after a farewell it is `LEFT`."""
        speaker = self.join(APP1, APP2)
        self.roster.lost(speaker, "broke")
        self.roster.lost(speaker, "broke")
        self.assertEqual(self.sink.take(), [("lost", APP1, "broke"), ("lost", APP2, "broke")])
        speaker = self.join(APP1)
        self.roster.leaving(speaker, 7.0, 0.0)
        self.roster.lost(speaker, "broke")
        self.assertEqual(self.sink.take(), [("leaving", APP1, 7.0), ("lost", APP1, LEFT)])

    def test_the_same_process_replaces_its_own_connection(self) -> None:
        """Reconnecting before the break was noticed loses nothing; the old connection is named for closing."""
        first = self.join(APP1, APP2)
        answer = self.roster.hello(hello(APP1, token="secret"), REMOTE, 1.0)
        assert isinstance(answer, Admitted)
        self.assertIs(answer.replaced, first)
        self.assertEqual(self.sink.take(), [
            ("connected", APP1, "app1", "b1"), ("lost", APP2, "replaced by a newer connection"),
        ])
        self.assertIs(self.roster.report(first, wire.Report(seq=9), 1.0), Reject.REPLACED)
        self.roster.lost(first, "closed")
        self.assertEqual(self.sink.take(), [])

    def test_a_proven_newer_boot_wins_and_the_old_one_stays_out(self) -> None:
        """A restarted agent replaces its predecessor, which may not come back while it is there."""
        self.join(APP1)
        second = self.join(APP1, boot="b2")
        self.sink.rejects.clear()
        self.assert_refused(Reject.STALE_BOOT, hello(APP1, token="secret"))
        self.roster.lost(second, "gone")
        self.join(APP1)

    def test_the_last_proven_agent_speaks_for_a_host(self) -> None:
        """Of two agents for one host the newer speaks, the older is dropped until the newer is gone."""
        first = self.join(APP1)
        second = self.join(APP1, agent="spare")
        self.roster.report(first, wire.Report(seq=1), 1.0)
        self.assertEqual((self.sink.take(), self.sink.rejects), ([], ["not_speaker"]))
        self.roster.lost(second, "gone")
        self.roster.report(first, wire.Report(seq=2), 1.0)
        self.assertEqual([event[0] for event in self.sink.take()], ["lost", "connected", "reported"])


class Contests(RosterCase):
    def fight(self, rounds: int, every_s: float, **kinds: tuple[str, str]) -> list[object]:
        """Two come in turn, each as soon as it may; what each round brings."""
        said: list[object] = []
        for number in range(rounds):
            now = number * every_s
            kind = {name: pair[number % 2] for name, pair in kinds.items()}
            answer = self.roster.hello(hello(APP1, token="secret", **kind), REMOTE, now)
            if isinstance(answer, Admitted):
                said.append(answer.stay_away_s if not answer.speaker.refused else "not the speaker")
            else:
                said.append(answer.reason)
        return said

    def test_two_that_are_one_by_name_and_boot(self) -> None:
        """After some takeovers the holder stays, and the other is refused; the displaced are kept away before that."""
        said = self.fight(400, 0.005)
        self.assertEqual(said[:4] + said[-1:], [0.0, 0.0, 0.0, RETRY_REFUSED_S, Reject.CONTESTED])
        self.assertEqual(said.count(Reject.CONTESTED), 400 - 1 - int(CONTEST_BURST))
        changes = [event for event in self.sink.take() if event[0] in ("connected", "lost")]
        self.assertEqual(len(changes), 1 + CONTEST_BURST)
        self.assertEqual(self.sink.rejects.count("contested"), said.count(Reject.CONTESTED))

    def test_new_boots_of_one_name(self) -> None:
        """A crash loop, or somebody who makes them up."""
        said: list[object] = []
        for number in range(50):
            answer = self.roster.hello(hello(APP1, token="secret", boot=f"b{number}"), REMOTE, number * 0.01)
            said.append(answer.reason if not isinstance(answer, Admitted) else "in")
        self.assertEqual(said.count("in"), 1 + CONTEST_BURST)

    def test_two_names_for_one_host(self) -> None:
        """Both are welcome; the host stays with its holder once they have fought for it."""
        said: list[object] = []
        speakers: list[Speaker] = []
        for number in range(40):
            if len(speakers) > 1:
                self.roster.lost(speakers.pop(0), "the test")
            answer = self.roster.hello(hello(APP1, token="secret", agent=f"a{number}"), REMOTE, number * 0.01)
            assert isinstance(answer, Admitted)
            speakers.append(answer.speaker)
            said.append(bool(answer.speaker.refused))
        self.assertEqual(said[:6], [False] * 6)
        self.assertIn(True, said)

    def test_one_that_is_dead_is_no_opponent(self) -> None:
        """However often its way breaks, an agent comes back at once when nothing was heard of its former connection."""
        self.assertEqual(set(self.fight(50, ALIVE_S + 0.1)), {0.0})
        self.assertEqual(set(self.fight(50, ALIVE_S + 0.1, agent=("a", "b"))), {0.0})

    def test_peace_comes_back(self) -> None:
        """After a while one more may take over."""
        self.fight(20, 0.01)
        self.assertIsInstance(self.roster.hello(hello(APP1, token="secret"), REMOTE, CONTEST_EVERY_S + 1), Admitted)


class Registrations(RosterCase):
    NEW = "web/blue/new"

    def test_an_agent_joins_at_an_address(self) -> None:
        """The sink is asked, with the address written out; then the host has its agent."""
        for text, address in ((":80", "10.0.0.9:80"), ("10.1.1.1:80", "10.1.1.1:80")):
            self.sink.hosts.clear()
            self.roster.hello(hello(self.NEW, token="secret", address=text), REMOTE, 0.0)
            self.assertEqual(self.sink.take()[:2], [
                ("registered", self.NEW, "app1", address, 1.0, "10.0.0.9"), ("connected", self.NEW, "app1", "b1"),
            ])

    def test_an_ipv6_agent_joins_at_its_own_address(self) -> None:
        """``:port`` is completed to a bracketed address."""
        peer = PeerFacts("[fd00::1]:9", "fd00::1", False)
        self.roster.hello(hello(self.NEW, token="secret", address=":80"), peer, 0.0)
        self.assertEqual(self.sink.take()[0][3], "[fd00::1]:80")

    def test_refusals_name_their_reason(self) -> None:
        """What the sink declines, an address that is none, and a UNIX agent without an address."""
        unix = PeerFacts("unix", "", True)
        self.sink.registration = "registration is off"
        for text, evidence, reason in (
            (":80", REMOTE, "registration is off"),
            ("nonsense", REMOTE, "'nonsense': expected host:port, [ipv6]:port or unix:/path"),
            (":80", unix, "an agent on a UNIX socket has no address of its own"),
        ):
            answer = self.roster.hello(hello(self.NEW, token="secret", address=text), evidence, 0.0)
            assert isinstance(answer, Admitted)
            self.assertEqual(answer.speaker.refused, {self.NEW: reason})

    def test_nobody_registers_what_it_may_not_speak_for(self) -> None:
        """The sink is not even asked."""
        self.roster.hello(hello("web/green/new", token="secret", address=":80"), REMOTE, 0.0)
        self.assertEqual((self.sink.take(), self.sink.rejects), ([], ["forbidden_host"]))

    def test_an_approval_later_is_enough(self) -> None:
        """A host that waits for approval counts from the first report after it."""
        self.sink.joins = False
        speaker = self.join(self.NEW, address=":80")
        self.sink.hosts.add(HostRef.parse(self.NEW))
        self.roster.report(speaker, wire.Report(seq=1), 1.0)
        self.assertEqual([event[0] for event in self.sink.take()], ["connected", "reported"])


class WithoutIdentities(RosterCase):
    identities: ClassVar[dict[str, Identity]] = {}

    def test_anyone_may_speak_for_anyone(self) -> None:
        """On this machine alone, no proof is asked for."""
        self.join("any/thing/atall", evidence=LOCAL)
        self.assertEqual(self.sink.rejects, [])

    def test_a_name_in_use_stays_with_its_holder(self) -> None:
        """Unproven, another boot does not throw a connected agent out, and another agent does not take its host."""
        first = self.join(APP1, evidence=LOCAL)
        self.assert_refused(Reject.NAME_IN_USE, hello(APP1, boot="b2"), LOCAL)
        other = self.join(APP1, agent="other", evidence=LOCAL)
        self.assertEqual(other.refused, {APP1: "another agent speaks for it"})
        self.roster.lost(first, "gone")
        self.join(APP1, boot="b2", evidence=LOCAL)

    def test_posts_only_from_this_machine(self) -> None:
        """The admin's port may be open to the world; unproven posts from there are refused."""
        post = wire.Post(agent="a", boot_id="b", seq=1, hosts={APP1: BUSY})
        self.assertEqual(self.roster.post(post, REMOTE, 0.0), PostAnswer(Reject.UNAUTHENTICATED))
        self.assertEqual(self.roster.post(post, LOCAL, 0.0).accepted, 1)


class Posts(RosterCase):
    def post(self, seq: int, *hosts: str, boot: str = "b1", token: str | None = "secret") -> PostAnswer:
        post = wire.Post(agent="app1", boot_id=boot, token=token, seq=seq, hosts=dict.fromkeys(hosts, BUSY))
        return self.roster.post(post, REMOTE, 0.0)

    def test_a_post_is_a_report(self) -> None:
        """Each host is judged by itself."""
        answer = self.post(1, APP1, "web/blue/none", "web/green/x", "rubbish")
        self.assertEqual(answer, PostAnswer(None, 1, {
            "web/blue/none": Reject.UNKNOWN_HOST, "web/green/x": Reject.FORBIDDEN_HOST, "rubbish": Reject.UNKNOWN_HOST,
        }))
        self.assertEqual(self.sink.take(), [("reported", APP1, BUSY)])

    def test_refused_posts_change_nothing(self) -> None:
        """Wrong token, replayed, stale, a boot id that was replaced, a boot id beside a connected agent."""
        self.post(5, APP1)
        self.sink.take()
        self.assertEqual(self.post(6, APP1, token="no").refused, Reject.UNAUTHENTICATED)
        self.assertEqual(self.post(5, APP1).refused, Reject.REPLAYED)
        self.assertEqual(self.post(4, APP1).refused, Reject.STALE)
        self.assertEqual(self.sink.take(), [])
        self.assertEqual(self.post(1, APP1, boot="b2").accepted, 1)
        self.assertEqual(self.post(9, APP1).refused, Reject.STALE_BOOT)
        self.join(APP1, boot="b2")
        self.assertEqual(self.post(1, APP1, boot="b3").refused, Reject.STALE_BOOT)

    def test_posts_and_connection_share_the_sequence(self) -> None:
        """The same agent may use both ways; a report counts once."""
        speaker = self.join(APP1)
        self.roster.report(speaker, wire.Report(seq=1), 0.0)
        self.assertEqual(self.post(1, APP1).refused, Reject.REPLAYED)
        self.assertEqual(self.post(2, APP1).accepted, 1)

    def test_a_connected_agent_keeps_its_host(self) -> None:
        """Another agent's posts for it are dropped."""
        self.join(APP1, agent="other")
        self.assertEqual(self.post(1, APP1).dropped, {APP1: Reject.NOT_SPEAKER})


class Always(SynchronousTestCase):
    @settings(max_examples=100)
    @given(st.lists(st.tuples(
        st.sampled_from(["hello", "report", "leaving", "lost"]), st.integers(0, 2), st.sampled_from(["b1", "b2", "b3"]),
        st.lists(st.sampled_from([APP1, APP2]), min_size=1, unique=True), st.booleans(),
    ), max_size=25))
    def test_connected_and_lost_alternate(self, steps: list[tuple[str, int, str, list[str], bool]]) -> None:
        """Whatever agents do, a host has an agent exactly between `agent_connected` and `agent_lost`, and only a host
        with an agent gets reports."""
        sink = RecordingSink(APP1, APP2)
        roster = Roster({"blue": token("secret", "web/blue/*")}, sink)
        speakers: list[Speaker | None] = [None, None, None]
        for seq, (action, who, boot, hosts, honest) in enumerate(steps, 1):
            speaker = speakers[who]
            if action == "hello":
                answer = roster.hello(
                    hello(*hosts, agent=f"agent{who % 2}", boot=boot, token="secret" if honest else "x"), REMOTE, seq
                )
                if isinstance(answer, Admitted):
                    if speaker is not None:
                        roster.lost(speaker, "closed")
                    speakers[who] = answer.speaker
            elif speaker is not None and action == "report":
                roster.report(speaker, wire.Report(seq=seq), seq)
            elif speaker is not None and action == "leaving":
                roster.leaving(speaker, 1.0, seq)
            elif speaker is not None:
                roster.lost(speaker, "closed")
                speakers[who] = None
        for speaker in speakers:
            if speaker is not None:
                roster.lost(speaker, "closed")
        attended: set[object] = set()
        for kind, ref, *_ in sink.events:
            if kind == "connected":
                attended.add(ref)
            elif kind == "lost":
                self.assertIn(ref, attended)
                attended.discard(ref)
            else:
                self.assertIn(ref, attended)
        self.assertEqual(attended, set())
