"""Outliers beside a model that keeps every client and follows the rules one by one."""

from __future__ import annotations

import math

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Outliers, Reason
from director.core.host import Host
from director.core.outliers import CHANCE, Comparison, Conduct
from director.core.pool import Ticket
from tests.unit.core.core_pools import pool_of

EARLY_S = 0.5
POLICIES = st.builds(
    Outliers, consecutive=st.sampled_from([0, 1, 2, 5, 5]), samples=st.sampled_from([1, 4, 20]), window_s=st.sampled_from([10.0, 4.0]),
    failure_share=st.sampled_from([0.2, 0.5]), latency_factor=st.sampled_from([0.0, 3.0, 2.0]), latency_s=st.sampled_from([0.1, 0.02]),
    max_ejected=st.sampled_from([0.0, 0.3, 0.5, 1.0]), ejection_s=st.sampled_from([30.0, 8.0]), max_ejection_s=st.sampled_from([300.0, 70.0, 5.0]),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["serve", "serve", "fail", "fail", "fail", "open", "fail open", "connect", "wait", "window", "window", "eject", "due"]),
        st.integers(0, 3), st.sampled_from([1, 1, 2, 5, 12, 40]), st.sampled_from([0.0, 0.4, 0.5, 4.0, 9.0, 10.0, 31.0, 65.0, 130.0, 301.0]),
    ),
    min_size=5, max_size=40,
)


class Known:
    """What the model keeps of one host."""

    def __init__(self) -> None:
        self.picks = self.last_pick = 0  # how many, and the number of the last among the group's
        self.row = self.row_from = 0
        self.returned = self.out = False
        self.times, self.until, self.back_at = 0, 0.0, 0.0
        self.begin_window()
        self.before = (0, 0)

    def begin_window(self) -> None:
        self.mine = self.failures = 0
        self.connects: list[float] = []
        self.connect_s = 0.0


class Model:
    def __init__(self, hosts: list[Host], policy: Outliers, now: float) -> None:
        self.known = {host: Known() for host in hosts}
        for each in self.known.values():
            each.back_at = now
        self.policy = policy
        self.began = self.looked_at = now
        self.clients: list[Host] = []  # in the order of their picks
        self.window_from = 0
        self.before = (0, 0)

    def picked(self, host: Host) -> None:
        self.clients.append(host)
        known = self.known[host]
        known.picks, known.mine, known.last_pick = known.picks + 1, known.mine + 1, len(self.clients)

    def failures(self) -> int:
        return sum(each.failures for each in self.known.values())

    def failed(self, host: Host, open_elsewhere: int, now: float) -> tuple[int, int, float] | None:
        """The row, of how many clients, and the others' share; None: no outlier."""
        known, policy = self.known[host], self.policy
        known.failures += 1
        known.row += 1
        if known.row == 1 and not known.returned:
            known.row_from = known.picks - 1
        served = known.picks - known.row_from - known.row
        if served > known.row:
            known.row, known.row_from, known.returned = 1, known.picks - 1, False
        before = self.clients[self.window_from : known.last_pick]
        elsewhere = sum(each is not host for each in before)
        finished = max(0, elsewhere - open_elsewhere)
        old = max(0, open_elsewhere - elsewhere) if now - self.began >= EARLY_S else 0
        clients = self.before[0] - known.before[0] + finished + old
        failed = self.before[1] - known.before[1] + self.failures() - known.failures
        if clients < policy.consecutive or not policy.consecutive:
            return None
        share = (min(max(0, failed), clients) + 1) / (clients + 2)
        picked = max(known.row, known.picks - known.row_from)
        chance = math.comb(picked, known.row) * share**known.row
        assume(abs(chance / CHANCE - 1) > 1e-6)  # the bound itself is a matter of rounding
        if (known.row >= policy.consecutive and chance < CHANCE) or (known.returned and share <= 0.1):
            return known.row, picked, share
        return None

    def close_window(self, now: float) -> list[Host]:
        policy = self.policy
        if now - self.looked_at < policy.window_s:
            return []
        self.looked_at = now
        picked, failed = sum(each.mine for each in self.known.values()), self.failures()
        if picked < policy.samples * len(self.known) and now - self.began < 30 * policy.window_s:
            return []
        failing, slow = [], []
        for host, each in self.known.items():
            others = picked - each.mine
            if each.failures >= max(policy.consecutive, 1) and each.mine >= policy.samples and others >= policy.samples:
                share = min(1.0, each.failures / each.mine)
                theirs = min(1.0, (failed - each.failures + 1) / (others + 2))
                if share - theirs >= max(policy.failure_share, 5 * math.sqrt(theirs * (1 - theirs) / each.mine)):
                    failing.append((share, host))
            rest = sorted(other.connect_s / len(other.connects) for peer, other in self.known.items()
                          if peer is not host and len(other.connects) >= max(policy.samples, 1))
            if policy.latency_factor and len(each.connects) >= policy.samples and rest:
                mean_s = each.connect_s / len(each.connects)
                middle_s = (rest[(len(rest) - 1) // 2] + rest[len(rest) // 2]) / 2
                if mean_s > policy.latency_s and mean_s > policy.latency_factor * middle_s:
                    slow.append((mean_s, host))
        self.before, self.began, self.window_from = (picked, failed), now, len(self.clients)
        for each in self.known.values():
            each.before = each.mine, each.failures
            each.begin_window()
        return [host for _, host in sorted(failing, key=lambda each: -each[0])] + [host for _, host in sorted(slow, key=lambda each: each[0])]

    def times(self, host: Host, now: float) -> int:
        known = self.known[host]
        forgiven = 0 if known.out else math.floor((now - known.back_at) / self.policy.ejection_s)
        return max(0, known.times - forgiven)

    def most(self) -> int:
        return max(1, math.floor(self.policy.max_ejected * len(self.known) + 1e-9))

    def eject(self, host: Host, in_rotation: int, now: float) -> float | None:
        known, policy = self.known[host], self.policy
        if known.out or in_rotation < 2 or sum(each.out for each in self.known.values()) >= self.most():
            return None
        known.times = self.times(host, now) + 1
        for_s = min(policy.ejection_s * known.times, max(policy.ejection_s, policy.max_ejection_s))
        known.out, known.until, known.row = True, now + for_s, 0
        return for_s

    def release(self, host: Host, now: float) -> None:
        known = self.known[host]
        known.out, known.returned, known.row, known.row_from, known.back_at = False, True, 0, known.picks, now


class ModelTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(POLICIES, st.integers(1, 4), STEPS)
    def test_like_its_model(self, policy: Outliers, hosts: int, steps: list[tuple[str, int, int, float]]) -> None:
        """Whoever fails clients, keeps them, or is slow: who is an outlier and why, for how long it is out, and who is to come back."""
        now = 1000.0
        pool = pool_of("roundrobin", [1.0] * hosts)
        comparison = Comparison(now)
        conducts: dict[Host, Conduct] = {host: comparison.add(host, now) for host in pool.hosts.values()}
        model = Model(list(conducts), policy, now)
        kept: list[Ticket] = []

        def come(host: Host) -> Ticket:
            ticket = pool.pick(None, now, [each for each in conducts if each is not host])
            assert ticket is not None
            model.picked(host)
            return ticket

        def fail(ticket: Ticket) -> None:
            ticket.release(Reason.HOST_CLOSED, now)
            elsewhere = pool.in_flight - ticket.host.in_flight
            why = comparison.failed(conducts[ticket.host], elsewhere, now, policy, EARLY_S)
            found = model.failed(ticket.host, elsewhere, now)
            expected = "" if found is None else f"{found[0]} of its last {found[1]} clients failed, of others {found[2]:.0%} at most"
            self.assertEqual(why, expected)

        for what, number, times, pause in steps:
            host = list(conducts)[number % hosts]
            match what:
                case "serve":
                    for _ in range(times):
                        come(host).release(Reason.CLIENT_CLOSED, now)
                case "fail":
                    for _ in range(times):
                        fail(come(host))
                case "open":
                    kept += [come(host) for _ in range(times)]
                case "fail open" if kept:
                    fail(kept.pop(number % len(kept)))
                case "connect":
                    for _ in range(times):
                        conducts[host].connects += 1
                        conducts[host].connect_s += 0.01 * times * (number + 1)
                        model.known[host].connects.append(0.01 * times * (number + 1))
                        model.known[host].connect_s += 0.01 * times * (number + 1)
                case "wait":
                    now += pause
                case "window":
                    now += pause
                    found = comparison.close_window(now, policy)
                    self.assertEqual([each.host.name for each, _ in found], [each.name for each in model.close_window(now)])
                case "eject":
                    in_rotation = min(times, 3)
                    self.assertEqual(comparison.eject(conducts[host], "bad", in_rotation=in_rotation, now=now, policy=policy),
                                     model.eject(host, in_rotation, now))
                case "due":
                    out = sorted((each for each in conducts if model.known[each].out), key=lambda each: model.known[each].until)
                    beyond = len(out) - model.most()
                    expected = [each for index, each in enumerate(out) if model.known[each].until <= now or index < beyond]
                    due = comparison.due(now, policy)
                    self.assertEqual({each.host for each in due}, set(expected))
                    self.assertEqual({each.host for each in comparison.due(now, Outliers(enabled=False))}, set(out))
                    for each in due:
                        comparison.release(each, now)
                        model.release(each.host, now)
            for each, conduct in conducts.items():
                known = model.known[each]
                self.assertEqual((conduct.ejected, conduct in comparison.ejected), (known.out, known.out))
                self.assertEqual((conduct.counted(now, policy), conduct.failures), (model.times(each, now), known.failures))
                self.assertEqual(conduct.until if known.out else -math.inf, known.until if known.out else -math.inf)
