"""Configurations in which clients would be connected in a circle."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Configuration, Group, Host, Service
from director.config.loops import loop_errors


def web(listen: str, *hosts: str) -> Service:
    group = Group(hosts={f"h{number}": Host(address=host) for number, host in enumerate(hosts)})
    return Service(listen=(listen,), groups={"main": group})


class LoopTests(SynchronousTestCase):
    def places(self, **services: Service) -> list[str]:
        found = loop_errors(Configuration(services=services), ("127.0.0.1",).__contains__)
        return [each.place for each in found]

    def test_itself(self) -> None:
        """A host that is its own service's listener is told with its place, and no other."""
        self.assertEqual(self.places(a=web("0.0.0.0:80", "127.0.0.1:81", "127.0.0.1:80")),
                         ["services.a.groups.main.hosts.h1.address"])

    def test_chains(self) -> None:
        """One service behind another is no circle; two behind each other are, at each."""
        a, b = web("127.0.0.1:80", "127.0.0.1:81"), web("127.0.0.1:81", "127.0.0.1:90")
        self.assertEqual(self.places(a=a, b=b), [])
        self.assertEqual(self.places(a=a, b=web("127.0.0.1:81", "localhost:80")),
                         ["services.a.groups.main.hosts.h0.address", "services.b.groups.main.hosts.h0.address"])
