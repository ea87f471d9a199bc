"""What is known of a name, as hosts."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import parse_address
from cluster.model import NAME_PATTERN, Discover
from director.core.discovered import Service, _is_sound, hosts_of

SRV = Discover(name="_http._tcp.example.org")

TARGETS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?(\.[a-z0-9]{1,30}){0,6}", fullmatch=True)  # and numbers, which are no names
SERVICES = st.builds(Service, st.integers(0, 65535), st.integers(0, 65535), st.integers(1, 65535), TARGETS)


class DiscoveredTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """Each is a host, at the group's port, called by itself."""
        hosts = hosts_of(Discover(name="app.example", port=8080, max_connections=9), ("192.0.2.1", "2001:db8::7"))
        self.assertEqual({name: (host.address, host.weight, host.backup, host.max_connections) for name, host in hosts.items()},
                         {"192.0.2.1": ("192.0.2.1:8080", 1.0, False, 9), "2001-db8--7": ("[2001:db8::7]:8080", 1.0, False, 9)})

    def test_services(self) -> None:
        """The lowest priority serves, all others are backups; a weight of 0 is little beside others, and 1 where all have it."""
        hosts = hosts_of(SRV, ("10 60 80 a.example", "10 0 81 b.example", "20 0 80 c.example", "30 0 80 c.example", "20 0 82 a.example"))
        self.assertEqual([(name, host.address, host.weight, host.backup) for name, host in hosts.items()], [
            ("a.example-80", "a.example:80", 60.0, False), ("b.example-81", "b.example:81", 0.1, False),
            ("a.example-82", "a.example:82", 1.0, True), ("c.example-80", "c.example:80", 1.0, True)])

    def test_twice(self) -> None:
        """A target at one port with two priorities is one host, of the better one."""
        hosts = hosts_of(SRV, ("10 5 80 a.example", "20 7 80 a.example"))
        self.assertEqual([(host.weight, host.backup) for host in hosts.values()], [(5.0, False)])

    def test_long(self) -> None:
        """A name is as long as names may be; one that would be longer is told from others by its end."""
        fits, longer, other = (".".join(("a" * 29, last)) for last in ("b" * 30, "b" * 31, "b" * 30 + "c"))
        hosts = hosts_of(SRV, tuple(f"10 0 80 {target}" for target in (fits, longer, other)))
        names = {host.address: name for name, host in hosts.items()}
        self.assertEqual(names[f"{fits}:80"], f"{fits}-80")
        self.assertEqual({len(name) for name in names.values()}, {63})
        self.assertEqual(len(names), 3)

    def test_most(self) -> None:
        """The first by priority and address; nothing known, no hosts."""
        hosts = hosts_of(Discover(name="x.example", max_hosts=2), ("20 0 80 a", "10 0 80 c", "10 0 80 b"))
        self.assertEqual(list(hosts), ["b-80", "c-80"])
        self.assertEqual(hosts_of(SRV, ()), {})

    def test_most_of_many(self) -> None:
        """A bound of some hundreds holds as one of two does."""
        known = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(310)]
        self.assertEqual(len(hosts_of(Discover(name="x.example", port=80, max_hosts=300), known)), 300)

    @given(st.lists(SERVICES, max_size=20))
    def test_sound(self, services: list[Service]) -> None:
        """Names are names, addresses are addresses, weights are above 0, somebody is no backup; the order of records is nothing."""
        texts = list(map(str, services))
        self.assertEqual(list(map(Service.parse, texts)), services)
        hosts = hosts_of(SRV, texts)
        self.assertEqual(hosts, hosts_of(SRV, reversed(texts)))
        for name, host in hosts.items():
            self.assertTrue(re.match(NAME_PATTERN, name), name)
            self.assertGreater(host.weight, 0)
            self.assertTrue(parse_address(host.address).port)
        self.assertEqual(len(hosts), len({(each.target, each.port) for each in services if _is_sound(each)}))
        self.assertEqual(bool(hosts), any(not host.backup for host in hosts.values()))
