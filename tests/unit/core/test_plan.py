"""Differences between two configurations of a cluster: complete, minimal, and in an order that can be done."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Access, Group, Health, Host, Limits, Probe, Service, Sticky
from director.core.plan import ABSENT, Difference, KeyOrder, perform, plan, values

NAMES = st.sampled_from(["a", "b", "c"])
HOSTS = st.builds(Host, address=st.sampled_from(["10.0.0.1:80", "10.0.0.2:80"]), weight=st.sampled_from([0.0, 1.0, 2.5]),
                  backup=st.booleans())
HEALTH = st.builds(Health, rise=st.integers(1, 2), probe=st.sampled_from([Probe(), Probe(kind="http", expect=(200,))]))
PARAMETERS = st.dictionaries(NAMES, st.sampled_from([1, 1.0, True, 0, False, "1"]), max_size=2)
GROUPS = st.builds(Group, hosts=st.dictionaries(NAMES, HOSTS, max_size=3), health=HEALTH, parameters=PARAMETERS,
                   scheduler=st.sampled_from(["random", "p2c"]))
SERVICES = st.builds(
    Service, listen=st.lists(st.sampled_from(["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]), unique=True).map(tuple),
    groups=st.dictionaries(NAMES, GROUPS, max_size=3), enable=st.none() | NAMES,
    sticky=st.none() | st.builds(Sticky, mode=st.sampled_from(["hash", "table"])),
    limits=st.builds(Limits, queue=st.integers(0, 1)), access=st.builds(Access, deny=st.just(()) | st.just(("::/0",))),
)
CLUSTERS = st.dictionaries(NAMES, SERVICES, max_size=3)


def text(services: dict[str, Service]) -> dict[str, bytes]:
    """What a store would hold, with the order of groups and without that of hosts, which says nothing."""
    def sorted_hosts(group: Group) -> Group:
        return msgspec.structs.replace(group, hosts=dict(sorted(group.hosts.items())),
                                       parameters=dict(sorted(group.parameters.items())))

    return {
        name: msgspec.json.encode(msgspec.structs.replace(
            spec, groups={each: sorted_hosts(group) for each, group in spec.groups.items()}
        ))
        for name, spec in services.items()
    }


class PropertyTests(SynchronousTestCase):
    @given(CLUSTERS, CLUSTERS)
    def test_performed(self, before: dict[str, Service], after: dict[str, Service]) -> None:
        """A plan that is performed turns the first into the second, types and the order of groups included."""
        self.assertEqual(text(perform(before, plan(before, after))), text(after))

    @given(CLUSTERS)
    def test_nothing_to_do(self, services: dict[str, Service]) -> None:
        """Equals have no differences."""
        copy = msgspec.json.decode(msgspec.json.encode(services), type=dict[str, Service])
        self.assertEqual(plan(services, copy), ())

    @given(CLUSTERS, CLUSTERS)
    def test_what_stays_is_not_touched(self, before: dict[str, Service], after: dict[str, Service]) -> None:
        """A step for a service means that it differs, each once; its record is the one wanted."""
        steps = plan(before, after)
        self.assertEqual(len({step.service for step in steps}), len(steps))
        for step in steps:
            self.assertEqual((step.before, step.after), (before.get(step.service), after.get(step.service)))
            self.assertTrue(step.changes)
            for change in step.changes:
                self.assertNotEqual(repr(change.before), repr(change.after))

    @given(CLUSTERS, CLUSTERS)
    def test_stopped_half_way(self, before: dict[str, Service], after: dict[str, Service]) -> None:
        """Whatever part was done, planning again from there finishes it."""
        steps = plan(before, after)
        for done in range(len(steps) + 1):
            between = perform(before, steps[:done])
            rest = plan(between, after)
            self.assertEqual({step.service for step in rest}, {step.service for step in steps[done:]})
            self.assertEqual(text(perform(between, rest)), text(after))


class ChangeTests(SynchronousTestCase):
    def changes(self, before: Service, after: Service) -> tuple[Difference, ...]:
        (step,) = plan({"web": before}, {"web": after})
        self.assertEqual(step.kind, "change")
        return step.changes

    def test_down_to_fields(self) -> None:
        """A host's weight is one change at its field; a host more or less is one change at the host."""
        one, two = Host(address="10.0.0.1:80"), Host(address="10.0.0.2:80")
        before = Service(groups={"main": Group(hosts={"a": one, "b": two})})
        heavier = msgspec.structs.replace(one, weight=2.0)
        after = Service(groups={"main": Group(hosts={"a": heavier, "c": two})})
        changes = self.changes(before, after)
        hosts = ("groups", "main", "hosts")
        self.assertEqual(changes, (
            Difference((*hosts, "b"), two, ABSENT), Difference((*hosts, "a", "weight"), 1.0, 2.0), Difference((*hosts, "c"), ABSENT, two),
        ))
        self.assertEqual([change.kind for change in changes], ["remove", "change", "add"])

    def test_place(self) -> None:
        """A change's place is the key that a file would have."""
        (step,) = plan({"web": Service(groups={"a.b": Group()})}, {"web": Service(groups={"a.b": Group(scheduler="p2c")})})
        self.assertEqual(step.place(step.changes[0]), 'services.web.groups."a.b".scheduler')

    def test_order_of_groups(self) -> None:
        """Which group comes first decides who answers, so their order is a difference; that of hosts is none."""
        one, two = Group(scheduler="random"), Group(scheduler="p2c")
        changes = self.changes(Service(groups={"a": one, "b": two}), Service(groups={"b": two, "a": one}))
        self.assertEqual(changes, (Difference(("groups",), KeyOrder(("a", "b")), KeyOrder(("b", "a"))),))
        self.assertEqual(changes[0].kind, "order")
        a, b = Host(address="10.0.0.1:80"), Host(address="10.0.0.2:80")
        before = {"web": Service(groups={"main": Group(hosts={"a": a, "b": b})})}
        after = {"web": Service(groups={"main": Group(hosts={"b": b, "a": a})})}
        self.assertEqual(plan(before, after), ())

    def test_whole_services(self) -> None:
        """A service that begins or ends is one change."""
        spec = Service(listen=("127.0.0.1:1",))
        (began,) = plan({}, {"web": spec})
        (ended,) = plan({"web": spec}, {})
        self.assertEqual((began.kind, began.changes), ("add", (Difference((), ABSENT, spec),)))
        self.assertEqual((ended.kind, ended.changes), ("remove", (Difference((), spec, ABSENT),)))

    def test_settings_that_compare_equal(self) -> None:
        """True, 1 and 1.0 are different settings."""
        before, after = (Service(groups={"g": Group(parameters={"k": value})}) for value in (True, 1))
        self.assertEqual(len(self.changes(before, after)), 1)


class OrderTests(SynchronousTestCase):
    def test_addresses_move(self) -> None:
        """A service lets go of an address before another takes it, along a chain; ends come first."""
        before = {"new": Service(), "b": Service(listen=("127.0.0.1:2",)), "c": Service(listen=("127.0.0.1:3",)),
                  "old": Service(listen=("127.0.0.1:4",))}
        after = {"new": Service(listen=("127.0.0.1:2", "127.0.0.1:4")), "b": Service(listen=("127.0.0.1:3",)),
                 "c": Service(listen=("127.0.0.1:9",))}
        self.assertEqual([step.service for step in plan(before, after)], ["old", "c", "b", "new"])

    def test_wildcards_and_free_ports(self) -> None:
        """Every interface's port is given up before one interface's is taken; port 0 is nobody's."""
        before = {"a": Service(listen=("10.0.0.1:0",)), "b": Service(listen=("0.0.0.0:80",))}
        after = {"a": Service(listen=("10.0.0.1:80",)), "b": Service(listen=("10.0.0.1:0",))}
        self.assertEqual([step.service for step in plan(before, after)], ["b", "a"])

    def test_wildcards_of_another_port(self) -> None:
        """Every interface's port does not stand in the way of another port."""
        before = {"a": Service(listen=("10.0.0.1:82",)), "b": Service(listen=("0.0.0.0:80",))}
        after = {"a": Service(listen=("10.0.0.1:81",)), "b": Service(listen=("10.0.0.9:83",))}
        self.assertEqual([step.service for step in plan(before, after)], ["a", "b"])

    def test_swap(self) -> None:
        """Two services that swap addresses still give a plan of both."""
        one, two = Service(listen=("127.0.0.1:1",)), Service(listen=("127.0.0.1:2",))
        self.assertEqual([step.service for step in plan({"a": one, "b": two}, {"a": two, "b": one})], ["a", "b"])


class ValuesTests(SynchronousTestCase):
    def test_values(self) -> None:
        """What there was and is, on one line; nothing for what is not set."""
        for before, after, line in (("random", None, "random → nothing"), (None, 2.5, "nothing → 2.5"), (ABSENT, None, "nothing")):
            self.assertEqual(values(Difference(("a",), before, after)), line)

    def test_equal_names(self) -> None:
        """A plan is performed on equal services, whichever objects these are."""
        before, same = ({"web": Service(groups={"blue": Group(hosts={"".join(["app", name]): Host(address="10.0.0.1:80")
                                                                     for name in "12"})})} for _ in range(2))
        after = {"web": Service(groups={"blue": Group(hosts={"app2": Host(address="10.0.0.1:80")})})}
        self.assertEqual(perform(same, plan(before, after)), after)
