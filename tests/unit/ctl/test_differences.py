"""A plan as people and programs read it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Group, Host, Service
from director.core.plan import plan
from director.ctl.differences import as_data, lines

BEFORE = Service(listen=("127.0.0.1:80",), groups={"a": Group(hosts={"x": Host(address="10.0.0.1:80")}), "b": Group()})


class DifferenceTests(SynchronousTestCase):
    def read(self, before: dict[str, Service], after: dict[str, Service]) -> list[str]:
        return [line.text for line in lines(plan(before, after))]

    def test_lines(self) -> None:
        """A heading for each service, and a line for each difference with its place."""
        heavier = Service(
            listen=BEFORE.listen,
            groups={"b": Group(), "a": Group(hosts={"x": Host(address="10.0.0.1:80", weight=2.0)})},
        )
        found = self.read({"web": BEFORE, "old": Service()}, {"web": heavier, "new": Service(listen=("unix:/run/x",))})
        self.assertIn("- services.old", found)
        self.assertIn("+ services.new  listens on unix:/run/x; groups: 0, hosts: 0", found)
        heading = found.index("~ services.web")
        self.assertEqual({line.split()[1] for line in found[heading + 1 : heading + 3]}, {"groups.a.hosts.x.weight", "groups"})

    def test_nothing(self) -> None:
        self.assertEqual((self.read({"web": BEFORE}, {"web": BEFORE}), as_data(())), ([], []))

    def test_for_programs(self) -> None:
        """What is absent is null, an order is the list of its keys."""
        other = Service(listen=BEFORE.listen, groups={"b": Group(), "a": Group()})
        (step,) = as_data(plan({"web": BEFORE}, {"web": other}))
        kinds = {change["kind"]: change for change in step["changes"]}
        self.assertEqual((kinds["order"]["before"], kinds["order"]["after"]), (["a", "b"], ["b", "a"]))
        self.assertEqual((kinds["remove"]["after"], kinds["remove"]["place"]), (None, "services.web.groups.a.hosts.x"))
