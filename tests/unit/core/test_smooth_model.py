"""Weighted round robin beside its deadlines, computed anew each time from what was picked since a host's weight last changed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.core.host import Host
from director.core.schedulers.smooth import SmoothRoundRobin
from tests.unit.core.core_pools import pool_of

STEPS = st.lists(st.tuples(st.sampled_from(["pick", "pick", "pick", "weigh", "leave", "leave"]), st.integers(0, 4),
                           st.sampled_from([0.1, 0.5, 1.0, 3.0])), max_size=80)


class Model:
    def __init__(self) -> None:
        self.due: dict[Host, tuple[float, float, float, int]] = {}  # origin, phase, weight, picks since
        self.there: list[Host] = []
        self.front, self.joined = 0.0, 0

    def at(self, host: Host) -> float:
        origin, phase, weight, picks = self.due[host]
        return origin + (picks + phase) / weight

    def change(self, host: Host, weight: float) -> None:
        """What is missing to its next pick stays."""
        missing = (self.at(host) - self.front) * self.due[host][2]
        self.due[host] = self.front, missing, weight, 0

    def add(self, host: Host) -> None:
        self.there.append(host)
        if host not in self.due or self.at(host) < self.front:
            self.joined += 1
            phase = 0.1 + 0.8 * (self.joined * 0.6180339887498949 % 1)
            self.due[host] = self.front, phase, host.weight, 0
        elif self.due[host][2] != host.weight:
            self.change(host, host.weight)

    def picked(self, host: Host) -> None:
        self.front = min(map(self.at, self.there))
        origin, phase, weight, picks = self.due[host]
        self.due[host] = origin, phase, weight, picks + 1


class ModelTests(SynchronousTestCase):
    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.7]), min_size=1, max_size=5), STEPS)
    def test_like_its_model(self, weights: list[float], steps: list[tuple[str, int, float]]) -> None:
        """Who comes, goes, or weighs something else is due when it should be; who is due first is picked."""
        scheduler, model = SmoothRoundRobin(), Model()
        pool = pool_of(scheduler, weights)
        hosts = list(pool.hosts.values())
        for host in hosts:
            model.add(host)
        for what, number, value in steps:
            host = hosts[number % len(hosts)]
            match what:
                case "pick":
                    ticket = pool.pick(None, 0.0)
                    self.assertEqual(ticket is None, not model.there)
                    if ticket is not None:
                        first = min(map(model.at, model.there))
                        self.assertAlmostEqual(model.at(ticket.host), first, 9)
                        model.picked(ticket.host)
                case "weigh":
                    before = host.weight
                    pool.set_weight(host, value)
                    if host in model.there and value != before:
                        model.change(host, value)
                case _:
                    pool.set_available(host, host not in model.there, True)
                    if host in model.there:
                        model.there.remove(host)
                    else:
                        model.add(host)
            self.assertEqual(len(scheduler), len(model.there))
            for each in hosts:
                shown = scheduler.factors(each, None, 0.0)
                self.assertEqual("due" in shown, each in model.there)
                if each in model.there:
                    self.assertAlmostEqual(shown["due"], model.at(each) - model.front, 9)

    def test_put_back(self) -> None:
        """What is weighed for a look only is as it was afterwards, of those that changed."""
        scheduler = SmoothRoundRobin()
        pool = pool_of(scheduler, [1.0, 2.0, 3.0])
        for _ in range(7):
            pool.pick(None, 0.0)
        hosts = list(pool.hosts.values())
        before = [scheduler.factors(host, None, 0.0) for host in hosts]
        paces = scheduler.paces()
        for host in hosts[:2]:
            host.weight *= 4.0
            scheduler.reweigh(host)
            host.weight /= 4.0
        self.assertNotEqual([scheduler.factors(host, None, 0.0) for host in hosts], before)
        preview = scheduler.preview(None, 0.0)
        scheduler.put_back(paces)
        self.assertEqual([scheduler.factors(host, None, 0.0) for host in hosts], before)
        self.assertIs(scheduler.preview(None, 0.0), min(hosts, key=lambda host: scheduler.factors(host, None, 0.0)["due"]))
        self.assertIsNotNone(preview)
