"""What directors keep and exchange."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster import peer_wire, wire
from cluster.model import HostRef, base, directors, kept, node, report, services


def records(*modules: ModuleType) -> Iterator[type[msgspec.Struct]]:
    for module in modules:
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__module__ == module.__name__:
                yield each


class RecordTests(SynchronousTestCase):
    def test_immutable(self) -> None:
        """Whoever is given a record cannot change what others hold, stored, configured or sent."""
        for each in records(base, directors, kept, node, report, services, wire, peer_wire):
            self.assertTrue(each.__struct_config__.frozen, each)

    def test_shares(self) -> None:
        """What part of new clients each group gets: of the weights' sum, or all for the enabled group."""
        groups = {"blue": services.Group(), "green": services.Group()}
        for split, shares in (({"blue": 1.0, "green": 3.0}, {"blue": 0.25, "green": 0.75}), ({"green": 5.0}, {"green": 1.0}),
                              ({"blue": 0.0}, {"blue": 1.0}), ({}, {"blue": 1.0})):
            self.assertEqual(services.Service(groups=groups, split=split).shares, shares)
        self.assertEqual(services.Service().shares, {})

    def test_tls(self) -> None:
        """With clients or with a group's hosts, either is enough."""
        plain, secret = services.Group(), services.Group(tls=services.HostTLS())
        for groups, found in (({"blue": plain}, False), ({"blue": plain, "green": secret}, True)):
            self.assertIs(services.Service(groups=groups).has_tls, found)

    def test_keepalive_count(self) -> None:
        """Linux takes 1 to 127."""
        for count in (1, 127):
            self.assertEqual(msgspec.convert({"count": count}, services.Keepalive).count, count)
        for count in (0, 128):
            self.assertRaises(msgspec.ValidationError, msgspec.convert, {"count": count}, services.Keepalive)

    def test_names_of_hosts(self) -> None:
        """Three parts, none of them empty; anything else is told to be none."""
        self.assertEqual(HostRef.parse("web/blue/app1"), HostRef("web", "blue", "app1"))
        for text in ("", "web", "web/blue", "web/blue/", "/blue/app1", "web//app1", "web/blue/app1/"):
            self.assertIn("is not service/group/host", str(self.assertRaises(ValueError, HostRef.parse, text)), text)

    def test_unknown_keys(self) -> None:
        """A mistake in what an operator writes; of another release where directors and agents speak with each other."""
        for each in records(kept, node, services):
            self.assertTrue(each.__struct_config__.forbid_unknown_fields, each)
        for each in records(directors, report, wire, peer_wire):
            self.assertFalse(each.__struct_config__.forbid_unknown_fields, each)
        known = {"name": "one", "boot_id": "x", "since": 1.0}
        self.assertEqual(msgspec.convert({**known, "of_a_later_release": 1}, directors.Leader), directors.Leader(**known))
        with self.assertRaises(msgspec.ValidationError):
            msgspec.convert({"address": "10.0.0.1:80", "wieght": 2}, services.Host)

    def test_defaults_are_left_out(self) -> None:
        """Of all that is written: an older release, to which a new key is a mistake, reads what does not use it."""
        for each in records(base, directors, kept, node, report, services, wire, peer_wire):
            self.assertTrue(each.__struct_config__.omit_defaults, each)
        self.assertEqual(msgspec.json.encode(services.Host(address="10.0.0.1:80")), b'{"address":"10.0.0.1:80"}')

    def test_messages_by_name(self) -> None:
        """A message is made of named fields: a release that has one more takes none for another."""
        for each in records(wire, peer_wire, report):
            for parameter in inspect.signature(each).parameters.values():
                self.assertIs(parameter.kind, inspect.Parameter.KEYWORD_ONLY, (each, parameter))
