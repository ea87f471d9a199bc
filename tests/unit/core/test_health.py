"""The health machine of one host, rule by rule."""

from __future__ import annotations

import math
import pathlib
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Health, HostState, Probe
from director.core.flapping import FLAP_HALF_LIFE_S
from director.core.health import HISTORY, HostHealth
from director.core.transitions import Cause, Evidence, Transition, diagram

UP, SUSPECT, DOWN = HostState.UP, HostState.SUSPECT, HostState.DOWN
NO_PROBE = Health(probe=Probe(kind="none"))
HTTP = Health(probe=Probe(kind="http"))
DOC = pathlib.Path(__file__).parents[3] / "docs" / "reference" / "health.md"


class HealthTestCase(SynchronousTestCase):
    """A host that is heard and checked, past its grace, with intervals that do not jitter (random is 0.5)."""

    policy = Health()

    def setUp(self) -> None:
        self.begin(self.policy)
        self.now = 10.0
        self.host.heartbeat(self.now)
        self.pass_probe()

    def begin(self, policy: Health, *, grace_s: float = 0.0, verified: bool = False) -> None:
        self.now = 0.0
        self.host = HostHealth(policy, now=0.0, grace_until=grace_s, random=lambda: 0.5, verified=verified)

    def pass_probe(self) -> Transition | None:
        return self.host.probe_result(True, "passed", 0.01, self.now)

    def fail_probe(self, detail: str = "refused") -> Transition | None:
        return self.host.probe_result(False, detail, 0.01, self.now)

    def connect(self, ok: bool, *, refused: bool = False) -> Transition | None:
        return self.host.connect_result(ok, "ECONNREFUSED", self.now, refused=refused)

    def pass_time(self, seconds: float, *, isolated: bool = False) -> Transition | None:
        self.now += seconds
        return self.host.tick(self.now, isolated)

    def beat(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += 1.0
            self.host.heartbeat(self.now)

    def take_down(self) -> None:
        while self.host.state is not DOWN:
            self.fail_probe()

    def assert_state(self, state: HostState, why: str = "") -> None:
        self.assertIs(self.host.state, state)
        self.assertIn(why, self.host.why)


class NewHostTests(HealthTestCase):
    def test_unverified(self) -> None:
        """A new host is up but unverified, and probed at once."""
        self.begin(Health())
        self.assert_state(UP, "not checked yet")
        self.assertFalse(self.host.verified)
        self.assertEqual(self.host.next_probe_at, 0.0)

    def test_known_before(self) -> None:
        """A host whose state was known before is probed after an interval."""
        self.begin(Health(), verified=True)
        self.assertEqual(self.host.next_probe_at, 2.0)

    def test_verified_by_anything(self) -> None:
        """A heartbeat, a probe or a client's connect confirms a host."""
        for confirm in (lambda: self.host.heartbeat(0.0), self.pass_probe, lambda: self.connect(True)):
            self.begin(Health())
            confirm()
            self.assertTrue(self.host.verified)

    def test_nothing_is_due(self) -> None:
        """Without an agent, time changes nothing."""
        self.begin(Health())
        self.assertEqual(self.host.deadline(), math.inf)
        self.assertIsNone(self.pass_time(1e6))

    def test_time_never_goes_back(self) -> None:
        """An input from the past raises and changes nothing."""
        self.assertRaises(AssertionError, self.host.tick, 9.0, False)
        self.assertEqual(self.host.deadline(), 13.0)


class EvidenceTests(HealthTestCase):
    """What a director tells of a host from its own eyes."""

    def evidence(self, at: float) -> Evidence:
        return self.host.evidence(at)

    def test_nothing_seen(self) -> None:
        """A new host and a failed probe of one are no evidence yet."""
        self.begin(Health())
        self.assertIs(self.evidence(0.0), Evidence.NONE)
        self.fail_probe()
        self.assertIs(self.evidence(0.0), Evidence.NONE)

    def test_what_is_heard_or_reached_lasts(self) -> None:
        """A heartbeat and a connect speak for a host for `timeout_s`, a passed probe until two more could have."""
        for confirm, lasts in (
            (lambda: self.host.heartbeat(0.0), 5.0), (lambda: self.connect(True), 5.0), (self.pass_probe, 5.4),
        ):
            self.begin(Health())
            confirm()
            self.assertEqual(self.host.fresh_until, lasts)
            self.assertIs(self.evidence(lasts - 0.1), Evidence.REACHED)
            self.assertIs(self.evidence(lasts), Evidence.NONE)

    def test_passed_probe_lasts(self) -> None:
        """Until two more could have passed, each as late as jitter may make it, and as long as a probe may take."""
        for interval_s, jitter, timeout_s, lasts in ((3.0, 0.0, 1.0, 7.0), (3.0, 0.5, 2.0, 11.0), (5.0, 0.1, 0.5, 11.5)):
            self.begin(Health(interval_s=interval_s, jitter=jitter, probe=Probe(timeout_s=timeout_s)))
            self.pass_probe()
            self.assertAlmostEqual(self.host.fresh_until, lasts)

    def test_failed_checks(self) -> None:
        """A host that checks took out is evidence for as long as it is down."""
        self.take_down()
        self.assertIs(self.evidence(1e6), Evidence.FAILED)

    def test_silence(self) -> None:
        """Silence alone is told apart, and is more than silence with the first failed connect."""
        self.begin(NO_PROBE)
        self.host.heartbeat(0.0)
        self.pass_time(5.0)
        self.assert_state(DOWN)
        self.assertIs(self.evidence(5.0), Evidence.SILENT)
        self.connect(False)
        self.assertIs(self.evidence(5.0), Evidence.FAILED)

    def test_reached_though_silent(self) -> None:
        """A host that silence alone took out comes back by one client's connect, suspect while it is silent."""
        self.begin(NO_PROBE)
        self.host.heartbeat(0.0)
        self.pass_time(5.0)
        self.now = 6.0
        transition = self.connect(True)
        self.assertEqual(transition, Transition(6.0, DOWN, SUSPECT, "a client reached it, but its agent is silent for 6.0 s"))
        self.assertIs(self.evidence(6.0), Evidence.REACHED)
        self.assertIsNone(self.pass_time(100.0))

    def test_trial(self) -> None:
        """A trial is this director's own decision, and counts as such."""
        self.begin(NO_PROBE)
        for _ in range(3):
            self.connect(False)
        self.pass_time(self.host.deadline())
        self.assert_state(SUSPECT, "on trial")
        self.assertIs(self.evidence(self.now), Evidence.REACHED)


class SilenceTests(HealthTestCase):
    def test_suspect(self) -> None:
        """Three seconds of silence make a host suspect, not sooner, and a heartbeat clears it."""
        self.assertEqual(self.host.deadline(), 13.0)
        self.assertIsNone(self.pass_time(2.999))
        self.assertEqual(self.pass_time(0.001), Transition(13.0, UP, SUSPECT, "its agent is silent for 3.0 s"))
        self.assertEqual(self.host.heartbeat(13.5), Transition(13.5, SUSPECT, UP, "its agent is heard"))

    def test_silence_alone(self) -> None:
        """A host that a probe reaches is never taken out by its agent's silence."""
        for _ in range(100):
            self.pass_time(1.0)
            self.pass_probe()
        self.assert_state(SUSPECT, "silent")

    def test_silence_and_failed_probe(self) -> None:
        """Five seconds of silence and one failed probe take a host out."""
        self.pass_time(4.0)
        self.fail_probe()
        self.assert_state(SUSPECT)
        self.assertEqual(self.host.deadline(), 15.0)
        self.pass_time(1.0)
        self.assert_state(DOWN, "silent for 5.0 s, and the last check failed: refused")

    def test_silence_and_failed_connect(self) -> None:
        """A client's failed connect is evidence like a probe's."""
        self.pass_time(6.0)
        self.connect(False)
        self.assert_state(DOWN, "ECONNREFUSED")

    def test_broken_connection(self) -> None:
        """A broken connection is suspicion at once, with a probe due now, but no more than that."""
        transition = self.host.agent_lost(10.5, "reset")
        self.assertEqual(transition, Transition(10.5, UP, SUSPECT, "its agent is silent for 0.5 s (reset)"))
        self.assertEqual(self.host.next_probe_at, 10.5)
        self.now = 11.0
        self.fail_probe()
        self.assert_state(SUSPECT)

    def test_killed(self) -> None:
        """A broken connection and a refused connect, whichever comes first, take the host out at once."""
        self.connect(False, refused=True)
        self.assert_state(SUSPECT)
        self.host.agent_lost(self.now, "reset")
        self.assert_state(DOWN, "its agent is silent for 0.0 s (reset), and a client's connect failed: ECONNREFUSED")
        self.setUp()
        self.host.agent_lost(self.now, "reset")
        self.connect(False, refused=True)
        self.assert_state(DOWN)
        self.assertIs(self.host.evidence(self.now), Evidence.FAILED)

    def test_refused_long_ago(self) -> None:
        """A refusal counts for as long as silence is borne, and not at the end of that."""
        for after_s, state in ((4.5, DOWN), (5.0, SUSPECT)):
            self.setUp()
            self.beat(4)
            self.connect(False, refused=True)
            began = self.now
            self.beat(4)
            self.now = began + after_s
            self.host.heartbeat(self.now)
            self.host.agent_lost(self.now, "reset")
            self.assert_state(state)

    def test_not_killed(self) -> None:
        """Each of the two alone is not enough; nor is a connect that failed otherwise or long ago, one that was answered since, or an
        agent that said goodbye, or whose silence is one of many."""
        self.connect(False, refused=True)
        self.assert_state(SUSPECT)
        self.pass_probe()
        self.host.agent_lost(self.now, "reset")
        self.assert_state(SUSPECT)
        self.connect(False)
        self.assert_state(SUSPECT)
        self.connect(True)
        self.host.heartbeat(self.now)
        self.assert_state(UP)
        self.host.agent_left(self.now)
        self.connect(False, refused=True)
        self.assert_state(SUSPECT)
        self.setUp()
        self.connect(False, refused=True)
        self.beat(6)
        self.host.agent_lost(self.now, "reset")
        self.assert_state(SUSPECT)
        self.setUp()
        self.host.agent_lost(self.now, "reset")
        self.pass_time(0.0, isolated=True)
        self.connect(False, refused=True)
        self.assert_state(SUSPECT)

    def test_goodbye(self) -> None:
        """After a goodbye silence is expected, and so is the end of the connection."""
        self.host.agent_lost(self.now, "reset")
        self.host.agent_left(self.now)
        self.assert_state(UP, "goodbye")
        self.assertIsNone(self.host.agent_lost(self.now, "closed"))
        self.assertIsNone(self.pass_time(1000.0))
        self.assertIsNone(self.host.heartbeat_age(self.now))

    def test_age(self) -> None:
        """The age of the last heartbeat, and when the next one is overdue."""
        self.assertEqual(self.host.heartbeat_age(12.5), 2.5)
        self.assertEqual(self.host.heartbeat_age(1010.0), 1000.0)
        self.assertEqual(self.host.overdue_at, 13.0)
        self.host.agent_left(12.5)
        self.assertEqual(self.host.overdue_at, math.inf)


class ResetTests(HealthTestCase):
    def test_resets(self) -> None:
        """A host that reset a client is known for it for a minute, or until it has served one."""
        self.assertFalse(self.host.resets(10.0))
        self.host.reset_at_once(10.0)
        self.assertEqual([self.host.resets(10.0 + after_s) for after_s in (0.0, 59.9, 60.0)], [True, True, False])
        self.host.served(11.0)
        self.assertFalse(self.host.resets(11.0))


    def test_resets_in_a_row(self) -> None:
        """Each is a failed connect."""
        self.host.reset_at_once(self.now)
        self.assertEqual(self.host.connect_failures, 1)


class IsolationTests(HealthTestCase):
    def test_silence_is_no_evidence(self) -> None:
        """While the director is isolated silence neither raises suspicion nor takes out, and clears what it raised."""
        self.pass_time(3.0)
        self.assertEqual(self.pass_time(0.5, isolated=True),
                         Transition(13.5, SUSPECT, UP, "its silence is one of many at once"))
        self.assertEqual(self.host.deadline(), math.inf)
        self.assertIsNone(self.pass_time(100.0, isolated=True))
        self.fail_probe()
        self.assert_state(SUSPECT, "refused")

    def test_failed_probes_count(self) -> None:
        """`fall` failed probes take a host out even then."""
        self.pass_time(0.0, isolated=True)
        self.take_down()
        self.assert_state(DOWN, "3 probes in a row failed")

    def test_end(self) -> None:
        """Silence counts anew from the isolation's end, so that agents have time to come back."""
        self.pass_time(3.0, isolated=True)
        self.pass_time(97.0, isolated=True)
        self.fail_probe()
        self.pass_time(0.0)
        self.assert_state(SUSPECT, "refused")
        self.assertEqual(self.host.deadline(), 113.0)
        self.pass_time(4.9)
        self.assert_state(SUSPECT)
        self.pass_time(0.1)
        self.assert_state(DOWN, "silent for 5.0 s")


class CheckTests(HealthTestCase):
    def test_fall(self) -> None:
        """The first failed probe makes a host suspect, the third takes it out, heartbeats or not."""
        self.fail_probe()
        self.assert_state(SUSPECT, "a check failed: refused")
        self.beat()
        self.fail_probe()
        self.assert_state(SUSPECT)
        self.beat()
        self.fail_probe()
        self.assert_state(DOWN, "3 probes in a row failed: refused")

    def test_in_a_row(self) -> None:
        """A passed probe between failed ones starts the count again."""
        for _ in range(10):
            self.fail_probe()
            self.fail_probe()
            self.pass_probe()
            self.assert_state(UP, "a probe passed")

    def test_unresolved_name(self) -> None:
        """A name that does not resolve is a failed check with its reason."""
        self.fail_probe("app1.example: no such name")
        self.assert_state(SUSPECT, "no such name")

    def test_failed_connects(self) -> None:
        """The first failed connect of a client makes a host suspect, the third in a row takes it out."""
        self.connect(False)
        self.assert_state(SUSPECT, "ECONNREFUSED")
        self.connect(False)
        self.assertEqual(self.host.connect_failures, 2)
        self.connect(False)
        self.assert_state(DOWN, "3 connects in a row failed")

    def test_connect_answers_connects(self) -> None:
        """One successful connect ends the row."""
        for _ in range(10):
            self.connect(False)
            self.connect(False)
            self.connect(True)
            self.assert_state(UP, "a client's connect succeeded")

    def test_connect_answers_a_tcp_probe(self) -> None:
        """A client's connect is as good as a TCP probe of the same address."""
        self.fail_probe()
        self.connect(True)
        self.assert_state(UP)

    def test_connect_does_not_answer_an_http_probe(self) -> None:
        """Clients that connect do not excuse a failed HTTP probe."""
        for policy in (HTTP, Health(probe=Probe(address="127.0.0.1:9"))):
            self.begin(policy)
            for _ in range(3):
                self.fail_probe()
                self.connect(True)
            self.assert_state(DOWN, "3 probes")

    def test_failed_probe_outweighs_traffic_before_it(self) -> None:
        """Clients that reached a host before it failed its last probe, or in the same moment, do not speak for it."""
        for before_s in (0.5, 0.0):
            self.begin(HTTP)
            self.host.heartbeat(0.0)
            self.pass_time(4.0)
            self.connect(True)
            self.now += before_s
            self.fail_probe()
            self.pass_time(5.0)
            self.assert_state(DOWN, "and the last check failed")

    def test_traffic_outweighs_one_failed_http_probe(self) -> None:
        """While clients still reach it, silence and one failed HTTP probe do not take a host out."""
        self.begin(HTTP)
        self.host.heartbeat(0.0)
        self.pass_time(4.0)
        self.fail_probe()
        self.now += 0.5
        self.connect(True)
        self.pass_time(5.0)
        self.assert_state(SUSPECT)
        self.fail_probe()
        self.assert_state(DOWN, "silent for 9.5 s, and the last check failed")

    def test_fall_of_one(self) -> None:
        """With `fall` 1 a host goes down without being suspect first."""
        self.begin(Health(fall=1))
        self.assertEqual(self.fail_probe(), Transition(0.0, UP, DOWN, "1 probes in a row failed: refused"))

    def test_only_news_is_asked_for(self) -> None:
        """A verified host that is up and probed needs no word of each connect; without probes every one counts."""
        self.assertFalse(self.host.in_doubt)
        self.fail_probe()
        self.assertTrue(self.host.in_doubt)
        self.begin(NO_PROBE)
        self.host.heartbeat(0.0)
        self.assertTrue(self.host.in_doubt)


class ComingBackTests(HealthTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.take_down()

    def test_rise(self) -> None:
        """Two passed probes in a row bring a host back."""
        self.pass_probe()
        self.fail_probe()
        self.pass_probe()
        self.assert_state(DOWN)
        self.pass_probe()
        self.assert_state(UP, "passed its probes")

    def test_heartbeats_alone(self) -> None:
        """Where there are probes, neither heartbeats nor connects resurrect a host."""
        self.beat(100)
        for _ in range(10):
            self.connect(True)
        self.assert_state(DOWN)

    def test_back_but_silent(self) -> None:
        """A host that passes its probes while its agent is silent comes back as suspect."""
        self.pass_time(60.0)
        self.pass_probe()
        self.pass_probe()
        self.assert_state(SUSPECT, "passed its probes, but its agent is silent")
        self.beat()
        self.assert_state(UP)

    def test_old_failures_are_forgotten(self) -> None:
        """Failed connects from before do not count against a host that came back."""
        self.connect(False)
        self.connect(False)
        self.pass_probe()
        self.connect(False)
        self.connect(False)
        self.pass_probe()
        self.connect(False)
        self.assert_state(SUSPECT)

    def test_retry(self) -> None:
        """An operator's retry probes at once, and one passed probe is then enough."""
        self.host.retry(self.now)
        self.assertEqual(self.host.next_probe_at, self.now)
        self.pass_probe()
        self.assert_state(UP)

    def test_failed_retry(self) -> None:
        """A retry whose probe fails vouches for nothing afterwards."""
        self.host.retry(self.now)
        self.fail_probe()
        self.pass_probe()
        self.assert_state(DOWN)


class WithoutProbeTests(HealthTestCase):
    policy = NO_PROBE

    def test_no_probe_is_ever_due(self) -> None:
        """There is nothing to start, and a late result of an old probe says nothing."""
        self.host.retry(self.now)
        self.assertIsNone(self.host.next_probe_at)
        for _ in range(5):
            self.fail_probe()
        self.assert_state(UP)

    def test_silence(self) -> None:
        """Silence alone takes out a host that nothing else can check, and two heartbeats bring it back."""
        self.pass_time(3.0)
        self.assertEqual(self.host.deadline(), 15.0)
        self.pass_time(2.0)
        self.assert_state(DOWN, "its agent is silent for 5.0 s")
        self.beat()
        self.assert_state(DOWN)
        self.beat()
        self.assert_state(UP, "2 heartbeats in a row")

    def test_silence_of_a_host_that_clients_reach(self) -> None:
        """A client that reached it at its last heartbeat or later speaks for it; one before that does not."""
        for reached_at, state in ((9.5, DOWN), (10.0, SUSPECT), (10.5, SUSPECT)):
            self.begin(NO_PROBE)
            for at in (9.5, 10.0, 10.5):
                self.now = at
                if at == 10.0:
                    self.host.heartbeat(at)
                if at == reached_at:
                    self.connect(True)
            self.pass_time(10.0)
            self.assert_state(state)

    def test_traffic_reaches_it(self) -> None:
        """A connect that succeeded since the silence began keeps the host in rotation."""
        self.now += 1.0
        self.connect(True)
        self.pass_time(100.0)
        self.assert_state(SUSPECT)
        self.connect(False)
        self.assert_state(DOWN, "the last check failed")

    def test_heartbeats_in_a_row(self) -> None:
        """Heartbeats with a silence or a broken connection between them are not in a row."""
        self.pass_time(5.0)
        self.beat()
        self.now += 3.0
        self.beat()
        self.assert_state(DOWN)
        self.host.agent_lost(self.now, "reset")
        self.beat()
        self.assert_state(DOWN)

    def test_passive(self) -> None:
        """Failed connects take it out, and heartbeats bring it back."""
        for _ in range(3):
            self.connect(False)
        self.assert_state(DOWN)
        self.beat(2)
        self.assert_state(UP)

    def test_retry(self) -> None:
        """An operator's retry puts a silent host on trial for one timeout."""
        self.pass_time(5.0)
        self.assertIs(self.host.retry(self.now).after, SUSPECT)  # type: ignore[union-attr]
        self.pass_time(4.9)
        self.assert_state(SUSPECT, "on trial")
        self.pass_time(0.1)
        self.assert_state(DOWN)


class TrialTests(HealthTestCase):
    """Neither probe nor agent: clients are the only check."""

    def setUp(self) -> None:
        self.begin(NO_PROBE)
        self.fail_connects(3)

    def fail_connects(self, count: int) -> None:
        for _ in range(count):
            self.connect(False)

    def test_trial(self) -> None:
        """After the back-off the host is suspect until `rise` connects succeeded."""
        self.assertEqual(self.host.deadline(), 2.0)
        self.pass_time(2.0)
        self.assert_state(SUSPECT, "on trial")
        self.connect(True)
        self.assert_state(SUSPECT)
        self.connect(True)
        self.assert_state(UP)

    def test_failed_trials_back_off(self) -> None:
        """One failed connect ends a trial, and each failed trial doubles the wait, up to 30 s."""
        waits = []
        for _ in range(6):
            wait = self.host.deadline() - self.now
            waits.append(wait)
            self.pass_time(wait)
            self.connect(False)
            self.assert_state(DOWN, "on trial")
        self.assertEqual(waits, [2.0, 4.0, 8.0, 16.0, 30.0, 30.0])

    def test_agent_appears(self) -> None:
        """With an agent the host comes back by its heartbeats instead."""
        self.beat()
        self.assertEqual(self.host.deadline(), math.inf)
        self.beat()
        self.assert_state(UP)

    def test_agent_leaves(self) -> None:
        """When the agent of a down host says goodbye, a trial is the way back."""
        self.beat()
        self.host.agent_left(self.now)
        self.pass_time(2.0)
        self.assert_state(SUSPECT, "on trial")


class GraceTests(HealthTestCase):
    def test_judged_at_the_end(self) -> None:
        """During grace failures count but take nobody out; at its end they do."""
        self.begin(Health(), grace_s=5.0)
        for _ in range(10):
            self.fail_probe()
        self.assert_state(SUSPECT)
        self.assertEqual(self.host.deadline(), 5.0)
        self.assertIsNone(self.pass_time(4.9))
        self.pass_time(0.1)
        self.assert_state(DOWN, "10 probes")

    def test_recovered_in_time(self) -> None:
        """Who recovers during grace was never out."""
        self.begin(Health(), grace_s=5.0)
        for _ in range(10):
            self.fail_probe()
        self.pass_probe()
        self.assertEqual(self.host.deadline(), math.inf)
        self.assertIsNone(self.pass_time(5.0))
        self.assert_state(UP)

    def test_extended(self) -> None:
        """A change of leader gives grace again, and never less of it."""
        self.begin(Health(), grace_s=5.0)
        self.host.extend_grace(8.0)
        self.host.extend_grace(6.0)
        for _ in range(3):
            self.fail_probe()
        self.assertEqual(self.host.deadline(), 8.0)
        self.pass_time(7.9)
        self.assert_state(SUSPECT)


class ScheduleTests(HealthTestCase):
    def due_in(self) -> float:
        due = self.host.next_probe_at
        assert due is not None
        return due - self.now

    def test_intervals(self) -> None:
        """Two seconds when up, one when suspect."""
        self.assertEqual(self.due_in(), 2.0)
        self.fail_probe()
        self.assertEqual(self.due_in(), 1.0)
        self.pass_probe()
        self.assertEqual(self.due_in(), 2.0)

    def test_suspicion_brings_the_probe_forward(self) -> None:
        """A host that becomes suspect need not wait for the interval of an up one."""
        self.connect(False)
        self.assertEqual(self.due_in(), 1.0)

    def test_back_off(self) -> None:
        """A down host's probes become rarer, up to 30 s, until one passes."""
        self.take_down()
        delays = [self.due_in()]
        for _ in range(5):
            self.fail_probe()
            delays.append(self.due_in())
        self.assertEqual(delays, [2.0, 4.0, 8.0, 16.0, 30.0, 30.0])
        self.pass_probe()
        self.assertEqual(self.due_in(), 2.0)

    def test_not_twice(self) -> None:
        """While a probe is under way no other is due."""
        self.host.probe_started(self.now)
        self.assertIsNone(self.host.next_probe_at)
        self.host.retry(self.now)
        self.assertIsNone(self.host.next_probe_at)
        self.pass_probe()
        self.assertEqual(self.due_in(), 2.0)

    def test_void(self) -> None:
        """A probe that this director could not make says nothing, and is due a second later."""
        self.host.probe_started(self.now)
        self.now += 1.0
        self.host.probe_void(self.now)
        self.assertEqual((self.due_in(), self.host.last_check, self.host.state), (1.0, (10.0, True, "passed", 0.01), UP))

    def test_moved(self) -> None:
        """A host that is at another address is probed at once there, and then as often as one that has just gone down."""
        self.take_down()
        self.fail_probe()
        self.now += 1.0
        self.host.moved(self.now)
        self.assertEqual(self.due_in(), 0.0)
        self.fail_probe()
        self.assertEqual(self.due_in(), 4.0)

    def test_jitter(self) -> None:
        """Intervals vary by a tenth either way."""
        for uniform, expected in [(0.0, 1.8), (0.5, 2.0), (1.0, 2.2)]:
            host = HostHealth(Health(), now=0.0, grace_until=0.0, random=lambda uniform=uniform: uniform)  # type: ignore[misc]
            host.probe_result(True, "", 0.0, 0.0)
            self.assertAlmostEqual(host.next_probe_at or 0.0, expected)

    def test_last_check(self) -> None:
        """The last check is kept as it was told."""
        self.fail_probe("503")
        self.assertEqual(self.host.last_check, (10.0, False, "503", 0.01))


class ReconfigureTests(HealthTestCase):
    def test_thresholds(self) -> None:
        """New thresholds judge what was counted before."""
        self.fail_probe()
        self.host.reconfigure(Health(fall=1), self.now)
        self.assert_state(DOWN)

    def test_new_probe(self) -> None:
        """Another probe is due at once, and the old one's failures are forgotten."""
        self.fail_probe()
        self.host.probe_started(self.now)
        self.host.reconfigure(HTTP, self.now)
        self.assert_state(UP, "policy changed")
        self.assertEqual(self.host.next_probe_at, self.now)

    def test_probe_switched_off_while_down(self) -> None:
        """A down host whose probe is switched off comes back by heartbeats, or by a trial where nobody is heard."""
        self.take_down()
        self.host.reconfigure(NO_PROBE, self.now)
        self.beat(2)
        self.assert_state(UP)
        self.begin(Health())
        self.take_down()
        self.host.reconfigure(NO_PROBE, 0.0)
        self.pass_time(2.0)
        self.assert_state(SUSPECT, "on trial")

    def test_probe_switched_on_in_a_trial(self) -> None:
        """A passed probe ends a trial."""
        self.begin(NO_PROBE)
        for _ in range(3):
            self.connect(False)
        self.pass_time(2.0)
        self.host.reconfigure(Health(), self.now)
        self.pass_probe()
        self.assert_state(UP)

    def test_shorter_interval(self) -> None:
        """A shorter interval does not wait for the longer one to end."""
        self.host.reconfigure(msgspec.structs.replace(Health(), interval_s=0.5), self.now)
        self.assertEqual(self.host.next_probe_at, self.now + 0.5)


class HistoryTests(HealthTestCase):
    def test_bounded(self) -> None:
        """A flapping host's history keeps the newest transitions and no more."""
        for _ in range(HISTORY):
            self.fail_probe()
            self.beat()
            last = self.pass_probe()
        self.assertEqual(len(self.host.history), HISTORY)
        self.assertEqual(self.host.history[-1], last)
        self.assertEqual(self.host.since, self.now)


class ReferenceTests(SynchronousTestCase):
    def test_diagram_is_current(self) -> None:
        """The reference shows the diagram of the table as it runs, and names every cause."""
        text = DOC.read_text()
        self.assertIn(f"```mermaid\n{diagram()}\n```", text)
        for cause in Cause:
            self.assertIn(cause.value, text)


class FlapTests(HealthTestCase):
    """Rule 7."""

    def setUp(self) -> None:
        self.begin(self.policy)
        self.now = 10.0
        self.pass_probe()

    def flap(self, up_s: float = 5.0) -> float:
        """Down, and back as soon as may be, and up for *up_s*; how long it was down while its probes passed."""
        self.take_down()
        began = self.now
        while self.host.state is DOWN:
            self.pass_time(0.5)
            self.pass_probe()
        down_s, self.now = self.now - began, self.now + up_s
        return down_s

    def test_later_and_later(self) -> None:
        """Each time it is kept out for longer, up to the bound, and it says so; after a long while in rotation all is forgotten."""
        times = [self.flap() for _ in range(9)]
        self.assertEqual(times[0], 1.0)  # `rise` probes
        self.assertTrue(all(before < after for before, after in pairwise(times[1:7])), times)
        self.assertEqual(times[-1], self.policy.flap_hold_s)
        self.take_down()
        self.assert_state(DOWN, "it flaps, and is kept out for 60 s at least")
        self.flap(10 * FLAP_HALF_LIFE_S)
        self.assertEqual(self.flap(), 1.0)

    def test_back_at_its_deadline(self) -> None:
        """A tick at the deadline brings it back, if it passes its probes then, and no sooner."""
        for failed in (False, True):
            self.flap()
            self.take_down()
            end = self.host.deadline()
            self.assertEqual(end, self.host.held_until)
            self.pass_probe()
            self.pass_probe()
            if failed:
                self.fail_probe()
            self.assertIsNone(self.pass_time(end - self.now - 0.01))
            self.pass_time(0.02)
            self.assertIs(self.host.state, DOWN if failed else UP)
            self.setUp()

    def test_heartbeats(self) -> None:
        """Where heartbeats bring a host back, they wait for it too."""
        self.begin(NO_PROBE)
        self.beat()
        for _ in range(2):
            self.pass_time(NO_PROBE.timeout_s)
            self.assertIs(self.host.state, DOWN)
            self.beat(NO_PROBE.rise)
            back = self.host.state
        self.assertIs(back, DOWN)
        while self.host.state is DOWN:
            self.beat()
        self.assertGreaterEqual(self.now, self.host.held_until)

    def test_ended(self) -> None:
        """An operator's retry, the want of other hosts, and a policy without it end the hold."""
        for end in (lambda: self.host.retry(self.now), lambda: self.host.release(self.now),
                    lambda: self.host.reconfigure(msgspec.structs.replace(self.policy, flap_hold_s=0.0), self.now)):
            self.setUp()
            self.flap()
            self.take_down()
            self.pass_probe()
            self.pass_probe()
            self.assertIs(self.host.state, DOWN)
            end()
            self.pass_probe()
            self.assertIs(self.host.state, UP)

    @given(st.lists(st.tuples(st.floats(0, 300), st.booleans()), max_size=60), st.sampled_from([0.0, 7.0, 60.0]))
    def test_bounded(self, steps: list[tuple[float, bool]], hold_s: float) -> None:
        """Whatever happens, a host that passes its probes is back within `flap_hold_s` of having gone down."""
        self.begin(msgspec.structs.replace(self.policy, flap_hold_s=hold_s))
        for seconds, ok in steps:
            self.pass_time(seconds)
            if ok:
                self.pass_probe()
            else:
                self.fail_probe()
            if self.host.state is DOWN:
                self.assertLessEqual(self.host.held_until, self.host.since + hold_s)
        for _ in range(self.policy.rise):
            self.pass_time(hold_s)
            self.pass_probe()
        self.assertIs(self.host.state, UP)
