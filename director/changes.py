"""Changes of a service's configuration: checked, swapped in the store, and answered once this director follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from cluster.errors import Misuse
from cluster.keys import Keys, ServiceKey
from cluster.model import Configuration, HostRef, Service
from cluster.model import Node as NodeConfig
from cluster.store import MAX_OPERATIONS, Compare, Delete, Operation, Put, Record, Store, check_transaction
from cluster.view import Unreadable, decode
from director import check
from director.admin.errors import Conflict, Invalid, Refused, Stale, Wrong
from director.admin.offers import Change, Stored
from director.binding import OURS, BindError
from director.node import Node, file_access
from director.sync import Sync

#: A compare-and-swap that loses this often is not racing with people any more.
MAX_ATTEMPTS = 10
#: Keys about removed hosts that are deleted in the transaction of the change. What is beyond, of hundreds of hosts that
#: had orders, follows in transactions of its own; a director that dies in between leaves orders about nobody.
_ALONG = MAX_OPERATIONS - 1


class ServiceChanges:
    """Reads and swaps services in the store."""

    def __init__(self, node: Node, store: Store, sync: Sync, keys: Keys, config: NodeConfig) -> None:
        self._node = node
        self._store = store
        self._sync = sync
        self._keys = keys
        self._config = config

    async def stored(self) -> Mapping[str, Stored]:
        """As `Operations.stored`; a record that cannot be read is left out, as `Sync` leaves it."""
        found = {}
        for record in (await self._store.list(self._keys.services())).records:
            place = self._keys.parse(record.key)
            try:
                spec = decode(record.value, Service)
            except Unreadable:
                continue
            if isinstance(place, ServiceKey):
                found[place.service] = Stored(revision=record.mod_revision, spec=spec)
        return found

    async def change(self, name: str, change: Change, revision: int | None) -> int:
        """As `Operations.change`."""
        key = self._keys.service(name)
        for _ in range(MAX_ATTEMPTS):
            record = await self._store.get(key)
            found = record.mod_revision if record is not None else 0
            if revision is not None and revision != found:
                raise Stale(_stale(name, revision, found))
            committed = await self._swap(name, key, record, change)
            if committed is not None:
                return committed
        raise Conflict(f"service {name!r} kept changing; try again")

    async def _swap(self, name: str, key: str, record: Record | None, change: Change) -> int | None:
        """The revision of the change; None when somebody else was faster."""
        before = _decoded(name, record)
        after = change(before)
        if after is None and before is None:
            raise Refused(f"there is no service {name!r} to change")
        if record is not None and _same(before, after):
            return record.mod_revision
        if after is not None:
            self._check(name, after)
        operation: Operation = Delete(key) if after is None else Put(key, msgspec.json.encode(after))
        along = [Delete(each) for each in self._left_behind(name, before, after)]
        try:
            check_transaction([operation], [])
        except Misuse as error:  # its size
            raise Invalid(str(error), "spec") from error
        known = before.listen if before is not None else ()
        added = tuple(text for text in after.listen if text not in known) if after is not None else ()
        try:
            self._node.reserve(name, added, file_access(after) if after is not None else OURS)
        except BindError as error:
            raise Conflict(str(error)) from error
        try:
            committed = await self._store.commit(
                [operation, *along[:_ALONG]], when=[Compare(key, record.mod_revision if record is not None else 0)]
            )
            if not committed.succeeded:
                return None
            for start in range(_ALONG, len(along), MAX_OPERATIONS):
                await self._store.commit(along[start : start + MAX_OPERATIONS])
            await self._sync.reached(key, committed.revision)
            return committed.revision
        finally:
            self._node.release(name)

    def _left_behind(self, name: str, before: Service | None, after: Service | None) -> Iterator[str]:
        """Keys about hosts that the change removes: a later host of the same name is another one. It must not begin
        drained, nor must a registration that the configured host hid step into its place."""
        inventory = self._node.inventory
        groups = after.groups if after is not None else {}
        gone = {HostRef(name, *each) for each in _hosts(before) - _hosts(after)}
        gone |= {ref for ref in inventory.registrations() if ref.service == name and ref.group not in groups}
        for ref in sorted(gone):
            entry = inventory.hosts.get(ref)
            if entry is not None and "operator" in entry.orders:
                yield self._keys.admin(ref, "operator")
            if inventory.registered(ref) is not None:
                yield self._keys.registered(ref)

    def _check(self, name: str, service: Service) -> None:
        services = {other: entry.spec for other, entry in self._node.inventory.services.items()}
        beside = Configuration(node=self._config, services=services)
        problems = [*check.service_errors(name, service), *check.listener_errors(name, service, beside)]
        if problems:
            raise Wrong(problems)


def _same(before: Service | None, after: Service | None) -> bool:
    """Tables are equal in any order, but the first group of a service may be the enabled one."""
    return before == after and (before is None or after is None or list(before.groups) == list(after.groups))


def _hosts(service: Service | None) -> set[tuple[str, str]]:
    """Configured hosts, by group and name."""
    if service is None:
        return set()
    return {(name, host) for name, group in service.groups.items() for host in group.hosts}


def _decoded(name: str, record: Record | None) -> Service | None:
    if record is None:
        return None
    try:
        return decode(record.value, Service)
    except Unreadable as error:
        raise Conflict(f"what is stored of service {name!r} cannot be read: {error}") from error


def _stale(name: str, revision: int, found: int) -> str:
    if not found:
        return f"there is no service {name!r} any more"
    if not revision:
        return f"there is a service {name!r} already, of revision {found}"
    return f"service {name!r} has revision {found} now, not {revision}"
