"""Changes of a service's configuration: checked, swapped in the store, and answered once this director follows."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from twisted.logger import Logger

from cluster.errors import Misuse, StoreUnavailable
from cluster.keys import AdminKey, Keys, RegisteredKey, ServiceKey
from cluster.model import Configuration, HostRef, Service
from cluster.model import Node as NodeConfig
from cluster.store import MAX_OPERATIONS, Compare, Delete, Listing, Operation, Put, Record, Store, check_transaction
from cluster.validate import join
from cluster.view import Unreadable, decode
from director.admin.offers import Edit, Stored
from director.config import addresses, check
from director.config.files import is_ours
from director.config.loops import loop_errors
from director.engine.errors import Conflict, Invalid, Refused, Stale, Wrong
from director.engine.node import Node
from director.engine.swapping import Swap, Swapping
from director.ports.binding import OURS, BindError
from director.traffic.listening import file_access

#: Keys about removed hosts that are deleted in the transaction of the change. What is beyond, of hundreds of hosts that
#: had orders, follows in transactions of its own; a director that dies in between leaves orders about nobody.
_ALONG = MAX_OPERATIONS - 1


class ServiceChanges:
    """Reads and swaps services in the store."""

    log = Logger()

    def __init__(self, node: Node, store: Store, swapping: Swapping, keys: Keys, config: NodeConfig) -> None:
        self._node = node
        self._store = store
        self._swapping = swapping
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

    async def change(self, name: str, change: Edit, revision: int | None) -> int:
        """As `Operations.change`."""
        key = self._keys.service(name)
        rest: list[Record] = []

        async def decide(record: Record | None) -> Swap | None:
            found = record.mod_revision if record is not None else 0
            if revision is not None and revision != found:
                raise Stale(_stale(name, revision, found))
            rest.clear()
            return await self._plan(name, key, record, change, rest)

        committed = await self._swapping.change(key, decide, over=lambda: self._node.listeners.release(name))
        await self._sweep(rest, key, committed)
        return committed

    async def _plan(self, name: str, key: str, record: Record | None, change: Edit, rest: list[Record]) -> Swap | None:
        """What the change comes to; *rest* takes what does not fit into its transaction."""
        before = _decoded(name, record)
        after = change(before)
        if after is None and before is None:
            raise Refused(f"there is no service {name!r} to change")
        if record is not None and _same(before, after):
            return None
        if after is not None:
            self._check(name, after)
        operation: Operation = Delete(key) if after is None else Put(key, msgspec.json.encode(after))
        try:
            check_transaction([operation], [])
        except Misuse as error:  # its size
            raise Invalid(str(error), "spec") from error
        left = await self._left_behind(name, before, after)
        rest += left[_ALONG:]
        known = before.listen if before is not None else ()
        added = tuple(text for text in after.listen if text not in known) if after is not None else ()
        try:
            self._node.listeners.reserve(name, added, file_access(after) if after is not None else OURS)
        except BindError as error:
            raise Conflict(str(error)) from error
        return Swap(operation, [Delete(each.key) for each in left[:_ALONG]],
                    [Compare(each.key, each.mod_revision) for each in left[:_ALONG]])

    async def _sweep(self, rest: list[Record], key: str, revision: int) -> None:
        """Delete what did not fit, unless somebody has changed it or the service since."""
        try:
            service = Compare(key, 0 if rest and await self._store.get(key) is None else revision)
            for start in range(0, len(rest), _ALONG):
                part = rest[start : start + _ALONG]
                when = [service, *(Compare(each.key, each.mod_revision) for each in part)]
                await self._store.commit([Delete(each.key) for each in part], when=when)
        except StoreUnavailable as error:
            self.log.warn("orders and registrations of removed hosts stay in the store: {why}", why=str(error))

    async def _left_behind(self, name: str, before: Service | None, after: Service | None) -> list[Record]:
        """Records about hosts that the change removes: a later host of the same name is another one. It must not begin
        drained, nor must a registration that the configured host hid step into its place."""
        gone = {HostRef(name, *each) for each in _hosts(before) - _hosts(after)}
        groups = after.groups if after is not None else {}
        if not gone and before is not None and before.groups.keys() <= groups.keys():
            return []
        registered = self._by_ref(await self._store.list(self._keys.registered_hosts(name)))
        orders = self._by_ref(await self._store.list(self._keys.orders(name)))
        gone |= {ref for ref in registered if ref.group not in groups}
        return [by[ref] for ref in sorted(gone) for by in (orders, registered) if ref in by]

    def _by_ref(self, listing: Listing) -> dict[HostRef, Record]:
        """Operators' orders, and registrations; agents' orders end with their agents."""
        found = {}
        for record in listing.records:
            place = self._keys.parse(record.key)
            if isinstance(place, RegisteredKey) or (isinstance(place, AdminKey) and place.by == "operator"):
                found[place.ref] = record
        return found

    def _check(self, name: str, service: Service) -> None:
        services = {other: entry.spec for other, entry in self._node.inventory.services.items()}
        beside = Configuration(node=self._config, services=services)
        problems = [*check.service_errors(name, service), *addresses.listener_errors(name, service, beside)]
        after = msgspec.structs.replace(beside, services={**services, name: service})
        problems += [each for each in loop_errors(after, is_ours) if each.place.startswith(f"{join('services', name)}.")]
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
