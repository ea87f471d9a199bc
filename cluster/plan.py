"""What has to change so that one set of services becomes another: the difference, down to hosts and fields.

Pure. A service is the unit of change, because it is the unit of atomicity; what is told below a service is for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from cluster.model import Service


class Difference(NamedTuple):
    """One place that differs.

    :ivar place: dotted, e.g. ``services.web.groups.main.hosts.app1.weight``.
    :ivar before: None: it was not there. *after*: None: it is there no more. Plain values, as JSON has them.
    """

    place: str
    before: Any
    after: Any


class Step(NamedTuple):
    """One service's change."""

    service: str
    action: Literal["create", "change", "delete"]
    differences: tuple[Difference, ...]


def plan(running: Mapping[str, Service], wanted: Mapping[str, Service], *, delete: bool = True) -> list[Step]:
    """The steps that lead from *running* to *wanted*; none where they are equal.

    New services come first, deletions last, so that nothing is without a place in between.

    :param delete: also delete services that are not wanted.
    """
    steps = [Step(name, "create", tuple(_differences(f"services.{name}", None, plain(wanted[name]))))
             for name in sorted(wanted.keys() - running.keys())]
    for name in sorted(wanted.keys() & running.keys()):
        differences = tuple(_differences(f"services.{name}", plain(running[name]), plain(wanted[name])))
        if differences:
            steps.append(Step(name, "change", differences))
    if delete:
        steps += [Step(name, "delete", (Difference(f"services.{name}", plain(running[name]), None),))
                  for name in sorted(running.keys() - wanted.keys())]
    return steps


def plain(service: Service) -> dict[str, Any]:
    """As JSON has it, defaults left out, but for the enabled group: that it is the first one is said, since JSON's objects
    have no order."""
    found: dict[str, Any] = msgspec.to_builtins(service)
    if service.enabled_group is not None:
        found["enable"] = service.enabled_group
    return found


def _differences(place: str, before: Any, after: Any) -> Iterator[Difference]:
    """The smallest places at which two plain values differ."""
    if before == after:
        return
    if not (isinstance(after, dict) and isinstance(before, dict | None)):
        yield Difference(place, before, after)
        return
    before = before or {}
    if not after and not before:
        return
    for key in sorted(before.keys() | after.keys()):
        yield from _differences(f"{place}.{key}", before.get(key), after.get(key))
