"""Which listeners can be had at once, and which not at all."""

from __future__ import annotations

from itertools import permutations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import parse_address
from cluster.model import Configuration, Keepalive, MetricsPort, Node, Proxy, Service, Sni, Timeouts, UnixFile
from director.config.addresses import (
    Listener,
    listener_errors,
    listeners,
    networks_errors,
    shared_listeners,
    sharing_warnings,
)
from director.config.check import service_errors


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

    def test_shared(self) -> None:
        """Services share the very same address where all but one have server names, none of them twice."""
        names, other = Sni(names=("a.org",)), Sni(names=("b.org", "A.org"))
        for one, two, says in (
            (Service(sni=names), Service(), ""),
            (Service(sni=names), Service(sni=Sni(names=("b.org",))), ""),
            (Service(), Service(), "services.two.listen[0]: 10.0.0.1:443 is taken by services.one.listen[0]"),
            (Service(sni=names), Service(sni=other), "services.two.sni: a.org is claimed by 'one' too, at 10.0.0.1:443"),
        ):
            one, two = (msgspec.structs.replace(each, listen=("10.0.0.1:443",)) for each in (one, two))
            services = Configuration(services={"one": one, "two": two})
            for found in (list(shared_listeners(services)), list(listener_errors("two", two, services))):
                self.assertEqual(len(found), bool(says))
                self.assertTrue(not says or str(found[0]).startswith(says), found)
        wide = Configuration(services={"one": Service(sni=names, listen=("10.0.0.1:443",)),
                                       "two": Service(listen=("0.0.0.0:443",))})
        self.assertEqual(len(list(shared_listeners(wide))), 1)
        metrics = Configuration(node=Node(metrics=MetricsPort(listen="10.0.0.1:443")),
                                services={"one": Service(sni=names, listen=("10.0.0.1:443",))})
        self.assertEqual(len(list(shared_listeners(metrics))), 1)

    def test_no_names(self) -> None:
        """A list of names has one."""
        (problem,) = service_errors("web", Service(sni=Sni(names=())))
        self.assertEqual(problem.place, "services.web.sni.names")

    def test_whose_settings_count(self) -> None:
        """A setting of the listener that is not its leader's is told, and by its place."""
        listen, names = ("10.0.0.1:443", "unix:/run/a"), Sni(names=("a.org",))
        odd = Service(listen=listen, sni=names, proxy=Proxy(accept_from=("10.0.0.0/8",), timeout_s=9.0),
                      timeouts=Timeouts(hello_s=9.0), keepalive=Keepalive(idle_s=9), unix=UnixFile(mode="0600"))
        services = {"a": odd, "b": Service(listen=listen[:1])}
        self.assertEqual([each.place for each in sharing_warnings(Configuration(services=services))], [
            "services.a.proxy.accept_from", "services.a.proxy.timeout_s", "services.a.timeouts.hello_s",
            "services.a.keepalive"])
        services["b"] = msgspec.structs.replace(services["b"], listen=listen)
        self.assertEqual(len(list(sharing_warnings(Configuration(services=services)))), 9)
        self.assertEqual(list(sharing_warnings(Configuration(services={"a": odd}))), [])

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
