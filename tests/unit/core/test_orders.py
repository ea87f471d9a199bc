"""Standing orders: authors, which of them count, and when a local one ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, HostRef, Order
from director.core.orders import Orders, counting

APP1, APP2 = HostRef("web", "blue", "app1"), HostRef("web", "blue", "app2")
UP, DRAIN, DOWN = AdminState.UP, AdminState.DRAIN, AdminState.DOWN


def order(state: AdminState) -> Order:
    return Order(state=state, who="ann", at=0.0)


class OrdersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.orders = Orders()

    def set(self, by: str, state: AdminState | None, ref: HostRef = APP1) -> None:
        self.orders.set(ref, by, None if state is None else order(state))

    def states(self, ref: HostRef = APP1) -> dict[str, AdminState]:
        return {by: each.state for by, each in self.orders.of(ref).items()}

    def test_which_count(self) -> None:
        """A local order counts instead of the operator's, milder or not, and beside the agent's."""
        for local, others, expected in (
            (UP, {"operator": DRAIN}, {"local": UP}),
            (DOWN, {"operator": DRAIN, "agent": DRAIN}, {"local": DOWN, "agent": DRAIN}),
            (None, {"operator": DRAIN, "agent": DOWN}, {"operator": DRAIN, "agent": DOWN}),
        ):
            standing = {by: order(state) for by, state in others.items()}
            if local is not None:
                standing["local"] = order(local)
            self.assertEqual({by: each.state for by, each in counting(standing).items()}, expected)

    def test_the_operators_next_order_ends_it(self) -> None:
        """A normal order, up among them, for this host and no other; an agent's changes nothing."""
        for after in (DRAIN, None):
            self.set("local", DOWN)
            self.set("local", DOWN, APP2)
            self.set("agent", DRAIN)
            self.assertEqual(self.states()["local"], DOWN)
            self.set("operator", after)
            self.assertNotIn("local", self.states())
            self.assertEqual(self.states(APP2), {"local": DOWN})

    def test_local_up(self) -> None:
        """Local up lifts a local order; it stands by itself only where an operator's order does."""
        self.set("local", DOWN)
        self.set("local", UP)
        self.assertEqual((self.states(), self.orders.hosts), ({}, []))
        self.set("operator", DRAIN)
        self.set("local", UP)
        self.assertEqual(self.states(), {"operator": DRAIN, "local": UP})
        self.assertEqual(self.orders.local, [APP1])

    @given(st.lists(st.tuples(st.sampled_from(["operator", "agent", "local"]), st.sampled_from([UP, DRAIN, DOWN, None]),
                              st.sampled_from([APP1, APP2]))))
    def test_nothing_is_left_behind(self, steps: list[tuple[str, AdminState | None, HostRef]]) -> None:
        """Whatever came, hosts without orders are not kept, and once nothing local stands all hosts follow the store."""
        orders = Orders()
        for by, state, ref in steps:
            orders.set(ref, by, None if state is None else order(state))
        for ref in orders.local:
            orders.set(ref, "local", None)
        for ref in (APP1, APP2):
            self.assertEqual(ref in orders.hosts, bool(orders.of(ref)))
            self.assertEqual(counting(orders.of(ref)), orders.of(ref))
