"""The store's content, as it changes, into the inventory; and what this node writes into the store.

Reading: five watches (shares of maxima, services, registrations, orders, users). What a record says replaces what was
known; a record that can't be read changes nothing and is reported. Until the first answer of all of them, the node has
no configuration: "not synced" is never taken for "nothing configured".

With an embedded store the node's own file holds the services. At each start a service of the file replaces the stored
one only if the file's text for it has changed since it was last read; otherwise the stored one, with the changes made
through the admin since, stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
from twisted.application.service import Service as TwistedService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cluster.keys import BootKey, Keys
from cluster.model import Caps, HostRef, Order, Registered, Service, User
from cluster.store import Delete, Event, Listing, Put, Record, Resync, Store, Watch
from director.telling import tell_each


class Applies(Protocol):
    """Where the store's content goes; None means "gone"."""

    def apply_service(self, name: str, spec: Service | None) -> None: ...

    def set_caps(self, service: str, caps: Caps | None) -> None: ...

    def set_registered(self, ref: HostRef, registered: Registered | None) -> None: ...

    def set_order(self, ref: HostRef, by: str, order: Order | None) -> None: ...

    def drop_local_orders(self) -> None:
        """All orders of the store follow."""


class Sync(TwistedService):
    """Mirrors the store while it runs: from `follow` on.

    Without the store `assume` stands in for it with what was last known; the store's first word replaces that.

    :param user_unreadable: called for each record of a user that cannot be read.
    :ivar on_change: called after records were applied.
    """

    log = Logger()

    def __init__(
        self, store: Store, keys: Keys, into: Applies, set_user: Callable[[str, User | None], None], *,
        user_unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self.setName("sync")
        self._store = store
        self._keys = keys
        self._into = into
        self._set_user = set_user
        self._user_unreadable = user_unreadable
        self._watches: list[Watch] = []
        self._mirrors: tuple[_Mirror, ...] = ()
        self._missing = 0
        self.synced: Deferred[None] = Deferred()  #: fires once all prefixes are known, be it from a snapshot
        self.assumed = False  #: what is applied is a snapshot's
        self.on_change: list[Callable[[], None]] = []
        self.prefixes = (keys.all_caps(), keys.services(), keys.registered_hosts(), keys.orders(), keys.users())

    def startService(self) -> None:
        super().startService()
        keys, into = self._keys, self._into
        self._mirrors = (
            _Mirror(keys.all_caps(), Caps, lambda at, caps: into.set_caps(at.service, caps), keys),
            _Mirror(keys.services(), Service, lambda at, spec: into.apply_service(at.service, spec), keys),
            _Mirror(keys.registered_hosts(), Registered, lambda at, it: into.set_registered(at.ref, it), keys),
            _Mirror(keys.orders(), Order, lambda at, order: into.set_order(at.ref, at.by, order), keys,
                    resyncing=into.drop_local_orders),
            _Mirror(keys.users(), User, lambda at, user: self._set_user(at.name, user), keys,
                    unreadable=self._user_unreadable),
        )
        self._missing = len(self._mirrors)
        for mirror in self._mirrors:
            mirror.answered.addCallback(self._answered)

    def follow(self) -> None:
        """Watch the store, which runs now."""
        unheard = {mirror.prefix for mirror in self._mirrors}

        def deliver(mirror: _Mirror, event: Event) -> None:
            mirror.deliver(event)
            unheard.discard(mirror.prefix)
            self.assumed = self.assumed and bool(unheard)
            tell_each(self.on_change)

        for mirror in self._mirrors:
            self._watches.append(self._store.watch(mirror.prefix, partial(deliver, mirror)))

    def assume(self, records: Sequence[Record]) -> None:
        """Apply what was last known, until the store is there to `follow`."""
        self.assumed = True
        for mirror in self._mirrors:
            known = tuple(record for record in records if record.key.startswith(mirror.prefix))
            mirror.deliver(Resync(Listing(known, 0)))

    def stopService(self) -> None:
        super().stopService()
        for watch in self._watches:
            watch.stop()
        self._watches.clear()

    def reached(self, key: str, revision: int) -> Deferred[None]:
        """Fires when the change of *key* that was committed as *revision* has been applied here."""
        mirror = next(each for each in self._mirrors if key.startswith(each.prefix))
        return mirror.reached(revision)

    def _answered(self, _: None) -> None:
        self._missing -= 1
        if self._missing == 0:
            self.synced.callback(None)


class _Mirror:
    """One prefix, kept equal to the store's: what vanished from a resync is gone.

    :param resyncing: called before a resync's records are put.
    :param unreadable: called for each record that cannot be read.
    """

    log = Logger()

    def __init__(
        self, prefix: str, type_: type[Any], put: Callable[[Any, Any], None], keys: Keys, *,
        resyncing: Callable[[], None] = lambda: None, unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self.prefix = prefix
        self.answered: Deferred[None] = Deferred()
        self._type = type_
        self._put = put
        self._keys = keys
        self._resyncing = resyncing
        self._unreadable = unreadable
        self._known: set[str] = set()
        self._revision = 0
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def reached(self, revision: int) -> Deferred[None]:
        waited: Deferred[None] = Deferred()
        self._waiting.append((revision, waited))
        self._arrived(self._revision)
        return waited

    def _arrived(self, revision: int) -> None:
        self._revision = revision
        due = [waited for asked, waited in self._waiting if asked <= revision]
        self._waiting = [each for each in self._waiting if each[0] > revision]
        for waited in due:
            waited.callback(None)

    def deliver(self, event: Event) -> None:
        if isinstance(event, Resync):
            records = event.listing.records
            self._resyncing()
            self._forget(self._known - {record.key for record in records})
        else:
            records = event.written
            self._forget(self._known.intersection(event.deleted))
        for record in records:
            self._take(record)
        self._arrived(event.listing.revision if isinstance(event, Resync) else event.revision)
        if not self.answered.called:
            self.answered.callback(None)

    def _take(self, record: Record) -> None:
        place = self._keys.parse(record.key)
        try:
            value = msgspec.json.decode(record.value, type=self._type)
        except msgspec.DecodeError as error:
            place, value = None, None
            self.log.error("{key} in the store cannot be read and is left as it was: {why}", key=record.key, why=error)
            self._unreadable()
        if place is not None:
            self._known.add(record.key)
            self._apply(record.key, value)

    def _forget(self, keys: set[str]) -> None:
        self._known -= keys
        for key in sorted(keys):
            self._apply(key, None)

    def _apply(self, key: str, value: Any) -> None:
        try:
            self._put(self._keys.parse(key), value)
        except Exception:  # one bad record must not stop the others
            self.log.failure("{key} in the store could not be applied", key=key)


async def seed(store: Store, keys: Keys, services: Mapping[str, Service]) -> None:
    """Bring an embedded store up to the file's services, as the module says."""
    for name, spec in services.items():
        text = msgspec.json.encode(spec)
        remembered = await store.get(keys.boot(name))
        if remembered is None or remembered.value != text:
            await store.commit([Put(keys.service(name), text), Put(keys.boot(name), text)])
    for record in (await store.list(keys.boots())).records:
        place = keys.parse(record.key)
        if isinstance(place, BootKey) and place.service not in services:
            await store.commit([Delete(record.key), Delete(keys.service(place.service))])
