"""Agents by release: what they told, what they did not, and no more series than are bounded."""

from __future__ import annotations

from collections import Counter

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from cluster import wire
from director.reports.releases import MAX_RELEASES, ReleaseCollector
from tests.unit.reports.test_agents import APP1, ListenerCase, Peer


def exposed(found: Counter[str]) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(ReleaseCollector(lambda: found))
    return {sample.labels["release"]: sample.value for family in registry.collect() for sample in family.samples}


class CollectorTests(SynchronousTestCase):
    def test_bounded(self) -> None:
        """The releases of most agents by name, all others together."""
        found = Counter({f"1.{number}": 100 - number for number in range(MAX_RELEASES)}) + Counter(x=2, y=1)
        self.assertEqual(exposed(found), {f"1.{number}": 100 - number for number in range(MAX_RELEASES)} | {"other": 3})

    def test_none(self) -> None:
        self.assertEqual(exposed(Counter()), {})


class ListenerTests(ListenerCase):
    def test_connected_agents_count(self) -> None:
        """By what their hello says; who left does not."""
        self.assertEqual(self.listener.releases(), {})
        peer = Peer(self.listener)
        peer.send(wire.Hello(version=1, agent="app1", boot_id="b", hosts=[wire.HostClaim(host=APP1)], release="2.0~rc1"))
        self.assertEqual(self.listener.releases(), {"2.0~rc1": 1})
        self.joined(boot="c", agent="app2")
        self.assertEqual(self.listener.releases()["unknown"], 1)
        self.listener.stopService()
        self.assertEqual(self.listener.releases(), {})

    def test_a_release_that_is_none_is_malformed(self) -> None:
        """It would be a label."""
        peer = Peer(self.listener)
        peer.protocol.dataReceived(b'{"type":"hello","version":1,"agent":"a","boot_id":"b","hosts":[{"host":"web/blue/app1"}],'
                                   b'"release":"a\\"b"}\n')
        self.assertEqual(self.sink.rejects, ["malformed"])
