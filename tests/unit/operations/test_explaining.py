"""Explaining who would get a client: the numbers are those that decide, each with its words; and nothing changes by it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.model import AdminState, Health, Limits, LoadReport, Reason, Service, Sticky
from director.core.inventory import Inventory
from director.core.pool import Ticket
from director.core.snapshot import CandidatePicture, Explanation
from director.operations.explaining import explanation
from tests.unit.core.inventory_kit import HEALTH, InventoryTestCase, group, order, ref

CLIENT = "192.0.2.7"


def state_of(thing: Any, seen: dict[int, int] | None = None) -> Any:
    """All that *thing* holds, however deep, as plain values that can be compared; what was met before by its number."""
    seen = {} if seen is None else seen
    if thing is None or isinstance(thing, bool | int | float | str | bytes) or callable(thing):
        return repr(thing) if callable(thing) else thing
    if id(thing) in seen:
        return f"as {seen[id(thing)]}"
    seen[id(thing)] = len(seen)
    if isinstance(thing, random.Random):
        return thing.getstate()
    if isinstance(thing, Mapping):
        return [(state_of(key, seen), state_of(value, seen)) for key, value in thing.items()]
    if isinstance(thing, AbstractSet):
        return sorted(repr(each) for each in thing)
    if isinstance(thing, list | tuple | deque):
        return [state_of(each, seen) for each in thing]
    names = {name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())} | set(getattr(thing, "__dict__", ()))
    return type(thing).__name__, [(name, state_of(getattr(thing, name, None), seen)) for name in sorted(names - {"__weakref__"})]


class ExplainingTestCase(InventoryTestCase):
    def explain(self, client: str = CLIENT) -> Explanation:
        return explanation(self.inventory.services["web"], client, self.now)

    def candidate(self, name: str) -> CandidatePicture:
        return next(each for each in self.explain().candidates if each.host == name)

    def second(self, **reports: dict[str, float]) -> None:
        """One more, in which each of these hosts reports."""
        self.now += 1.0
        for name, load in reports.items():
            self.report(name, **load)
        self.inventory.recompute(self.now)
        self.inventory.clean_up(self.now)


class WeightTests(ExplainingTestCase):
    def words(self, name: str) -> str:
        return "\n".join(self.candidate(name).words)

    def test_product(self) -> None:
        """The weight is the product of the factors that are told."""
        self.web("a", "b", groups={"blue": group("a", "b", scheduler="loadaware", health=msgspec.structs.replace(
            HEALTH, slow_start_s=0.0))})
        self.inventory.probe_result(self.entry("a"), True, "ok", 0.0, self.now, 3.0)
        self.inventory.probe_result(self.entry("b"), True, "ok", 0.0, self.now, 1.0)
        for _ in range(40):
            self.second(a={"rate": 50.0, "utilisation": 0.5, "weight": 0.5}, b={"rate": 100.0, "utilisation": 0.5})
        self.inventory.clean_up(self.now)
        for name in ("a", "b"):
            found = self.candidate(name)
            product = 1.0
            for factor in ("configured_weight", "capacity", "slow_start", "agent_weight", "probed_weight"):
                product *= found.factors[factor]
            self.assertAlmostEqual(product, found.weight)
            self.assertEqual(found.weight, self.entry(name).host.weight)
        words = self.words("a")
        self.assertIn("weight 0.5: configured 1 × capacity 0.6667 × slow start 1 × its agent 0.5 × probes 1.5", words)
        self.assertIn("capacity 0.6667: 100/s if it were busy throughout, the median is 150/s; learnt up to 0.0 s ago", words)
        self.assertIn("rate 50/s by the agent's own word", words)
        self.assertIn("last report: utilisation 50%, 0.0 s old", words)
        self.assertIn("probes: it says 3, the median is 2; 40.0 s old", words)
        self.assertIn("score 2 = (1 + 0 in flight) / weight 0.5 × slowness 1 × stall 1 × cap 1", words)

    def test_slow_start(self) -> None:
        """A host in its slow start, one without reports, and a group that does not follow them."""
        self.web("a", groups={"blue": group("a", health=msgspec.structs.replace(HEALTH, slow_start_s=10.0))})
        self.inventory.set_order(ref("a"), "operator", order(AdminState.DOWN), self.now)
        self.inventory.set_order(ref("a"), "operator", None, self.now)
        self.assertIn("weight 0.1: configured 1 × capacity 1 × slow start 0.1", self.words("a"))
        self.assertIn("capacity 1: no report has come", self.words("a"))
        self.second(a={"utilisation": 0.5})
        self.assertIn("reports tell no rate yet", self.words("a"))
        self.web("a", groups={"blue": group("a", scheduler="weightedleastconns", parameters={"reports": False})})
        self.assertIn("reports = false", self.words("a"))

    def test_doubts(self) -> None:
        """A capacity that is not believed, one of a host that fails, and one that is old."""
        self.web("a", "b", "c")
        for _ in range(5):
            self.second(a={"rate": 900.0, "utilisation": 0.1}, b={"rate": 100.0, "utilisation": 0.5, "errors": 0.1},
                        c={"rate": 100.0, "utilisation": 0.5})
        self.assertIn("so much is not believed", self.words("a"))
        self.assertIn("of what it does fails, which lowers it", self.words("b"))
        self.now += 100.0
        self.assertIn("too long ago, so it drifts to 1", self.words("c"))
        self.now += 100.0
        self.assertIn("no host's is known lately", self.words("a"))
        self.assertNotIn("not believed", self.words("a"))

    def test_turnarounds(self) -> None:
        """What this director sees, scaled for the clients of others; and what counts where turnarounds mean nothing."""
        self.web("a", "b")
        tallies = {name: Tally() for name in "ab"}
        for name, tally in tallies.items():
            self.entry(name).tally = tally
        for _ in range(60):
            for tally in tallies.values():
                tally.total, tally.seconds = tally.total + 20, tally.seconds + 1.0
            self.second(a={"utilisation": 0.5, "in_flight": 6.0}, b={"utilisation": 0.5})
        found = self.candidate("a")
        self.assertAlmostEqual(found.factors["rate_scale"], 4.0)
        self.assertAlmostEqual(found.factors["rate"], 80.0)
        self.assertIn("rate 80/s of turnarounds: those of this director × 4, for clients that others serve; a turnaround takes "
                      "0.05 s", self.words("a"))
        self.assertIn("rate 20/s of turnarounds; a turnaround takes 0.05 s", self.words("b"))
        self.assertIn("rates count turnarounds: first bytes of a host after bytes of its client", self.explain().steps)
        for _ in range(300):
            for tally in tallies.values():
                tally.unasked += 50
            self.second(a={"utilisation": 0.5}, b={"utilisation": 0.5})
        self.assertIn("not turnarounds, for hosts speak without being asked", self.words("a"))

    def test_ejected(self) -> None:
        """An outlier: for how long it is out, and how often it was."""
        self.web("a", "b", "c", "d")
        entry = self.entry("a")
        policy = HEALTH.outliers
        self.inventory.services["web"].groups["blue"].comparison.eject(
            entry.conduct, "it fails", in_rotation=4, now=self.now, policy=policy)
        self.assertIn("ejections that count still: 1", self.words("a"))


class Tally:
    number = 0

    def __init__(self) -> None:
        self.total, self.seconds, self.unasked = 0, 0.0, 0

    def read(self) -> Tally:
        return self

    def free(self) -> None: ...


class StepTests(ExplainingTestCase):
    def test_rule(self) -> None:
        """The last step is the rule and whom it chooses; the host is the one that comes next."""
        self.web("a", "b", groups={"blue": group("a", "b", scheduler="loadaware")})
        found = self.explain()
        self.assertIn("the 2 idle hosts take turns by weight", found.rule)
        self.assertEqual(found.steps[-1], f"loadaware {found.rule}: {found.host}")
        ticket = self.arrive()
        assert isinstance(ticket, Ticket)
        self.assertEqual(ticket.host.name, found.host)

    def test_remembered(self) -> None:
        """A client that the sticky table remembers."""
        self.web("a", "b", sticky=Sticky(mode="table", ttl_s=60.0))
        ticket = self.arrive()
        assert isinstance(ticket, Ticket)
        self.now += 10.0
        found = self.explain("10.0.0.1")
        self.assertEqual((found.host, found.sticky), (ticket.host.name, True))
        self.assertIn(f"the sticky table remembers {found.host} for another 50 s", found.steps[-1])

    def test_nobody(self) -> None:
        """No host, and no group: no rule."""
        self.web("a")
        self.now += 2 * HEALTH.timeout_s  # out of grace
        self.take_down("a")
        found = self.explain()
        self.assertEqual((found.host, found.random, found.rule, found.steps[-1]), (None, False, "", "nobody can take the client now"))
        self.apply(Service())
        self.assertIn("no group is enabled", self.explain().steps[-1])

    def test_limits(self) -> None:
        """At the service's maximum."""
        self.web("a", limits=Limits(max_connections=1))
        self.arrive()
        self.assertIn("1 of at most 1 connections are open; the client is refused", self.explain().steps)

    def test_split(self) -> None:
        """Where groups take turns, the hosts of each, with their shares of their group."""
        self.apply(Service(groups={"blue": group("a", "b"), "green": group("c")}, split={"blue": 3.0, "green": 1.0}))
        found = self.explain()
        self.assertEqual((found.group, found.host, found.random, found.rule), (None, None, True, ""))
        self.assertEqual([(each.group, each.host, each.share) for each in found.candidates],
                         [("blue", "a", 0.5), ("blue", "b", 0.5), ("green", "c", 1.0)])


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "arrive", "end", "report", "probe", "fail", "drain", "wait", "clean"]),
        st.integers(0, 7), st.floats(0, 1),
    ),
    max_size=25,
)
KINDS = ("auto", "loadaware", "ewma", "weightedleastconns", "weightedroundrobin", "leastconns", "p2c", "weighted", "random",
         "roundrobin", "maglev")


class DryTests(ExplainingTestCase):
    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from(KINDS), st.sampled_from([None, "hash", "table"]), st.booleans(), EVENTS)
    def test_nothing_changes(self, kind: str, sticky: Any, split: bool, events: list[tuple[str, int, float]]) -> None:
        """Whatever happened before, asking about any client leaves the inventory as it was, to the last number."""
        self.now = 100.0
        draw = random.Random(7)
        inventory = self.inventory = Inventory(now=self.now, random=draw.random)
        policy: Health = msgspec.structs.replace(HEALTH, slow_start_s=3.0)
        parameters = {"table_size": 257} if kind == "maglev" else {}
        self.apply(Service(
            groups={name: group(*hosts, scheduler=kind, health=policy, parameters=parameters)
                    for name, hosts in (("blue", "abc"), ("green", "d"))},
            enable="blue", split={"blue": 2.0, "green": 1.0} if split else {}, sticky=Sticky(mode=sticky) if sticky else None,
        ))
        tickets: list[Ticket] = []
        for what, number, value in events:
            name, part = "abcd"[number % 4], "green" if number % 4 == 3 else "blue"
            entry = self.entry(name, part)
            match what:
                case "arrive":
                    got = inventory.services["web"].admission.arrive(bytes((10, 0, 0, number)), object(), self.now)
                    tickets += [got] if isinstance(got, Ticket) else []
                case "end" if tickets:
                    inventory.services["web"].admission.leave(tickets.pop(), Reason.CLIENT_CLOSED, self.now)
                case "report":
                    inventory.reported(entry.ref, LoadReport(utilisation=value, rate=10.0 * number, in_flight=float(number)), self.now)
                case "probe":
                    inventory.probe_result(entry, value > 0.3, "", 0.0, self.now, weight=float(number))
                case "fail":
                    inventory.connect_failed(entry.host, "refused", self.now)
                case "drain":
                    inventory.set_order(entry.ref, "operator", order(AdminState.DRAIN) if value > 0.5 else None, self.now)
                case "clean":
                    inventory.tick(self.now)
                    inventory.recompute(self.now)
                    inventory.clean_up(self.now)
                case _:
                    self.now += 40.0 * value**4
            inventory.drain()
            before = state_of(inventory), draw.getstate()
            for client in ("10.0.0.1", f"10.0.0.{number}", "2001:db8::1"):
                explanation(inventory.services["web"], client, self.now + value)
            self.assertEqual((state_of(inventory), draw.getstate()), before)

    def test_it_would_notice(self) -> None:
        """The state that is compared holds what a pick changes."""
        self.web("a", "b")
        before = state_of(self.inventory)
        self.assertEqual(before, state_of(self.inventory))
        self.arrive()
        self.assertNotEqual(before, state_of(self.inventory))
