"""Silence in bulk: when a director suspects itself."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from director.core.isolation import LEAST_HOSTS, RECENT_S, WINDOW_S, Isolation


class IsolationTests(SynchronousTestCase):
    def begin(self, hosts: int, panic_fraction: float = 0.5) -> None:
        """*hosts* were heard at 100, and it is 103."""
        self.isolation = Isolation(panic_fraction)
        self.hosts = [f"h{number}" for number in range(hosts)]
        for host in self.hosts:
            self.isolation.heard(host, 100.0)
        self.now = 103.0

    def silence(self, *numbers: int, last_heard: float = 100.0) -> list[bool]:
        return [self.isolation.fell_silent(f"h{number}", last_heard, self.now) for number in numbers]

    def probe(self, number: int, ok: bool) -> bool:
        """A probe of one host, half a second after whatever was before."""
        self.now += 0.5
        return self.isolation.probed(f"h{number}", ok, self.now)

    def test_bulk(self) -> None:
        """More than half falling silent at once begins it, exactly half does not."""
        self.begin(4)
        self.assertEqual(self.silence(0, 1), [False, False])
        self.assertFalse(self.isolation.isolated)
        self.assertEqual(self.silence(2), [True])
        self.assertTrue(self.isolation.isolated)
        self.assertEqual((self.isolation.since, self.isolation.silent), (103.0, 3))

    def test_small_clusters(self) -> None:
        """One silent host is never bulk, two of two or of three are."""
        for hosts, silent, expected in [(1, 1, False), (2, 1, False), (2, 2, True), (3, 1, False), (3, 2, True)]:
            self.begin(hosts)
            self.silence(*range(silent))
            self.assertEqual(self.isolation.isolated, expected, f"{silent} of {hosts}")

    def test_turned_off(self) -> None:
        """With a panic fraction of 1 it never begins."""
        self.begin(5, panic_fraction=1.0)
        self.silence(*range(5))
        self.assertFalse(self.isolation.isolated)

    def test_not_at_once(self) -> None:
        """Hosts that fall silent one after another are so many losses."""
        self.begin(4)
        for number in range(4):
            self.now += WINDOW_S + 1
            for later in range(number, 4):
                self.isolation.heard(f"h{later}", self.now)
            self.silence(number, last_heard=self.now)
        self.assertFalse(self.isolation.isolated)

    def test_at_once_is_about_when_they_were_heard(self) -> None:
        """It does not matter that one group's silence is noticed later than another's."""
        self.begin(3)
        self.silence(0)
        self.now += 20.0
        self.assertEqual(self.silence(1, last_heard=101.0), [True])

    def test_old_silences_prove_nothing(self) -> None:
        """Hosts that have been silent for long neither hide a new isolation nor make one."""
        self.begin(6)
        for number in (0, 1, 2):
            self.silence(number, last_heard=100.0 - 10 * number)
        self.assertFalse(self.isolation.isolated)
        self.now += RECENT_S + 10.0
        self.assertEqual(self.silence(3, 4, last_heard=self.now - 3), [False, True])
        self.assertEqual(self.isolation.silent, 2)

    def test_repeated_news(self) -> None:
        """A silence that is known already is told twice without effect."""
        self.begin(4)
        self.silence(0, 0, 0, 0)
        self.assertFalse(self.isolation.isolated)
        self.assertTrue(self.isolation.is_silent("h0"))
        self.assertFalse(self.isolation.is_silent("h1"))

    def test_strangers(self) -> None:
        """Nothing breaks at hosts that were never heard."""
        self.begin(0)
        self.assertFalse(self.isolation.gone("nobody", self.now))
        self.assertFalse(self.isolation.probed("nobody", False, self.now))
        self.assertFalse(self.isolation.heard("somebody", self.now))

    def test_ends_when_enough_are_heard(self) -> None:
        """It ends as soon as no more than the fraction is silent."""
        self.begin(6)
        self.silence(*range(6))
        self.assertEqual([self.isolation.heard(f"h{number}", 110.0) for number in range(3)], [False, False, True])
        self.assertIsNone(self.isolation.since)
        self.assertEqual(self.isolation.silent, 0)

    def test_ends_by_goodbyes(self) -> None:
        """Hosts that are removed are not missed."""
        self.begin(3)
        self.silence(0, 1)
        self.assertTrue(self.isolation.gone("h0", self.now))
        self.assertFalse(self.isolation.isolated)

    def test_goodbyes_before(self) -> None:
        """A fleet that says goodbye is no isolation."""
        self.begin(4)
        for number in range(4):
            self.assertFalse(self.isolation.gone(f"h{number}", self.now))
        self.assertFalse(self.isolation.isolated)

    def test_later_silences_are_covered(self) -> None:
        """A host that falls silent while it lasts belongs to it, whenever it was heard last."""
        self.begin(6)
        self.silence(0, 1, 2, 3)
        self.silence(4, last_heard=50.0)
        self.assertEqual(self.isolation.silent, 5)
        self.isolation.heard("h0", self.now)
        self.assertTrue(self.isolation.isolated)

    def test_probes_reach_the_silent(self) -> None:
        """While the silent hosts pass probes only their agents are away: it stays."""
        self.begin(4)
        self.silence(0, 1, 2)
        for _ in range(10):
            self.assertEqual([self.probe(number, True) for number in range(4)], [False] * 4)
        self.assertTrue(self.isolation.isolated)

    def test_probes_reach_nobody(self) -> None:
        """While no probe passes at all it really is isolation: it stays."""
        self.begin(4)
        self.probe(3, True)
        self.silence(0, 1, 2)
        for _ in range(10):
            self.assertEqual([self.probe(number, False) for number in range(4)], [False] * 4)
        self.assertTrue(self.isolation.isolated)

    def test_probes_say_they_are_dead(self) -> None:
        """When the silent hosts fail probes and others pass theirs, the silent ones died: it ends."""
        self.begin(4)
        self.silence(0, 1, 2)
        flips = []
        for ok in (False, False):
            flips += [self.probe(number, ok) for number in range(3)]
            flips.append(self.probe(3, True))
        self.assertEqual(flips, [False] * 4 + [False, True, False, False])
        self.assertFalse(self.isolation.isolated)

    def test_the_network_healing_is_no_death(self) -> None:
        """One probe that passes first when the network comes back does not condemn those that failed before."""
        self.begin(4)
        self.silence(0, 1, 2, 3)
        for number in (0, 1, 2, 3, 0, 1, 2, 3):
            self.probe(number, False)
        self.assertFalse(self.probe(3, True))
        self.assertTrue(self.isolation.isolated)

    def test_dead_hosts_that_answer_again(self) -> None:
        """A host that passes a probe after all is merely silent again."""
        self.begin(8)
        self.silence(0, 1, 2, 3, 4)
        for ok in (False, True):
            self.probe(0, False)
            self.probe(1, False)
            self.probe(7, ok)
        self.probe(0, False)
        self.assertEqual(self.isolation.silent, 4)
        self.probe(0, True)
        self.assertEqual(self.isolation.silent, 5)

    @settings(max_examples=40)
    @given(st.integers(3, 50), st.floats(0, 1), st.floats(0, 10), st.booleans())
    def test_one_loss(self, hosts: int, panic_fraction: float, age: float, ok: bool) -> None:
        """The loss of a single host never begins it, whatever the fraction."""
        self.begin(hosts, panic_fraction)
        self.silence(0, last_heard=self.now - age)
        self.probe(0, ok)
        self.assertFalse(self.isolation.isolated)


HOSTS = st.integers(0, 7)


class Silence:
    """One silent host, as the definitions have it."""

    def __init__(self, onset: float) -> None:
        self.onset = onset
        self.failed_at: float | None = None  # the first of the failed probes in a row
        self.dead = False


class IsolationMachine(RuleBasedStateMachine):
    """Any sequence of events, against the definitions and rules, counted afresh each time."""

    @initialize(fraction=st.sampled_from([0.0, 0.25, 0.5, 0.9]), hosts=st.integers(0, 8))
    def begin(self, fraction: float, hosts: int) -> None:
        self.fraction = fraction
        self.isolation = Isolation(fraction)
        self.heard: dict[int, float] = {}
        self.silent: dict[int, Silence] = {}
        self.now = 0.0
        self.since: float | None = None
        self.covered_from = 0.0
        self.passed_at = -1.0
        for host in range(hosts):
            self.hear(host)

    def living(self) -> list[float]:
        """Onsets of those that are silent and not dead."""
        return [each.onset for each in self.silent.values() if not each.dead]

    def covered(self) -> int:
        return 0 if self.since is None else sum(onset >= self.covered_from for onset in self.living())

    def is_bulk(self, silent: int, base: int) -> bool:
        return silent >= LEAST_HOSTS and silent > self.fraction * base

    def hears(self) -> int:
        return len(self.heard.keys() - self.silent.keys())

    def follow(self, before: float | None, flipped: bool) -> None:
        if before is not None and not self.is_bulk(self.covered(), self.hears() + self.covered()):  # rule 3
            self.since = None
        assert flipped == ((before is None) != (self.since is None))

    @rule(pause=st.sampled_from([0.5, 1.0, WINDOW_S, 5.0, RECENT_S - WINDOW_S, RECENT_S, 70.0]))
    def pass_time(self, pause: float) -> None:
        self.now += pause

    @rule(host=HOSTS)
    def hear(self, host: int) -> None:
        flipped = self.isolation.heard(host, self.now)
        self.heard[host] = self.now
        self.silent.pop(host, None)
        self.follow(self.since, flipped)

    @rule(host=HOSTS)
    def fall_silent(self, host: int) -> None:
        if host not in self.heard:
            return
        flipped = self.isolation.fell_silent(host, self.heard[host], self.now)
        before = self.since
        if host not in self.silent:
            onset = self.heard[host] if before is None else max(self.heard[host], self.covered_from)
            self.silent[host] = Silence(onset)
            if before is None:  # rule 1
                at_once = [each for each in self.living() if abs(each - onset) <= WINDOW_S]
                recent = [each for each in self.living() if each >= self.now - RECENT_S]
                if self.is_bulk(len(at_once), self.hears() + max(len(recent), len(at_once))):
                    self.since, self.covered_from = self.now, min(at_once)
        assert flipped == (before is None and self.since is not None)

    @rule(host=HOSTS)
    def goodbye(self, host: int) -> None:
        flipped = self.isolation.gone(host, self.now)
        self.heard.pop(host, None)
        self.silent.pop(host, None)
        self.follow(self.since, flipped)

    @rule(host=HOSTS, ok=st.sampled_from([True, False, False]))
    def probe(self, host: int, ok: bool) -> None:
        flipped = self.isolation.probed(host, ok, self.now)
        silence = self.silent.get(host)
        if silence is not None:
            if ok:
                silence.failed_at, silence.dead = None, False
            elif silence.failed_at is None:
                silence.failed_at = self.now
            elif self.passed_at > silence.failed_at:
                silence.dead = True
        if ok:
            self.passed_at = self.now
        self.follow(self.since, flipped)

    @invariant()
    def as_the_rules_say(self) -> None:
        if hasattr(self, "isolation"):
            assert self.isolation.isolated == (self.since is not None)
            assert self.isolation.since == self.since
            assert self.isolation.silent == self.covered()
            for host in range(8):
                assert self.isolation.is_silent(host) == (host in self.silent)

    def teardown(self) -> None:
        """Whatever went before, it ends when all are heard again."""
        if hasattr(self, "isolation"):
            for host in list(self.heard):
                self.hear(host)
            assert not self.isolation.isolated


TestIsolationMachine = IsolationMachine.TestCase
TestIsolationMachine.settings = settings(max_examples=150, stateful_step_count=40)
