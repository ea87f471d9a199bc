"""What a pool is told of its hosts: which weights and maxima, and when."""

from __future__ import annotations

import math
import random

from msgspec.structs import replace

from cluster.model import AdminState, Host, LoadReport, Probe, Service
from director.core.host import Host as Picked
from director.core.schedulers.simple import RoundRobin
from director.core.seen import Totals
from director.core.weighing import RECOMPUTE_S, look_at_turns, weigh_all
from director.core.weights import slow_start
from tests.unit.core.inventory_kit import HEALTH, InventoryTestCase, group, order, ref


class WeighingTestCase(InventoryTestCase):
    def begin(self, *names: str, weight: float = 1.0, most: int = 0, ramp_s: float = 0.0, **changes: object) -> None:
        """Hosts that have long been there."""
        blue = group(*names, **{"health": replace(HEALTH, slow_start_s=ramp_s), **changes})
        for index, name in enumerate(names):
            blue.hosts[name] = Host(address=f"10.0.0.{index + 1}:80", weight=weight, max_connections=most)
        self.apply(Service(groups={"blue": blue}))
        self.group = self.inventory.services["web"].groups["blue"]
        self.now += 100.0

    def weight(self, name: str) -> float:
        return self.entry(name).host.weight


class DueTests(WeighingTestCase):
    def test_reports_are_gathered(self) -> None:
        """Weights are due a twentieth of a second after the first report, whatever comes until then, and at no other time."""
        self.begin("a", "b")
        self.assertEqual(self.inventory.next_recompute(), math.inf)
        began = self.now
        self.report("a", weight=0.5)
        self.now += 0.03
        self.report("b", weight=0.25)
        self.assertEqual(self.inventory.next_recompute(), began + 0.05)
        self.inventory.recompute(began + 0.049)
        self.assertEqual((self.weight("a"), self.weight("b")), (1.0, 1.0))
        self.assertEqual(self.inventory.next_recompute(), began + RECOMPUTE_S)
        self.inventory.recompute(began + RECOMPUTE_S)
        self.assertEqual((self.weight("a"), self.weight("b")), (0.5, 0.25))
        self.assertEqual(self.inventory.next_recompute(), math.inf)
        self.now = began + 1.0
        self.report("a")  # asks for nothing
        self.assertEqual(self.inventory.next_recompute(), self.now + 0.05)
        self.inventory.recompute(self.now + 0.05)
        self.assertEqual(self.weight("a"), 1.0)

    def test_ramp(self) -> None:
        """A host that comes back is weighed again twenty times in its slow start, and no more after it."""
        self.begin("a", "b", ramp_s=10.0)
        self.inventory.set_order(ref("a"), "operator", order(AdminState.DRAIN), self.now)
        self.inventory.set_order(ref("a"), "operator", None, self.now)
        began, seen = self.now, [self.weight("a")]
        self.assertEqual(self.group.ramping, {self.entry("a")})
        while (due := self.inventory.next_recompute()) < math.inf:
            self.assertAlmostEqual(due, began + 0.5 * len(seen))
            self.inventory.recompute(due)
            self.assertAlmostEqual(self.weight("a"), 0.1 + 0.9 * (due - began) / 10.0)
            self.assertEqual(self.weight("b"), 1.0)
            seen.append(self.weight("a"))
        self.assertEqual((len(seen), seen[0], seen[-1]), (21, 0.1, 1.0))
        self.assertEqual(self.group.ramping, set())


class LimitTests(WeighingTestCase):
    def test_maximum(self) -> None:
        """The lower of what is configured and what the agent asks for, at once; 0 is none, and no word is none."""
        for configured, asked, maximum in ((0, None, 0), (5, None, 5), (0, 3, 3), (5, 3, 3), (3, 5, 3), (5, 0, 5), (0, 0, 0), (4, 4, 4)):
            self.begin("a", most=configured)
            self.assertEqual(self.entry("a").host.max_connections, configured)
            self.report("a", max_connections=asked)
            self.assertEqual(self.entry("a").host.max_connections, maximum, (configured, asked))
            self.report("a")
            self.assertEqual(self.entry("a").host.max_connections, configured)
            self.apply(None)

    def test_maximum_that_is_configured_later(self) -> None:
        """What the agent asked for before still counts."""
        self.begin("a", most=9)
        self.report("a", max_connections=4)
        for most, maximum in ((3, 3), (8, 4), (0, 4)):
            self.begin("a", most=most)
            self.assertEqual(self.entry("a").host.max_connections, maximum)


class ProductTests(WeighingTestCase):
    def test_every_factor(self) -> None:
        """After each second's look every host weighs what is configured, times its capacity, its slow start, what its agent asks
        for and what it tells probes, whatever came before."""
        draw = random.Random(4)
        for reports in (True, False):
            self.begin("a", "b", "c", weight=3.0, ramp_s=20.0, scheduler="weightedleastconns", parameters={"reports": reports})
            for name in "abc":  # who never said anything is looked at in the steps of its slow start alone
                self.report(name)
            for _ in range(120):
                name = draw.choice("abc")
                match draw.randrange(5):
                    case 0 | 1:
                        rate = draw.choice((10.0, 100.0, 300.0))
                        self.report(name, utilisation=0.5, rate=rate, completions=rate, errors=draw.choice((0.0, 0.1, 0.9)),
                                    weight=draw.choice((None, 0.0, 0.5, 1.0)))
                    case 2:
                        self.inventory.probe_result(self.entry(name), True, "", 0.0, self.now, draw.choice((None, 0.0, 2.0, 7.0)))
                    case 3:
                        self.inventory.set_order(ref(name), "operator", draw.choice((None, order(AdminState.DOWN))), self.now)
                    case _:
                        self.now += draw.choice((0.02, 1.0, 5.0, 70.0))
                self.now += 0.0625  # no median is older than a twentieth of a second
                self.inventory.clean_up(self.now)
                for each in "abc":
                    entry = self.entry(each)
                    factors = (self.group.capacity.factors(self.now).get(entry.ref, 1.0) if reports else 1.0,
                               slow_start(self.now - entry.up_since, 20.0), entry.agent_weight,
                               self.group.probed.bases(self.now)[entry.ref].factor if entry.ref in self.group.probed.keys else 1.0)
                    self.assertAlmostEqual(self.weight(each), 3.0 * math.prod(factors), 9, f"{each} {factors}")
            self.apply(None)

    def test_told_at_once(self) -> None:
        """What a host tells a probe holds for itself at once, and for the others with the next look."""
        self.begin("a", "b", "c", health=replace(HEALTH, slow_start_s=0.0, probe=Probe(kind="http", weight_header=True)))
        for name in "bc":
            self.inventory.probe_result(self.entry(name), True, "", 0.0, self.now, 1.0)
        self.inventory.probe_result(self.entry("a"), True, "", 0.0, self.now, 3.0)
        self.assertEqual(self.weight("a"), 3.0)
        self.now += 1.0
        self.inventory.probe_result(self.entry("b"), True, "", 0.0, self.now, 3.0)
        self.assertEqual((self.weight("a"), self.weight("b"), self.weight("c")), (3.0, 1.0, 1.0))
        weigh_all(self.group, iter, self.now)
        self.assertEqual([round(self.weight(name), 3) for name in "abc"], [1.0, 1.0, 0.333])


class Tally:
    number = 1

    def __init__(self) -> None:
        self.total, self.seconds, self.unasked = 0, 0.0, 0

    def read(self) -> Tally:
        return self

    def free(self) -> None: ...


class TurnTests(WeighingTestCase):
    def test_looked_at(self) -> None:
        """Who has a tally, or was given a client; and just what is new is judged, and told where there is any."""
        told: list[tuple[str, int, float, float]] = []

        class Listening(RoundRobin):
            def turned(self, host: Picked, count: int, total_s: float, now: float) -> None:
                told.append((host.ref.host, count, total_s, now))

        self.begin("a", "b", "c")
        self.group.pool.replace_scheduler(Listening())
        tally = Tally()
        self.inventory.tallied(self.entry("a"), tally)  # type: ignore[arg-type]
        tally.total, tally.seconds = 4, 0.5
        given = self.group.pool.pick(None, self.now, [self.entry(name).host for name in "ac"])
        assert given is not None
        look_at_turns(self.group, iter, self.now)
        self.assertEqual(told, [("a", 4, 0.5, self.now)])
        self.assertEqual([self.entry(name).looked_at for name in "abc"],
                         [Totals(4, 0.5), Totals(in_flight=1), Totals()])
        tally.unasked = 1
        self.now += 1.0
        look_at_turns(self.group, iter, self.now)
        self.assertEqual(len(told), 1)
        tally.total, tally.seconds = 5, 2.5
        look_at_turns(self.group, iter, self.now)
        self.assertEqual(told[1:], [("a", 1, 2.0, self.now)])
        tally.unasked = 1000
        look_at_turns(self.group, iter, self.now)
        tally.total = 6
        look_at_turns(self.group, iter, self.now)
        self.assertEqual((len(told), self.group.seen.source), (2, "connections"))


class RefreshTests(WeighingTestCase):
    def test_rotation(self) -> None:
        """In rotation is who is ordered up and neither down nor ejected; who may not take clients at all is told apart."""
        self.begin("a", "b", "c")
        for state, down, available, admissible in (
            (None, False, True, True), (AdminState.DRAIN, False, False, False), (AdminState.DOWN, False, False, False),
            (None, True, False, True), (AdminState.DRAIN, True, False, False),
        ):
            self.inventory.set_order(ref("a"), "operator", None if state is None else order(state), self.now)
            while (self.entry("a").verdict.down) is not down:
                self.inventory.probe_result(self.entry("a"), not down, "", 0.0, self.now)
            host = self.entry("a").host
            self.assertEqual((host.available, host.admissible), (available, admissible), (state, down))

    def test_report_at(self) -> None:
        """When a report was made, whoever heard it."""
        self.begin("a")
        self.report("a", weight=0.5)
        self.assertEqual((self.entry("a").report_at, self.entry("a").agent_weight), (self.now, 0.5))
        self.inventory.relayed(ref("a"), LoadReport(), 3.0, self.now)
        self.assertEqual((self.entry("a").report_at, self.entry("a").agent_weight), (self.now - 3.0, 1.0))
