"""What a file that was read again changes: at once, or after a restart. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from cluster.model import Configuration
from cluster.validate import join

#: What a running director takes over from its file.
RELOADED = ("node.log.level", "node.admin.users")


#: What makes it another director: nothing of it passes to a new process.
IDENTITY = ("node.name", "node.store", "node.etcd.cluster")


def by_new_process(restart: tuple[str, ...]) -> tuple[str, ...]:
    """Of the places that cannot be taken in place: those that a new process takes; none while one of them makes it another
    director, and none where only services differ, which `directorctl apply` changes."""
    if any(place in IDENTITY for place in restart) or all(place.startswith("services.") for place in restart):
        return ()
    return restart


class Differences(NamedTuple):
    reloaded: tuple[str, ...]  #: places that differ and can be taken over
    restart: tuple[str, ...]  #: places that differ and cannot
    effective: Configuration  #: the configuration that is in force with what was taken over


def differences(running: Configuration, read: Configuration) -> Differences:
    """From what is *running* to what was *read*."""
    places = list(_different("", running, read))
    node = replace(
        running.node,
        log=replace(running.node.log, level=read.node.log.level),
        admin=replace(running.node.admin, users=read.node.admin.users),
    )
    return Differences(
        tuple(place for place in places if place in RELOADED),
        tuple(place for place in places if place not in RELOADED),
        replace(running, node=node),
    )


def _different(place: str, one: object, other: object) -> Iterator[str]:
    """Structs are compared field by field, the services one by one, everything else as a whole."""
    if isinstance(one, msgspec.Struct) and type(one) is type(other):
        for name in one.__struct_fields__:
            here = join(place, name)
            if here == "services":
                before, after = getattr(one, name), getattr(other, name)
                yield from (join(here, each) for each in before | after if before.get(each) != after.get(each))
            else:
                yield from _different(here, getattr(one, name), getattr(other, name))
    elif one != other:
        yield place
