"""The difference between two sets of services."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Group, Host, Service
from cluster.plan import Difference, Step, plain, plan

hosts = st.dictionaries(st.sampled_from("abc"), st.builds(
    Host, address=st.sampled_from(("10.0.0.1:80", "10.0.0.2:80")), weight=st.sampled_from((0.0, 1.0, 2.5))), max_size=3)
groups = st.dictionaries(st.sampled_from(("blue", "green")), st.builds(
    Group, hosts=hosts, scheduler=st.sampled_from(("maglev", "p2c"))), max_size=2)
services = st.dictionaries(st.sampled_from(("web", "mail", "dns")), st.builds(
    Service, groups=groups, listen=st.sampled_from(((), ("0.0.0.0:80",)))), max_size=3)


class PlanTests(SynchronousTestCase):
    @given(services, services)
    def test_leads_there(self, running: dict[str, Service], wanted: dict[str, Service]) -> None:
        """Doing the steps, each by putting the whole service, leads from one to the other; then nothing is left to do."""
        state = dict(running)
        for step in plan(running, wanted):
            if step.action == "delete":
                del state[step.service]
            else:
                self.assertEqual(step.action == "create", step.service not in state)
                state[step.service] = wanted[step.service]
        self.assertEqual({name: plain(each) for name, each in state.items()},
                         {name: plain(each) for name, each in wanted.items()})
        self.assertEqual(plan(state, wanted), [])

    @given(services, services)
    def test_differences_are_all(self, running: dict[str, Service], wanted: dict[str, Service]) -> None:
        """Writing every difference into the plain values of the one gives those of the other."""
        for step in plan(running, wanted):
            if step.action != "change":
                continue
            document = {"services": {step.service: plain(running[step.service])}}
            for difference in step.differences:
                *path, last = difference.place.split(".")
                at = document
                for key in path:
                    at = at.setdefault(key, {})
                self.assertEqual(at.get(last), difference.before)
                if difference.after is None:
                    del at[last]
                else:
                    at[last] = difference.after
            made = msgspec.convert(document["services"][step.service], Service)
            self.assertEqual(plain(made), plain(wanted[step.service]))

    def test_one_weight(self) -> None:
        """A weight that differs is told at its place, and nothing else is."""
        before = {"web": Service(groups={"main": Group(hosts={"a": Host(address="10.0.0.1:80")})})}
        after = {"web": Service(groups={"main": Group(hosts={"a": Host(address="10.0.0.1:80", weight=2.0)})})}
        self.assertEqual(plan(before, after), [
            Step("web", "change", (Difference("services.web.groups.main.hosts.a.weight", None, 2.0),))])

    def test_first_group(self) -> None:
        """The first of several groups is the enabled one: another order is another configuration."""
        one, two = Group(hosts={}), Group(hosts={}, scheduler="p2c")
        steps = plan({"web": Service(groups={"a": one, "b": two})}, {"web": Service(groups={"b": two, "a": one})})
        self.assertEqual([each.differences for each in steps], [(Difference("services.web.enable", "a", "b"),)])

    def test_order(self) -> None:
        """New services come first, deletions last, and only where they are wanted."""
        running, wanted = {"old": Service(), "same": Service()}, {"new": Service(), "same": Service()}
        self.assertEqual([(each.action, each.service) for each in plan(running, wanted)],
                         [("create", "new"), ("delete", "old")])
        self.assertEqual([each.action for each in plan(running, wanted, delete=False)], ["create"])
