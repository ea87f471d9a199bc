"""Nobody else has our top-level names: `director`, `agent` and `cluster` are ours, beside everything that our extras bring."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from importlib.util import find_spec

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from twisted.trial.unittest import SynchronousTestCase

from deploy.packaging.deb import ROOT
from tests.packages.chroot import without

OURS = ("agent", "cluster", "director")
#: Of the distribution; what developers, documentation and benchmarks install is among them.
EXTRAS = frozenset(distribution("txdirector").metadata.get_all("Provides-Extra") or ())


def needed(found: Distribution, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """Names of all distributions that *found* with *extras* needs on this machine, however far."""
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            continue
        name, more = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, more) not in seen:
            seen.add((name, more))
            yield name
            try:
                further = distribution(name)
            except PackageNotFoundError:
                continue
            yield from needed(further, more, seen)


class NamesTests(SynchronousTestCase):
    def test_nobody_else_has_them(self) -> None:
        """No file of another distribution is in our packages or in their place, nor is any of ours in theirs."""
        self.assertEqual(set(OURS) & set(sys.stdlib_module_names), set())
        self.assertLessEqual({"bench", "dev", "docs"}, EXTRAS)
        wanted = {*needed(distribution("txdirector"), EXTRAS, set())} - {"txdirector"}
        there = {canonicalize_name(each.name): each for each in distributions()}
        if missing := wanted - set(there):
            without(f"not installed: {', '.join(sorted(missing))}; make test-packages")
        taken = {}
        for name in set(there) - {"txdirector"}:
            for file in there[name].files or ():
                first = file.parts[0].partition(".")[0]
                if first in OURS or file.match("twisted/plugins/txdirector*"):
                    taken[str(file)] = name
        self.assertEqual(taken, {})

    def test_they_are_ours(self) -> None:
        """What is imported by each name is of this tree."""
        for name in OURS:
            spec = find_spec(name)
            assert spec is not None
            self.assertEqual(spec.origin, str(ROOT / name / "__init__.py"))
