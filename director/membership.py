"""This director among the living: its record under a lease, and the records of the others.

What dies with a director's process (its observations, its summary) lies under the same lease: `lease` is it, and *on_lease*
is told of each new one, since everything must be written again then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.keys import DirectorKey, Keys
from cluster.model import Member
from cluster.store import Event, Lease, Put, Store, Watch
from cluster.view import View
from director.telling import tell_each

#: Longer than an etcd member's death or a partition that heals by itself takes; what directors decide by is the leader's
#: lease, the peer link and their own eyes, never this.
TTL_S = 10.0
#: After a lease that was not granted or that was lost.
RETRY_S = 1.0


class Membership(Service):
    """Registers *member* while it runs.

    :ivar members: by name, this director included once the store says so; a new mapping with each change.
    """

    log = Logger()

    def __init__(self, store: Store, keys: Keys, member: Member, *, reactor: Any) -> None:
        self.setName("membership")
        self.members: dict[str, Member] = {}
        self.lease: Lease | None = None
        self.on_lease: list[Callable[[Lease], None]] = []
        self.on_members: list[Callable[[], None]] = []
        self._member = member
        self._store = store
        self._keys = keys
        self._reactor = reactor
        self._view = View(keys, keys.directors(), DirectorKey, Member, keep=True)
        self._watch: Watch | None = None
        self._retry: Any = None
        self._joining: Deferred[None] | None = None

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        self._watch = self._store.watch(self._view.prefix, self._deliver)
        self._join()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        lease, self.lease = self.lease, None
        if lease is None:
            return None
        return lease.revoke().addErrback(
            lambda failure: self.log.info("the membership lapses: {why}", why=failure.getErrorMessage()))

    def _join(self) -> None:
        self._retry = None
        Deferred.fromCoroutine(self._register()).addErrback(self._not_joined)

    async def _register(self) -> None:
        lease = await self._store.lease(TTL_S)
        if not self.running:
            await lease.revoke()
            return
        self.lease = lease
        lease.lost.addCallback(self._lost)
        value = msgspec.json.encode(self._member)
        await self._store.commit([Put(self._keys.director(self._member.name), value, lease.id)])
        tell_each(self.on_lease, lease)

    def _not_joined(self, failure: Failure) -> None:
        self.log.warn("not registered among the directors yet: {why}", why=failure.getErrorMessage())
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.revoke().addErrback(lambda _: None)  # it lapses
        self._again()

    def _lost(self, _: None) -> None:
        self.log.warn("the store let this director's membership lapse; joining again")
        self.lease = None
        self._again()

    def _again(self) -> None:
        if self.running and self._retry is None:
            self._retry = self._reactor.callLater(RETRY_S, self._join)

    def _deliver(self, event: Event) -> None:
        self._view.take(event)
        self.members = {place.director: member for place, member in self._view.values.items()}
        tell_each(self.on_members)
