"""Whose a client is that asks for a name, in words."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Service, Sni
from director.operations.explaining_names import name_steps

SHARED = "0.0.0.0:443"


SERVICES = {
    "web": Service(listen=(SHARED, "0.0.0.0:80"), sni=Sni(names=("a.org", "*.b.org"))),
    "h2": Service(listen=(SHARED,), sni=Sni(names=("h2.org",), alpn=("h2", "h3"))),
    "alone": Service(listen=("0.0.0.0:1",)),
}


class NameStepsTests(SynchronousTestCase):
    def steps(self, service: str, name: str | None, **more: Service) -> list[str]:
        return list(name_steps(service, {**SERVICES, **more}, name))

    def test_whose(self) -> None:
        """This service's, another's, nobody's; a listener that looks at no names is not mentioned."""
        self.assertEqual(self.steps("alone", "a.org"), [])
        self.assertEqual(self.steps("web", "A.org"), [
            f"a client that asks for A.org at {address} is this service's" for address in SERVICES["web"].listen])
        self.assertEqual(self.steps("h2", "x.b.org"), [
            "a client that asks for x.b.org at 0.0.0.0:443 is not this service's, but that of 'web'; what follows is of one that is"])
        self.assertEqual(self.steps("h2", "c.org"), [
            "a client that asks for c.org at 0.0.0.0:443 is closed: no service has such clients"])
        self.assertEqual(self.steps("rest", "c.org", rest=Service(listen=(SHARED,))), [
            "a client that asks for c.org at 0.0.0.0:443 is this service's"])

    def test_not_asked(self) -> None:
        """Without a name the service's are told."""
        self.assertEqual(self.steps("h2", None), ["at 0.0.0.0:443 it has those that ask for h2.org and offer h2 or h3"])
        self.assertEqual(self.steps("rest", None, rest=Service(listen=(SHARED,))), [
            "at 0.0.0.0:443 it has those that ask for no other service's name"])
