"""Which agents' reports directors forward to each other: those that the other misses, each once.

Each side keeps, and tells the other as it changes, the set of hosts that it *misses*: those whose last report of its own is
older than `fresh_s`. The other forwards what it hears itself and has not forwarded before. While every agent reaches
every director nobody misses anything, and nothing is sent; hosts without any agent are missed once and for all.

Pure: what is heard is asked through functions; times are monotonic seconds of one director and never leave it, only ages do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from cluster.model import HostRef

#: Of a report, when it is forwarded and when it is taken: two report intervals of 1 s. It is below the default
#: ``suspect_after_s``, so that what another director hears comes before a suspicion.
FRESH_S = 2.0


class Delta(NamedTuple):
    """Hosts whose reports this director has begun to miss (*add*), and misses no more (*remove*)."""

    add: tuple[HostRef, ...]
    remove: tuple[HostRef, ...]


class Forwarding:
    """One director's side towards all others.

    :param heard_at: when this director itself last had a report of a host (minus infinity: never).
    """

    def __init__(self, heard_at: Callable[[HostRef], float], *, fresh_s: float = FRESH_S) -> None:
        self._heard_at = heard_at
        self._fresh_s = fresh_s
        self._missing: set[HostRef] = set()
        self._wanted: dict[str, set[HostRef]] = {}  # by peer
        self._forwarded: dict[str, dict[HostRef, float]] = {}  # by peer: when what was forwarded last had been heard
        self._taken: dict[HostRef, float] = {}  # when what others forwarded had been heard by them

    @property
    def missing(self) -> frozenset[HostRef]:
        """What this director misses, for a peer that has just come."""
        return frozenset(self._missing)

    def look(self, hosts: Iterable[HostRef], now: float) -> Delta:
        """What changed in what is missed, to be told to every peer; *hosts* are all that are known."""
        missing = {ref for ref in hosts if not self._fresh(ref, now)}
        change = Delta(tuple(sorted(missing - self._missing)), tuple(sorted(self._missing - missing)))
        self._missing = missing
        for ref in change.remove:
            self._taken.pop(ref, None)
        return change

    # --- what peers miss

    def wants(self, peer: str, add: Collection[HostRef], remove: Collection[HostRef], *, anew: bool) -> None:
        """*peer* told what it misses."""
        wanted = self._wanted.setdefault(peer, set())
        forwarded = self._forwarded.setdefault(peer, {})
        if anew:
            wanted.clear()
            forwarded.clear()
        wanted.update(add)
        wanted.difference_update(remove)
        for ref in remove:
            forwarded.pop(ref, None)

    def left(self, peer: str) -> None:
        """*peer* is linked no more."""
        self._wanted.pop(peer, None)
        self._forwarded.pop(peer, None)

    def due(self, peer: str, now: float) -> list[tuple[HostRef, float]]:
        """Hosts whose last report is to be forwarded to *peer* now, with its age; it counts as forwarded."""
        forwarded = self._forwarded.get(peer, {})
        found = []
        for ref in self._wanted.get(peer, ()):
            heard_at = self._heard_at(ref)
            if now - heard_at <= self._fresh_s and heard_at > forwarded.get(ref, heard_at - 1):
                forwarded[ref] = heard_at
                found.append((ref, now - heard_at))
        return found

    # --- what peers forward

    def take(self, ref: HostRef, age_s: float, now: float) -> bool:
        """Whether a report that another director had *age_s* ago is news here: still fresh, newer than what others
        forwarded, and nothing of this director's own is fresh."""
        heard_at = now - age_s
        if age_s > self._fresh_s or self._fresh(ref, now) or heard_at <= self._taken.get(ref, heard_at - 1):
            return False
        self._taken[ref] = heard_at
        return True

    def _fresh(self, ref: HostRef, now: float) -> bool:
        return now - self._heard_at(ref) <= self._fresh_s
