"""Families that keep their text: it is what the library would write afresh, whatever has changed since."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import HostRef, HostState
from director.admin.pages import _text
from director.metrics.counters import Metrics
from director.metrics.families import Part, Series, Table

HOSTS = st.builds(HostRef, st.sampled_from(["mail", "web"]), st.sampled_from(["a", "b"]), st.sampled_from(["h1", "h2", "h3"]))
CHANGES = st.lists(st.tuples(HOSTS, st.sampled_from(
    ["pass", "fail", "down", "up", "connections", "bytes", "time", "forget", "forget service", "look"])), max_size=30)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(0, 10**12), st.floats().map(lambda value: value + 0.0))  # minus zero is zero


def exposed(registry: CollectorRegistry, encode: Any) -> bytes:
    return b"".join(piece for family in registry.collect() for piece in _text(family, encode))


def change(metrics: Metrics, ref: HostRef, what: str) -> None:
    match what:
        case "pass" | "fail":
            metrics.probe(ref, ok=what == "pass")
        case "down" | "up":
            metrics.transition(ref, HostState(what))
        case "connections":
            metrics.host(ref).connections += 1
        case "bytes":
            metrics.host(ref).to_client_bytes += 10**9
        case "time":
            metrics.host(ref).connect.observe(0.05)
            metrics.host(ref).duration.observe(7.25)
        case "forget":
            metrics.forget_host(ref)
        case "forget service":
            metrics.forget_service(ref.service)


class KeptTextTests(SynchronousTestCase):
    """`director.metrics.families` behind `director.metrics.counters`."""

    @settings(max_examples=60, deadline=None)
    @given(CHANGES)
    def test_equals_fresh(self, changes: list[tuple[HostRef, str]]) -> None:
        """A director that was scraped before writes what one that was not writes, and what the library would."""
        looked_at, fresh = CollectorRegistry(), CollectorRegistry()
        first, second = Metrics(looked_at), Metrics(fresh)
        for ref, what in changes:
            change(first, ref, what)
            change(second, ref, what)
            if what == "look":
                exposed(looked_at, generate_latest)
        for encode in (generate_latest, openmetrics.generate_latest):
            kept = exposed(looked_at, encode)
            self.assertEqual(kept, exposed(fresh, encode))
            # but for the moment at which the library's own counters were made
            plain = [line for line in encode(looked_at).splitlines() if b"_created" not in line and line != b"# EOF"]
            self.assertEqual(kept.splitlines(), plain)

    @given(st.lists(VALUES, min_size=4, max_size=4), st.lists(VALUES, min_size=4, max_size=4))
    def test_numbers(self, before: list[float | None], after: list[float | None]) -> None:
        """Any number is written as the library writes it, also where another was; None is no series."""
        table = Table("gauge", "load", "Some.", ("service", "host"), ("kind", ("a", "z")))
        for values in (before, after):
            family = table.family({"web": Part([("web", "h1"), ("web", "h2")], values)})
            text = b"".join(_text(family, generate_latest))
            registry = CollectorRegistry()
            registry.register(_Only(family))
            self.assertEqual(text, generate_latest(registry))
            (parsed,) = text_string_to_metric_families(text.decode())
            self.assertEqual(len(parsed.samples), len(family.samples))

    def test_unchanged_parts_are_kept(self) -> None:
        """Only the part whose numbers changed is written anew, and what is kept of one that left is forgotten."""
        table = Table("counter", "seen", "Some.", ("service",))

        def written(**counts: float) -> list[bytes]:
            series = table.family({name: Part([(name,)], [count]) for name, count in counts.items()}).samples
            assert isinstance(series, Series)
            return list(series.text())

        mail, web = written(mail=3, web=5)
        same, other = written(mail=3.0, web=6)
        self.assertIs(same, mail)
        self.assertNotEqual(other, web)
        written(web=6)
        self.assertIsNot(written(mail=3, web=6)[0], mail)


class _Only:
    """A collector of one family."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def describe(self) -> tuple[()]:
        return ()

    def collect(self) -> tuple[Any]:
        return (self._family,)
