"""Which service has a client, by what its ClientHello asks for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Service, Sni
from director.core.server_names import ServerNames, conflicts, leader_of, may_share


def service(*names: str, alpn: tuple[str, ...] = ()) -> Service:
    return Service(sni=Sni(names=names, alpn=alpn) if names else None)


class ServerNamesTests(SynchronousTestCase):
    def test_most_specific(self) -> None:
        """An exact name goes before wildcards, the longer of these first; a wildcard is not its own domain."""
        names = ServerNames({
            "exact": service("a.b.example.org", "Example.org"), "long": service("*.b.example.org"),
            "short": service("*.example.org"), "default": service(),
        })
        for asked, expected in (
            ("a.b.example.org", "exact"), ("example.org", "exact"), ("x.b.example.org", "long"),
            ("y.x.b.example.org", "long"), ("b.example.org", "short"), ("xexample.org", "default"), ("org", "default"),
            (None, "default"),
        ):
            self.assertEqual(names.service_of(asked), expected, asked)

    def test_any_name(self) -> None:
        """``*`` has all who ask for a name; without a default, those who ask for none are nobody's."""
        names = ServerNames({"web": service("*")})
        self.assertEqual((names.service_of("a.example.org"), names.service_of("localhost"), names.service_of(None)),
                         ("web", "web", None))

    def test_protocols(self) -> None:
        """The client's first protocol that somebody has decides; who offers none of them is for who asks for none."""
        names = ServerNames({
            "acme": service("*", alpn=("acme-tls/1",)), "h2": service("a.example.org", alpn=("h2",)),
            "h1": service("a.example.org", alpn=("http/1.1", "http/1.0")), "wild": service("*.example.org"),
        })
        for asked, protocols, expected in (
            ("a.example.org", (b"http/1.1", b"h2"), "h1"), ("a.example.org", (b"?", b"h2"), "h2"),
            ("a.example.org", (), "wild"), ("x.example.org", (b"h2",), "wild"), ("x.org", (b"acme-tls/1",), "acme"),
            ("x.org", (b"h2",), None),
        ):
            self.assertEqual(names.service_of(asked, protocols), expected, (asked, protocols))

    def test_conflicts(self) -> None:
        """Two services cannot claim the same, nor can both be without names."""
        def between(one: Service, other: Service) -> list[str]:
            return list(conflicts("one", "other", {"one": one, "other": other}))

        self.assertEqual(between(service("a.org", "B.org"), service("b.org")), ["b.org is claimed by 'other' too"])
        self.assertEqual(between(service("a.org", alpn=("h2", "h3")), service("a.org", alpn=("h2",))),
                         ["a.org with the protocol h2 is claimed by 'other' too"])
        self.assertEqual(len(between(service(), service())), 1)
        for one, other in ((service("a.org"), service()), (service("a.org"), service("*.org", "org")),
                           (service("a.org", alpn=("h2",)), service("a.org"))):
            self.assertEqual(between(one, other), [])

    def test_what_came_about_all_the_same(self) -> None:
        """Of two services that claim the same the first by name has it, whichever came first."""
        services = {"b": service("a.org"), "a": service("a.org"), "d": service(), "c": service()}
        names = ServerNames(services)
        self.assertEqual((names.service_of("a.org"), names.service_of(None)), ("a", "c"))
        self.assertFalse(may_share(services))

    def test_leader(self) -> None:
        """The default service's settings are the listener's; else those of the first by name."""
        self.assertEqual(leader_of({"a": service("a.org"), "z": service()}), "z")
        self.assertEqual(leader_of({"b": service("b.org"), "a": service("a.org")}), "a")
