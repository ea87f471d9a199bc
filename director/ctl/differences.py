"""A plan of changes as people and programs read it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from cluster.model import Service
from cluster.validate import join
from director.core.plan import Absent, KeyOrder, Step, values

_MARKS = {"add": "+", "remove": "-", "change": "~", "order": "~"}

Kind = Literal["add", "remove", "change", "order"]


class Line(NamedTuple):
    """One line of a diff; *kind* decides its colour."""

    kind: str
    text: str


def lines(steps: Iterable[Step]) -> Iterator[Line]:
    """A heading for each service, and below it a line for each difference."""
    for step in steps:
        about = f"  {_summary(step.after)}" if step.kind == "add" and step.after is not None else ""
        yield Line(step.kind, f"{_MARKS[step.kind]} {join('services', step.service)}{about}")
        for change in step.changes:
            if change.path:
                yield Line(change.kind, f"    {_MARKS[change.kind]} {join('', *change.path)}  {values(change)}")


def as_data(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """The same for programs; what is absent is null."""
    return [
        {
            "service": step.service, "kind": step.kind,
            "changes": [
                {"place": step.place(change), "kind": change.kind, "before": _plain(change.before),
                 "after": _plain(change.after)}
                for change in step.changes
            ],
        }
        for step in steps
    ]


def _summary(service: Service) -> str:
    hosts = sum(len(group.hosts) for group in service.groups.values())
    return f"listens on {', '.join(service.listen) or 'nothing'}; groups: {len(service.groups)}, hosts: {hosts}"


def _plain(value: object) -> Any:
    if isinstance(value, Absent):
        return None
    return list(value.keys) if isinstance(value, KeyOrder) else msgspec.to_builtins(value)
