"""This director among the living: its record under a lease, and the records of the others.

What dies with a director's process (its observations, its summary) lies under the same lease: `lease` is it, and *on_lease*
is told of each new one, since everything must be written again then.

A name is one director's. Who starts claims it before anything is served under it (`Membership.claim`); a record that
somebody deleted is written again; and whatever a director writes under its name compares `Membership.fence`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import StoreUnavailable
from cluster.keys import DirectorKey, Keys
from cluster.model import Member
from cluster.store import Compare, Event, Lease, Put, Record, Store, Watch
from cluster.view import Unreadable, View, decode
from director.engine.telling import tell_each
from director.ha.whereabouts import has_ended
from director.timing.seldom import Seldom, more

#: Longer than an etcd member's death or a partition that heals by itself takes; what directors decide by is the leader's
#: lease, the peer link and their own eyes, never this.
TTL_S = 10.0
#: After a lease that was not granted or that was lost.
RETRY_S = 1.0
#: Between lines about that: etcd may be away or full for hours.
UNREGISTERED_EVERY_S = 60.0
#: Beyond the time to live until a dead director's record has certainly lapsed: etcd looks twice a second.
CLAIM_MARGIN_S = 2.0
#: No record was ever written at it.
_NEVER = 2**62


class NameTaken(Exception):
    """Another director has this one's name.

    :ivar lives: for certain; else it may have died within the last seconds.
    """

    def __init__(self, why: str, *, lives: bool) -> None:
        super().__init__(why)
        self.lives = lives


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
        self._key = keys.director(member.name)
        self._revision = 0  #: of this process's record; 0: there is none
        self._stopped = False
        self._adopted = False  # the record tells of another process still
        self._store = store
        self._keys = keys
        self._reactor = reactor
        self._view = View(keys, keys.directors(), DirectorKey, Member, keep=True)
        self._watch: Watch | None = None
        self._retry: Any = None
        self._joining = False
        self._seldom = Seldom(monotonic=reactor.seconds, every_s=UNREGISTERED_EVERY_S)

    async def claim(self) -> None:
        """Have the name before anything is served under it, so that no two directors have one. What a process that has
        ended left there is replaced; what may be another's is waited for until it must have lapsed.

        :raises NameTaken: another director has it. With the store away the name is claimed later.
        """
        patience = self._reactor.seconds() + TTL_S + CLAIM_MARGIN_S
        while True:
            try:
                await self._register()
                return
            except StoreUnavailable as error:
                self.log.warn("not registered among the directors yet: {why}", why=error)
                return
            except NameTaken as error:
                if error.lives or self._reactor.seconds() >= patience:
                    raise
                self.log.info("{why}; waiting for up to {seconds:g} s", why=error, seconds=TTL_S + CLAIM_MARGIN_S)
            await deferLater(self._reactor, RETRY_S)

    @property
    def problems(self) -> dict[str, str]:
        """Records of members that cannot be read."""
        return self._view.problems

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        self._stopped = False
        self._watch = self._store.watch(self._view.prefix, self._deliver)
        if self.lease is not None:
            self._tell(self.lease)
        if self.lease is None or self._adopted:
            self._join()

    # --- from one process to the next

    @property
    def revision(self) -> int:
        """Of this director's record; 0: there is none."""
        return self._revision

    def adopt(self, lease: Lease, revision: int) -> None:
        """Go on with the lease and the record of another process of this director; before the start."""
        lease.lost.addCallback(self._lost)
        self.lease, self._revision, self._adopted = lease, revision, True

    def let_go(self) -> None:
        """Another process has both now."""
        self._stopped = True
        self.lease, self._revision = None, 0
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self._stopped = True
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        lease, self.lease, self._revision = self.lease, None, 0
        if lease is None:
            return None
        return lease.revoke().addErrback(
            lambda failure: self.log.info("the membership lapses: {why}", why=failure.getErrorMessage()))

    def _join(self) -> None:
        self._retry = None
        if not self._joining:
            self._joining = True
            Deferred.fromCoroutine(self._joined()).addErrback(self._not_joined)

    async def _joined(self) -> None:
        fresh = self.lease is None
        try:
            await self._register()
        finally:
            self._joining = False
        if fresh and self.lease is not None:
            self._tell(self.lease)

    async def _register(self) -> None:
        """Write the record, unless another director has the name. Under the present lease, or a new one."""
        record = await self._store.get(self._key)
        if record is not None and not self._is_mine(record):
            self._yield_to(record)
        lease = self.lease
        if lease is None:
            lease = await self._store.lease(TTL_S)
            lease.lost.addCallback(self._lost)
        found = 0 if record is None else record.mod_revision
        try:
            committed = await self._store.commit([Put(self._key, msgspec.json.encode(self._member), lease.id)],
                                                 when=[Compare(self._key, found)])
            if not committed.succeeded:
                raise NameTaken(f"another director is starting under the name {self._member.name!r}", lives=False)
        except BaseException:
            self.lease = lease
            self._give_up()
            raise
        self.lease, self._revision = lease, committed.revision
        if self._stopped:
            self._give_up()

    def _is_mine(self, record: Record) -> bool:
        try:
            return decode(record.value, Member).boot_id == self._member.boot_id
        except Unreadable:
            return True  # nobody's

    def _yield_to(self, record: Record) -> None:
        """:raises NameTaken: unless the other process has certainly ended."""
        rival = decode(record.value, Member)
        ended = has_ended(rival.process)
        if not ended:
            where = rival.admin[0] if rival.admin else rival.peers or "an unknown address"
            raise NameTaken(f"another director of the cluster has the name {rival.name!r}: its admin is at {where}, it "
                            f"started {datetime.fromtimestamp(rival.started, UTC):%Y-%m-%d %H:%M:%S} UTC; each needs a "
                            "node.name of its own", lives=ended is False)

    def _give_up(self) -> None:
        lease, self.lease, self._revision = self.lease, None, 0
        if lease is not None:
            lease.revoke().addErrback(lambda _: None)  # it lapses

    def _tell(self, lease: Lease) -> None:
        tell_each(self.on_lease, lease)

    def fence(self) -> Compare:
        """True while this process's record stands: nothing else may be written under this director's name."""
        return Compare(self._key, self._revision or _NEVER)

    def _not_joined(self, failure: Failure) -> None:
        held = self._seldom.due("unregistered")
        if held is not None:
            self.log.warn("not registered among the directors yet: {why}{more}", why=failure.getErrorMessage(),
                          more=more(held))
        self._again()

    def _lost(self, _: None) -> None:
        self.log.warn("the store let this director's membership lapse; joining again")
        self.lease, self._revision = None, 0
        self._again()

    def _again(self) -> None:
        if self.running and self._retry is None:
            self._retry = self._reactor.callLater(RETRY_S, self._join)

    def _deliver(self, event: Event) -> None:
        news = self._view.take(event)
        written = self._view.revisions.get(self._key, 0)
        if self.lease is not None and self._revision and news.revision >= self._revision > written:
            self.log.warn("this director's record is gone from the store; writing it again")
            self._revision = 0
            self._join()
        self.members = {place.director: member for place, member in self._view.values.items()}
        tell_each(self.on_members)
