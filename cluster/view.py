"""A prefix of the store as typed values: decoded, checked, and kept equal to the store as its events come. Pure.

Anybody with etcdctl writes there, so no record is trusted:

1. A record that cannot be read costs only itself. It is named in `View.problems` and the log until it is corrected or
   deleted, and every other record of its event counts.
2. What it stood for meanwhile is the view's choice: nothing; or, where nothing would do harm (a service that serves),
   what its key last said that could be read.
3. So the values follow from what the store holds and, by the second rule, held; never from how events were cut up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec
from twisted.logger import Logger

from cluster.keys import Keys, Place
from cluster.store import Event, Record, Resync

P = TypeVar("P", bound=Place)
V = TypeVar("V")


class Unreadable(Exception):
    """A value is not what its key promises."""


class Checked(NamedTuple, Generic[V]):
    """What of a value is sound (None: nothing), and everything that is wrong with it."""

    sound: V | None
    problems: Sequence[str] = ()


class News(NamedTuple, Generic[P, V]):
    """What an event changed, those that are gone (None) first; all values, after a resync."""

    changed: dict[P, V | None]
    resync: bool
    revision: int


def printable(key: str) -> str:
    """A key as people can be shown it: what is no UTF-8 in etcd has become lone surrogates, which no output takes."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def decode(value: bytes, type_: type[V]) -> V:
    """:raises Unreadable: *value* is not the JSON of a *type_*."""
    try:
        return msgspec.json.decode(value, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from error


class View(Generic[P, V]):
    """See the module.

    :param place: what keys under *prefix* name; other keys are problems.
    :param check: looks for what types cannot tell.
    :param keep: an unreadable record stands for what its key last said, instead of for nothing.
    :ivar values: by place.
    :ivar revisions: the last write of each key, readable or not.
    :ivar problems: what is wrong, by key as it is shown.
    """

    log = Logger()

    def __init__(self, keys: Keys, prefix: str, place: type[P], value: type[V], *, keep: bool = False,
                 check: Callable[[P, V], Checked[V]] = lambda place, value: Checked(value)) -> None:
        self.prefix = prefix
        self.values: dict[P, V] = {}
        self.revisions: dict[str, int] = {}
        self.problems: dict[str, str] = {}
        self._keys = keys
        self._place = place
        self._value = value
        self._check = check
        self._keep = keep

    def follow(self, event: Event) -> None:
        """As `take`, for who only looks."""
        self.take(event)

    def take(self, event: Event) -> News[P, V]:
        """Follow *event*; answers what is different now."""
        changed: dict[P, V | None] = {}
        if isinstance(event, Resync):
            records, revision = event.listing.records, event.listing.revision
            gone = self.revisions.keys() - {record.key for record in records}
        else:
            records, revision = event.written, event.revision
            gone = self.revisions.keys() & set(event.deleted)
        for key in sorted(gone):
            del self.revisions[key]
            self.problems.pop(printable(key), None)
            place = self._named(key)
            if place is not None and self.values.pop(place, None) is not None:
                changed[place] = None
        for record in records:
            self.revisions[record.key] = record.mod_revision
            place = self._named(record.key)
            value = self._read(place, record)
            if place is None:
                continue
            if value is not None:
                changed[place] = self.values[place] = value
            elif not self._keep and self.values.pop(place, None) is not None:
                changed[place] = None
        return News(changed, isinstance(event, Resync), revision)

    def _named(self, key: str) -> P | None:
        place = self._keys.parse(key)
        return place if isinstance(place, self._place) else None

    def _read(self, place: P | None, record: Record) -> V | None:
        checked: Checked[V] = Checked(None, ["the key names nothing"])
        if place is not None:
            try:
                checked = self._check(place, decode(record.value, self._value))
            except Unreadable as error:
                checked = Checked(None, [str(error)])
        self._name(record.key, "; ".join(checked.problems))
        return checked.sound

    def _name(self, key: str, why: str) -> None:
        """Say what is wrong with a record once, and when it is right again."""
        key = printable(key)
        before = self.problems.pop(key, "")
        if why:
            self.problems[key] = why
            if why != before:
                self.log.error("{key} in the store is passed over as far as it cannot be read: {why}", key=key, why=why)
        elif before:
            self.log.info("{key} in the store can be read again", key=key)
