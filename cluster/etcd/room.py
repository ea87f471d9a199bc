"""Whether etcd has room for what is written, now and later.

A member whose database reaches ``--quota-backend-bytes`` raises an alarm, and etcd then refuses every write and lease,
for everybody, until somebody compacts, defragments and disarms the alarm. It gets there by history: each write is kept
until a compaction. etcd does not tell its compactions; whether a revision can still be read does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from cluster.errors import Misuse, StoreUnavailable
from cluster.etcd.client import rpc
from cluster.etcd.connection import Caller, Compacted

#: Between looks, a call for an answer from etcd's memory each; the alarm's own goes through consensus.
LOOK_S = 60.0
#: While nothing can be written: who made room wants to see it.
LOOK_AGAIN_S = 5.0
#: Without a compaction for so long, and so many revisions on, nobody compacts: etcd's ``--auto-compaction-retention`` is
#: usually an hour, at most some hours.
UNCOMPACTED_S, UNCOMPACTED_REVISIONS = 24 * 3600.0, 10_000
#: A director that has just started takes so much history for the same: some 500 MB of the default quota of 2 GB.
MOST_REVISIONS = 1_000_000
#: No key is here; etcd only looks whether it still has the revision.
_NO_KEY = b"\0"

REMEDY = ('make room: etcdctl compact REVISION; etcdctl defrag --cluster; etcdctl alarm disarm '
          "(docs/operations/etcd-space.md)")
FULL = f"etcd is out of space: it refuses every write, and whoever leads has no successor; {REMEDY}"
GROWS = ("etcd's history only grows: it was not compacted for a day, or keeps more than a million revisions; start etcd "
         "with --auto-compaction-retention (docs/operations/etcd-space.md)")


class Room:
    """Looks now and then while it runs, and hears of what was written and refused.

    :ivar writable: as far as is known.
    :ivar size_bytes: of the database of the member that answered last; 0: not known.
    :ivar grows: nobody compacts.
    """

    log = Logger()

    def __init__(self, caller: Caller, *, reactor: Any) -> None:
        self.writable = True
        self.size_bytes = 0
        self.grows = False
        self._caller = caller
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._revision = 0  #: whose compaction is waited for
        self._since = 0.0
        self._kept = False  #: more than `MOST_REVISIONS`, when first looked

    @property
    def problems(self) -> tuple[str, ...]:
        """What an operator should mend, a sentence each."""
        return (FULL,) * (not self.writable) + (GROWS,) * self.grows

    def start(self) -> None:
        self._look()

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def wrote(self) -> None:
        """A write was taken."""
        if not self.writable:
            self.writable = True
            self.log.info("etcd takes writes again")

    def refused(self) -> None:
        """A write was refused for want of space."""
        if self.writable:
            self.writable = False
            self.log.error("{why}", why=FULL)
            if self._timer is not None and self._timer.active():
                self._timer.reset(LOOK_AGAIN_S)

    def _look(self) -> None:
        Deferred.fromCoroutine(self._looked()).addErrback(
            lambda failure: self.log.failure("etcd's space could not be looked at", failure)
        ).addBoth(lambda _: self._later())

    def _later(self) -> None:
        if not self._stopped:
            self._timer = self._reactor.callLater(LOOK_S if self.writable else LOOK_AGAIN_S, self._look)

    async def _looked(self) -> None:
        try:
            full = await self._ask(lambda to: to.maintenance.Alarm, rpc.AlarmRequest(action=rpc.AlarmRequest.GET),
                                   lambda answer: any(each.alarm == rpc.NOSPACE for each in answer.alarms))
            self.size_bytes, revision = await self._ask(lambda to: to.maintenance.Status, rpc.StatusRequest(),
                                                        lambda answer: (answer.dbSize, answer.header.revision))
            await self._compare(revision)
        except (StoreUnavailable, Misuse) as error:  # etcd is away, or tells this to root only
            self.log.debug("etcd does not tell of its space: {why}", why=error)
            return
        if full:
            self.refused()
        else:
            self.wrote()

    async def _compare(self, revision: int) -> None:
        """Look for a compaction. *revision*: the present one, or of a member that lags behind."""
        now = self._reactor.seconds()
        if not self._revision:
            self._kept = revision > MOST_REVISIONS and await self._has(revision - MOST_REVISIONS)
            self._revision, self._since = revision, now
        elif not await self._has(self._revision):
            self._revision, self._since, self._kept = revision, now, False
        elif self._kept and not await self._has(revision - MOST_REVISIONS):
            self._kept = False
        grew = self._kept or (now - self._since >= UNCOMPACTED_S and revision - self._revision >= UNCOMPACTED_REVISIONS)
        if grew and not self.grows:
            self.log.warn("{why}", why=GROWS)
        self.grows = grew

    async def _has(self, revision: int) -> bool:
        """Whether *revision* was not compacted yet."""
        try:
            await self._ask(lambda to: to.kv.Range, rpc.RangeRequest(key=_NO_KEY, revision=revision, limit=1),
                            lambda answer: None)
        except Compacted:
            return False
        return True

    async def _ask(self, method: Callable[[Any], Any], request: Any, read: Callable[[Any], Any]) -> Any:
        return await self._caller.call(method, request, read)
