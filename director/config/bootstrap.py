"""Putting a cluster's services into an empty store, once: ``director bootstrap``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cluster.errors import Misuse
from cluster.keys import Keys
from cluster.model import Service
from cluster.store import MAX_OPERATIONS, Compare, Put, Store
from cluster.takeover import Kind, Reign, Timing, as_written
from cluster.view import printable


class AlreadyThere(Exception):
    """The store has what was to be put there; nothing was changed."""


async def bootstrap(store: Store, keys: Keys, services: Mapping[str, Service]) -> int:
    """Create every service in one transaction, if none of the cluster's is there; answers the revision.

    :raises AlreadyThere: naming what is there.
    :raises cluster.errors.Misuse: more services, or larger ones, than a transaction holds; nothing was changed.
    """
    if len(services) > MAX_OPERATIONS:
        raise Misuse(f"{len(services)} services are too many at once, a transaction holds {MAX_OPERATIONS}: bootstrap "
                     f"a file of {MAX_OPERATIONS} at most, then run directorctl apply with all; nothing was changed")
    there = await store.list(keys.services())
    if not there.records:
        operations = [Put(keys.service(name), msgspec.json.encode(spec)) for name, spec in services.items()]
        committed = await store.commit(operations, when=[Compare(keys.service(name), 0) for name in services])
        if committed.succeeded:
            return committed.revision
        there = await store.list(keys.services())
    names = ", ".join(printable(record.key.removeprefix(keys.services())) for record in there.records)
    raise AlreadyThere(f"the store has services already: {names}; use directorctl apply to change them")


async def first_record(store: Store, keys: Keys, director: str, timing: Timing, since: float) -> None:
    """Name *director* the first owner by promises, and alone among those who may follow: once it runs it owns, and whoever
    joins it may follow from then on. No director writes that, since an absent record is a licence to nobody.

    :param since: POSIX seconds.
    :raises AlreadyThere: somebody leads.
    """
    reign = Reign(director, "", frozenset((director,)), Kind.FIRST, timing.etcd_count_ns)
    written = [Put(keys.leader(), as_written(reign, since)), Put(keys.leader_beat(), f"{since:.3f}".encode())]
    committed = await store.commit(written, when=[Compare(keys.leader(), 0)])
    if not committed.succeeded:
        raise AlreadyThere(f"{keys.leader()} is there: somebody leads, or did")
