"""Which address of a host's name is used."""

from __future__ import annotations

from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Group, Host, HostRef, Service
from director.checks.nameservers import Answer
from director.checks.resolver import Resolver
from director.core.entries import HostEntry
from director.core.inventory import Inventory
from director.traffic.target import Targets


class TargetsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.known, self.moved = Clock(), ("10.0.0.2", "10.0.0.3"), list[HostEntry]()
        resolver = Resolver(reactor=self.clock, hosts_file="/nonexistent", monotonic=self.clock.seconds,
                            lookup=lambda name: succeed(Answer(self.known, (), 10.0)))
        resolver.startService()
        self.addCleanup(resolver.stopService)
        inventory = Inventory(now=0.0, random=lambda: 0.5)
        inventory.apply_service("web", Service(groups={"main": Group(hosts={"a": Host(address="app:80")})}), 0.0)
        self.entry = inventory.hosts[HostRef("web", "main", "a")]
        self.targets = Targets(inventory, resolver, on_moved=self.moved.append)
        self.targets.add(self.entry)

    def uses(self) -> list[str]:
        """In the order in which they are tried."""
        return [each.host for each in (self.entry.target.address, *self.entry.target.others)]

    def test_the_one_that_works_is_kept(self) -> None:
        """The next one follows one that fails, and stays first through new answers that have it."""
        self.assertEqual(self.uses(), ["10.0.0.2", "10.0.0.3"])
        first = self.entry.target.address
        self.targets.unreached(self.entry, first)
        self.targets.unreached(self.entry, first)  # another client's, that began before
        self.assertEqual(self.uses(), ["10.0.0.3", "10.0.0.2"])
        self.known = ("10.0.0.1", "10.0.0.3", "10.0.0.4")
        self.clock.advance(10)
        self.assertEqual(self.uses(), ["10.0.0.3", "10.0.0.4", "10.0.0.1"])
        self.targets.reached(self.entry, "10.0.0.1")
        self.assertEqual(self.uses(), ["10.0.0.1", "10.0.0.3", "10.0.0.4"])
        self.assertEqual(self.moved, [])
        self.known = ("10.0.0.9",)
        self.clock.advance(10)
        self.assertEqual((self.uses(), self.moved), (["10.0.0.9"], [self.entry]))
