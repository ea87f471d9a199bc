"""Clients that are waited for, so many and no more, and who has to go when another one comes.

A network (`director.core.arrivals.network_of`) that has more than its share, which is the same for all that are there, gives
way first: so one that opens connections and says nothing closes its own, and not those of others who are slow. Who goes is
the one of it that has had the most time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)


class Crowd(Generic[W]):
    """:param most: at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._network: dict[W, bytes] = {}  # in the order of coming
        self._of: dict[bytes, dict[W, None]] = {}

    def __len__(self) -> int:
        return len(self._network)

    def __iter__(self) -> Iterator[W]:
        return iter(self._network)

    def join(self, who: W, network: bytes) -> None:
        """It waits from now on."""
        self._network[who] = network
        self._of.setdefault(network, {})[who] = None

    def leave(self, who: W) -> None:
        """It waits no longer, or never did."""
        network = self._network.pop(who, None)
        if network is not None:
            del self._of[network][who]
            if not self._of[network]:
                del self._of[network]

    def too_many(self, newcomer: W) -> W | None:
        """Who has to go, now that *newcomer* has joined; None: there is room."""
        if len(self._network) <= self._most:
            return None
        share = max(1.0, self._most / len(self._of))
        crowded = self._of[self._network[newcomer]]
        if len(crowded) <= share:
            if share < 2:  # so many networks that none has much: it is not worth the search
                return next(iter(self._network))
            crowded = max(self._of.values(), key=len)
        return next(iter(crowded))
