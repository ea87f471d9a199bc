"""What has to change for services to become others: differences service by service, down to hosts and fields.

    steps = plan(running, wanted)
    perform(running, steps) == wanted

Theory of operation. A service is the unit of atomic change (one value in the store), so a plan is one `Step` for each
service that differs, and a step carries the whole service that results beside its `Difference` list, which is for people
and for `perform`. Records are walked field by field, tables key by key; everything else (numbers, texts, lists of
addresses) is compared whole. Of the order of a table's keys only that of groups means anything (the first one answers
when none is enabled by name), so only that is a difference.

Steps are in an order in which each can be done: a service gives up an address before another begins to listen on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from cluster.model import Host, Service
from cluster.validate import join

#: From the service: names of fields and keys of tables.
Path = tuple[str, ...]

#: The tables whose order is part of their meaning, as their path from the service.
_ORDERED: frozenset[Path] = frozenset({("groups",)})
_WILDCARDS = frozenset({"0.0.0.0", "[::]"})


class Absent:
    """Nothing is there: before something is added, after it is removed."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


class KeyOrder(NamedTuple):
    """The keys of a table whose order changes."""

    keys: tuple[str, ...]


class Difference(NamedTuple):
    """One difference: what is at *path* before and after. `ABSENT`, a value, or both are a `KeyOrder`."""

    path: Path
    before: object
    after: object

    @property
    def kind(self) -> str:
        """``add``, ``remove``, ``change`` or ``order``."""
        if self.before is ABSENT:
            return "add"
        if self.after is ABSENT:
            return "remove"
        return "order" if isinstance(self.after, KeyOrder) else "change"


class Step(NamedTuple):
    """One service that differs. *before* is None for one that begins, *after* for one that ends."""

    service: str
    before: Service | None
    after: Service | None
    changes: tuple[Difference, ...]

    @property
    def kind(self) -> str:
        """``add``, ``remove`` or ``change``."""
        return "add" if self.before is None else "remove" if self.after is None else "change"

    def place(self, change: Difference) -> str:
        """Where *change* is, as a dotted key of a configuration file."""
        return join("services", self.service, *change.path)


def plan(before: Mapping[str, Service], after: Mapping[str, Service]) -> tuple[Step, ...]:
    """The steps from *before* to *after*; none when they are equal."""
    ends = [Step(name, spec, None, (Difference((), spec, ABSENT),)) for name, spec in before.items() if name not in after]
    others = []
    for name, spec in after.items():
        old = before.get(name)
        changes = tuple(_differences((), ABSENT if old is None else old, spec))
        if changes:
            others.append(Step(name, old, spec, changes))
    return (*ends, *_in_order(others))


def perform(services: Mapping[str, Service], steps: Iterable[Step]) -> dict[str, Service]:
    """*services* after the changes of *steps*; what they do not mention stays."""
    result = dict(services)
    for step in steps:
        value: Any = result.pop(step.service, ABSENT)
        for change in step.changes:
            value = _set(value, change.path, change)
        if value is not ABSENT:
            result[step.service] = value
    return result


def values(change: Difference) -> str:
    """What is there after *change*, and before it, in a line for people."""
    if change.kind == "add":
        return _text(change.after)
    if change.kind == "remove":
        return _text(change.before)
    return f"{_text(change.before)} → {_text(change.after)}"


def _text(value: object) -> str:
    if isinstance(value, Host) and value == Host(address=value.address):
        return value.address
    if isinstance(value, KeyOrder):
        return ", ".join(value.keys)
    if value is None:
        return "nothing"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# --- finding differences ----------------------------------------------------------------------------------


def _differences(path: Path, before: Any, after: Any) -> Iterator[Difference]:
    if isinstance(before, msgspec.Struct) and type(before) is type(after):
        for field in msgspec.structs.fields(before):
            yield from _differences(
                (*path, field.encode_name), getattr(before, field.name), getattr(after, field.name)
            )
    elif isinstance(before, dict) and isinstance(after, dict):
        yield from _table(path, before, after)
    elif type(before) is not type(after) or before != after:  # the type: True and 1 are equal, but not the same setting
        yield Difference(path, before, after)


def _table(path: Path, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Difference]:
    for key, value in before.items():
        if key not in after:
            yield Difference((*path, key), value, ABSENT)
    for key, value in after.items():
        yield from _differences((*path, key), before.get(key, ABSENT), value)
    if path in _ORDERED:
        left = tuple(key for key in before if key in after) + tuple(key for key in after if key not in before)
        if left != tuple(after):
            yield Difference(path, KeyOrder(left), KeyOrder(tuple(after)))


def _in_order(steps: list[Step]) -> Iterator[Step]:
    """*steps*, each after those that free an address it begins to listen on. Two that swap theirs cannot be ordered;
    they stay as they come, and the director will refuse the first."""
    waiting = list(steps)
    while waiting:
        step = next((step for step in waiting if not any(_frees(other, step) for other in waiting)), waiting[0])
        waiting.remove(step)
        yield step


def _frees(one: Step, other: Step) -> bool:
    """Whether *one* stops listening on what *other* begins to listen on."""
    freed, wanted = _listens(one.before) - _listens(one.after), _listens(other.after) - _listens(other.before)
    return one is not other and any(_clash(mine, theirs) for mine in freed for theirs in wanted)


def _clash(one: str, other: str) -> bool:
    """Whether two addresses cannot be listened on at once, as far as their spelling tells."""
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    return one == other or (port == other_port and not _WILDCARDS.isdisjoint((host, other_host)))


def _listens(spec: Service | None) -> frozenset[str]:
    """The addresses that nobody else can have meanwhile: port 0 is any free one."""
    return frozenset(text for text in (spec.listen if spec is not None else ()) if not text.endswith(":0"))


# --- performing them --------------------------------------------------------------------------------------


def _set(value: Any, path: Path, change: Difference) -> Any:
    """*value* with *change* made at *path* within it."""
    if not path:
        return {key: value[key] for key in change.after.keys} if isinstance(change.after, KeyOrder) else change.after
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        inner = _set(value.get(key, ABSENT), rest, change)
        if inner is ABSENT:
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: inner}
    field = next(field for field in msgspec.structs.fields(value) if field.encode_name == key)
    return msgspec.structs.replace(value, **{field.name: _set(getattr(value, field.name), rest, change)})
