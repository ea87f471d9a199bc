"""The store's content, as it changes, into the inventory; and what this node writes into the store.

Reading: five views (shares of maxima, services, registrations, orders, users). What a record says replaces what was
known; a record that can't be read changes nothing, a host whose address can't be read costs only itself, and both are
named (`Sync.problems`) until they are corrected. Until the first answer of all of them, the node has
no configuration: "not synced" is never taken for "nothing configured".

With an embedded store the node's own file holds the services. At each start a service of the file replaces the stored
one only if the file's text for it has changed since it was last read; otherwise the stored one, with the changes made
through the admin since, stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Generic, Protocol

import msgspec
from twisted.application.service import Service as TwistedService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cluster.errors import Misuse
from cluster.keys import AdminKey, BootKey, CapsKey, Keys, RegisteredKey, ServiceKey, UserKey
from cluster.model import Caps, HostRef, Order, Registered, Service, User
from cluster.store import Compare, Delete, Event, Listing, Put, Record, Resync, Store, Watch
from cluster.view import P, Unreadable, V, View, decode
from director.core.plan import plan
from director.engine.soundness import sound_registration, sound_service
from director.engine.telling import tell_each

#: Shown at once; a page of them is more than anybody mends at a time, and the log has all.
MAX_PROBLEMS = 100


_log = Logger()


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
        self._mirrors: tuple[_Mirror[Any, Any], ...] = ()
        self._missing = 0
        self.synced: Deferred[None] = Deferred()  #: fires once all prefixes are known, be it from a snapshot
        self.assumed = False  #: what is applied is a snapshot's
        self.on_change: list[Callable[[], None]] = []
        self.prefixes = (keys.all_caps(), keys.services(), keys.registered_hosts(), keys.orders(), keys.users())

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        keys, into = self._keys, self._into
        caps = View(keys, keys.all_caps(), CapsKey, Caps, keep=True)
        services = View(keys, keys.services(), ServiceKey, Service, keep=True, check=sound_service)
        registered = View(keys, keys.registered_hosts(), RegisteredKey, Registered, keep=True, check=sound_registration)
        orders = View(keys, keys.orders(), AdminKey, Order, keep=True)
        users = View(keys, keys.users(), UserKey, User, keep=True)
        self._mirrors = (
            _Mirror(caps, lambda at, value: into.set_caps(at.service, value)),
            _Mirror(services, lambda at, spec: into.apply_service(at.service, spec)),
            _Mirror(registered, lambda at, value: into.set_registered(at.ref, value)),
            _Mirror(orders, lambda at, order: into.set_order(at.ref, at.by, order), resyncing=into.drop_local_orders),
            _Mirror(users, lambda at, user: self._set_user(at.name, user), unreadable=self._user_unreadable),
        )
        self._missing = len(self._mirrors)
        for mirror in self._mirrors:
            mirror.answered.addCallback(self._answered)

    def follow(self) -> None:
        """Watch the store, which runs now."""
        unheard = {mirror.prefix for mirror in self._mirrors}

        def deliver(mirror: _Mirror[Any, Any], event: Event) -> None:
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
        mirror = self._mirror_of(key)
        return mirror.when(lambda: mirror.revision >= revision)

    def gone(self, key: str) -> Deferred[None]:
        """Fires when what is known here of *key*, which the store does not have, is known no more."""
        mirror = self._mirror_of(key)
        known = mirror.view.revisions.get(key)
        return mirror.when(lambda: known is None or mirror.view.revisions.get(key) != known)

    def _mirror_of(self, key: str) -> _Mirror[Any, Any]:
        return next(each for each in self._mirrors if key.startswith(each.prefix))

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the store cannot be read, and why; the first `MAX_PROBLEMS`."""
        return self.problems_and({})

    def problems_and(self, *others: Mapping[str, str]) -> tuple[str, ...]:
        """Those, and those of other views."""
        views = (*(mirror.view.problems for mirror in self._mirrors), *others)
        return tuple(islice((f"{key}: {why}" for view in views for key, why in view.items()), MAX_PROBLEMS))

    def _answered(self, _: None) -> None:
        self._missing -= 1
        if self._missing == 0 and not self.synced.called:
            self.synced.callback(None)


class _Mirror(Generic[P, V]):
    """One view, and what follows from its news: *put* for each change.

    :param resyncing: called before a resync's records are put.
    :param unreadable: called while records cannot be read.
    """

    log = Logger()

    def __init__(
        self, view: View[P, V], put: Callable[[P, V | None], None], *, resyncing: Callable[[], None] = lambda: None,
        unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self.prefix = view.prefix
        self.view = view
        self.answered: Deferred[None] = Deferred()
        self._put = put
        self._resyncing = resyncing
        self._unreadable = unreadable
        self.revision = 0
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def when(self, true: Callable[[], bool]) -> Deferred[None]:
        """Fires once *true* answers True, which is asked after each event."""
        waited: Deferred[None] = Deferred(self._forget)
        self._waiting.append((true, waited))
        self._arrived()
        return waited

    def _forget(self, waited: Deferred[None]) -> None:
        self._waiting = [each for each in self._waiting if each[1] is not waited]

    def _arrived(self) -> None:
        due = [waited for true, waited in self._waiting if true()]
        self._waiting = [each for each in self._waiting if each[1] not in due]
        for waited in due:
            waited.callback(None)

    def deliver(self, event: Event) -> None:
        news = self.view.take(event)
        if self.view.problems:
            self._unreadable()
        if news.resync:
            self._resyncing()
        for place, value in news.changed.items():
            try:
                self._put(place, value)
            except Exception:  # one that cannot be followed must not stop the others
                self.log.failure("{place} of the store could not be applied", place=place)
        self.revision = news.revision
        self._arrived()
        if not self.answered.called:
            self.answered.callback(None)


async def seed(store: Store, keys: Keys, services: Mapping[str, Service]) -> None:
    """Bring an embedded store up to the file's services, as the module says."""
    for name, spec in services.items():
        text = msgspec.json.encode(spec)
        remembered = await store.get(keys.boot(name))
        if remembered is None or remembered.value != text:
            await _seed(store, keys, name, remembered, text)
    for record in (await store.list(keys.boots())).records:
        place = keys.parse(record.key)
        if isinstance(place, BootKey) and place.service not in services:
            await _seed(store, keys, place.service, record, None)


def _changed(name: str, before: bytes, after: bytes) -> Iterator[str]:
    """The places of a service that the admin changed; records that cannot be read tell nothing."""
    try:
        specs = [{name: decode(value, Service)} for value in (before, after)]
    except Unreadable:
        return
    for step in plan(*specs):
        yield from (step.place(change) for change in step.changes)


async def _seed(store: Store, keys: Keys, name: str, remembered: Record | None, text: bytes | None) -> None:
    """Make a service what the file says (None: it is there no more), and remember that."""
    both = (keys.service(name), keys.boot(name))
    operations = [Delete(key) if text is None else Put(key, text) for key in both]
    stored = await store.get(keys.service(name))
    seen = zip(both, (stored, remembered), strict=True)
    if stored is not None and remembered is not None:
        lost = ", ".join(_changed(name, remembered.value, stored.value)) if stored.value != text else ""
        if lost:
            _log.warn("service {name} becomes what the file says, which has changed; changes made by the admin are gone: "
                      "{lost}", name=name, lost=lost)
    when = [Compare(key, 0 if record is None else record.mod_revision) for key, record in seen]
    if not (await store.commit(operations, when=when)).succeeded:
        raise Misuse(f"service {name!r} of an embedded store changed while it was read")
