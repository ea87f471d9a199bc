"""Which hosts are this director itself."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import parse_address
from director.core.loops import leads_back, reaches

OURS = ("127.0.0.1", "127.0.0.9", "::1", "10.0.0.1")


class ReachesTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """The same, by wildcards, localhost, addresses of this machine and IPv4 written as IPv6; and what only looks so."""
        for host, listener, expected in (
            ("127.0.0.1:80", "127.0.0.1:80", True), ("127.0.0.1:80", "127.0.0.1:81", False),
            ("10.0.0.1:80", "0.0.0.0:80", True), ("10.0.0.2:80", "0.0.0.0:80", False), ("127.0.0.9:80", "0.0.0.0:80", True),
            ("localhost:80", "127.0.0.1:80", True), ("localhost:80", "[::1]:80", True), ("127.0.0.1:80", "localhost:80", True),
            ("localhost:80", "0.0.0.0:80", True), ("localhost:80", "10.0.0.1:80", False), ("[::1]:80", "0.0.0.0:80", False),
            ("[::1]:80", "[::]:80", True), ("127.0.0.1:80", "[::]:80", False), ("[::ffff:10.0.0.1]:80", "0.0.0.0:80", True),
            ("0.0.0.0:80", "127.0.0.1:80", True), ("0.0.0.0:80", "10.0.0.1:80", False), ("a.b:80", "a.b:80", True),
            ("a.b:80", "0.0.0.0:80", False), ("unix:/a", "unix:/a", True), ("unix:/a", "unix:/b", False),
            ("unix:/a", "0.0.0.0:80", False), ("127.0.0.1:80", "127.0.0.1:0", False),
        ):
            found = reaches(parse_address(host), parse_address(listener, any_port=True), OURS.__contains__)
            self.assertIs(found, expected, (host, listener))

    def test_leads_back(self) -> None:
        edges = {"a": ["b"], "b": ["c", "d"], "c": ["c"], "d": ["a"]}
        self.assertTrue(leads_back("a", "a", {}))
        self.assertTrue(leads_back("a", "b", edges))
        self.assertFalse(leads_back("b", "c", edges))
        for start, leads in (("web", True), ("ftp", False)):
            self.assertIs(leads_back("".join([*start]), "mail", {"mail": ["web"]}), leads)  # equal, not the same
