"""A lease of etcd: renewed in time, lost when in doubt.

The promise counts from the moment a question was *sent* that was answered, on a clock that runs on while the machine
sleeps. When it has run out without another answer the lease is lost for good, even if etcd should still know it: its
holder must not act on what nobody promised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import StoreUnavailable

#: A renewal is a question to etcd's memory: no disk, no consensus. Four for each time to live, so that two in a row may
#: fail.
RENEWALS_PER_TTL = 4
#: For a lease of a second at most: the more of it is left at any moment, the sooner its holder's successor may act
#: (`director.core.vip.SHARE`).
SHORT_TTL_S, SHORT_RENEWALS = 1.0, 8
#: A renewal comes earlier by up to this share of its interval. etcd looks for dead leases every half second; a lease that
#: was asked for when another's end was seen and is renewed in step with that would end right after a look, and be found
#: by the next.
JITTER = 0.2
#: An unanswered question makes the endpoint suspect after this share of the time to live: enough is left for another.
PATIENCE = 0.35


class EtcdLease:
    """A `cluster.store.Lease`.

    :param sent: boot time when the grant was asked for.
    :param ask: sends a renewal, with a deadline in seconds; fires with the time to live promised, 0 for none.
    :param end: revokes.
    :param random: uniform in [0, 1).
    :param over: called once, when the lease is lost or revoked.
    """

    log = Logger()

    def __init__(self, number: int, ttl_s: float, sent: float, *, ask: Callable[[int, float], Deferred[float]],
                 end: Callable[[int], Deferred[None]], over: Callable[[int], None], reactor: Any,
                 boottime: Callable[[], float], random: Callable[[], float]) -> None:
        self.id = number
        self.ttl_s = ttl_s
        self.lost: Deferred[None] = Deferred()
        self._live = True
        self._interval_s = ttl_s / (SHORT_RENEWALS if ttl_s <= SHORT_TTL_S else RENEWALS_PER_TTL)
        self.until = sent + ttl_s  #: boot time
        self._ask = ask
        self._end = end
        self._over = over
        self._reactor = reactor
        self._boottime = boottime
        self._random = random
        self._timer: IDelayedCall | None = None
        self._wait()

    def remaining_s(self) -> float:
        return max(0.0, self.until - self._boottime()) if self._live else 0.0

    def revoke(self) -> Deferred[None]:
        if not self._live:
            return succeed(None)
        self.forget()
        return self._end(self.id)

    def forget(self) -> None:
        """Renew no more; etcd lets the lease run out."""
        if self._live:
            self._live = False
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._over(self.id)

    def _wait(self) -> None:
        interval_s = self._interval_s * (1.0 - JITTER * self._random())
        self._timer = self._reactor.callLater(min(interval_s, self.remaining_s()), self._due)

    def _due(self) -> None:
        if self.remaining_s() > 0:
            self._renew()
            self._wait()
        else:
            self._lose()

    def _renew(self) -> None:
        sent = self._boottime()
        self._ask(self.id, self.ttl_s * PATIENCE).addCallbacks(
            lambda ttl_s: self._answered(sent, ttl_s), lambda failure: self._unanswered(sent, failure)
        ).addErrback(lambda failure: self.log.failure("lease {id:x} could not be renewed", failure, id=self.id))

    def _answered(self, sent: float, ttl_s: float) -> None:
        if not self._live:
            return
        if ttl_s > 0:
            self.until = max(self.until, sent + ttl_s)
        else:
            self._lose()

    def _unanswered(self, sent: float, failure: Failure) -> None:
        failure.trap(StoreUnavailable)
        # What failed slowly is tried again at once, by now at another endpoint; what fails fast waits for its turn.
        if self.remaining_s() > 0 and self._boottime() - sent > self._interval_s:
            self._renew()

    def _lose(self) -> None:
        if self._live:
            self.forget()
            self.lost.callback(None)
