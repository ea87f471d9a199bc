"""Which listeners can be had at once, and which not at all."""

from __future__ import annotations

from itertools import permutations

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import parse_address
from cluster.model import Configuration, Service
from director.config.addresses import Listener, listener_errors, listeners, networks_errors, shared_listeners


def at(text: str) -> Listener:
    return Listener("here", parse_address(text, any_port=True))


class ClashTests(SynchronousTestCase):
    def test_clashes(self) -> None:
        """Whatever the kernel would refuse the second of, whichever comes first."""
        for one, other, clash in (
            ("127.0.0.1:80", "127.0.0.1:80", True),
            ("127.0.0.1:80", "127.0.0.1:81", False),
            ("127.0.0.1:80", "127.0.0.2:80", False),
            ("0.0.0.0:80", "127.0.0.1:80", True),
            ("[::]:80", "[2001:db8::1]:80", True),
            ("[::]:80", "127.0.0.1:80", False),
            ("0.0.0.0:0", "0.0.0.0:0", False),
            ("localhost:80", "127.0.0.1:80", True),
            ("localhost:80", "[::1]:80", True),
            ("localhost:80", "10.0.0.1:80", False),
            ("example.org:80", "example.org:80", True),
            ("example.org:80", "0.0.0.0:80", True),
            ("unix:/run/a", "unix:/run/a", True),
            ("unix:/run/a", "unix:/run/b", False),
            ("unix:/run/a", "0.0.0.0:80", False),
        ):
            for left, right in permutations((at(one), at(other))):
                self.assertEqual(left.clashes(right), clash, (one, other))

    def test_everything_that_listens(self) -> None:
        """Each is found by its place; a malformed one is left to others to tell."""
        found = listeners(Configuration(services={"web": Service(listen=("127.0.0.1:80", "nonsense", "unix:/run/web"))}))
        self.assertEqual([str(each.address) for each in found], ["127.0.0.1:80", "unix:/run/web"])
        self.assertEqual([each.place for each in found], ["services.web.listen[0]", "services.web.listen[2]"])

    def test_twice(self) -> None:
        """In one service, in two, and by nobody once the other is gone; both ways to ask say the same."""
        twice = Service(listen=("127.0.0.1:80", "127.0.0.1:80"))
        other = Service(listen=("0.0.0.0:80",))
        self.assertEqual(len(list(shared_listeners(Configuration(services={"web": twice})))), 1)
        self.assertEqual(len(list(listener_errors("web", twice, Configuration()))), 1)
        self.assertEqual(len(list(shared_listeners(Configuration(services={"web": twice, "api": other})))), 3)
        self.assertEqual(len(list(listener_errors("api", other, Configuration(services={"web": twice, "api": other})))), 2)
        self.assertEqual(list(listener_errors("api", other, Configuration(services={"api": other}))), [])

    def test_nobody_listens_there(self) -> None:
        """Each with what to write instead, where there is something."""
        for text, says in (
            ("[::ffff:10.0.0.1]:80", "write it as 10.0.0.1:80"),
            ("[fe80::1]:80", "[fe80::1%eth0]:80"),
            ("224.0.0.1:80", "nobody connects to it"),
            ("255.255.255.255:80", "nobody connects to it"),
            ("[ff02::1%eth0]:80", "nobody connects to it"),
        ):
            (problem,) = shared_listeners(Configuration(services={"web": Service(listen=(text,))}))
            self.assertIn(says, str(problem))

    def test_networks(self) -> None:
        """Each wrong one by its place; a word that is allowed besides is none."""
        found = list(networks_errors("access.allow", ("10.0.0.0/8", "unix", "10.0.0.0/99", "x"), word="unix"))
        self.assertEqual([problem.place for problem in found], ["access.allow[2]", "access.allow[3]"])
