"""Reading the past: a watch from an old revision, until what it tells agrees with what is there."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from cluster.errors import StoreUnavailable
from cluster.etcd.past import Past
from cluster.etcd.records import Heard
from cluster.etcd.watching import Watching

#: Silence that ends a replay which agrees; etcd looks for those that lag behind every 0.1 s.
QUIET_S = 0.4
#: For the whole replay; then somebody had better ask etcd itself.
REPLAY_S = 10.0


class _Replay:
    """Feeds a `Past`; *done* fires with 0, or with the revision before which all was compacted away."""

    def __init__(self, past: Past, *, reactor: Any) -> None:
        self.active = True
        self.done: Deferred[int] = Deferred()
        self._past = past
        self._reactor = reactor
        self._quiet: IDelayedCall | None = None
        self._late = reactor.callLater(REPLAY_S, self._end, StoreUnavailable(f"etcd has not told its past in {REPLAY_S} s"))

    def heard(self, answer: Heard) -> None:
        if answer.cancelled:
            refused = StoreUnavailable(f"etcd does not tell its past: {answer.why}")
            self._end(answer.compacted or refused)
            return
        for changes in answer.changes:
            self._past.take(changes)
        if self._past.certain:
            self._end(0)
            return
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = self._reactor.callLater(QUIET_S, self._end, 0) if self._past.agrees else None

    def _end(self, outcome: Any) -> None:
        self.active = False
        for timer in (self._quiet, self._late):
            if timer is not None and timer.active():
                timer.cancel()
        if isinstance(outcome, StoreUnavailable):
            self.done.errback(outcome)
        else:
            self.done.callback(outcome)


async def replayed(watching: Watching, prefix: str, start: int, past: Past, *, reactor: Any) -> int:
    """Feed *past* with what happened under *prefix* from *start* on.

    :returns: 0, or the revision of the compaction that has removed *start*; nothing was fed then.
    :raises StoreUnavailable: etcd is away, refuses, or takes too long.
    """
    replay = _Replay(past, reactor=reactor)
    stream = watching.replay(prefix, start, replay)
    try:
        return await replay.done
    finally:
        stream.cancel(replay)
