"""How long each part of a client's connection may take: a service's timeouts, as a relay is told them. Pure."""

from __future__ import annotations

from collections.abc import Callable

from cluster.model import Timeouts
from director.core.pool import Ticket
from director.relay.interface import Limits
from director.traffic.tries import MAX_TRIES, Tries

#: The last of a client's tries may begin when its time is all but up. A relay takes 0 for "no limit".
LEAST_CONNECT_S = 0.001


class TimeLimits:
    """One service's.

    :param random: uniform in [0, 1), for the jitter of the maximum age.
    """

    def __init__(self, timeouts: Timeouts, *, random: Callable[[], float]) -> None:
        self._timeouts = timeouts
        self._random = random
        half_closed_s = timeouts.idle_s if timeouts.half_closed_s is None else timeouts.half_closed_s
        #: of a first try, by the number of tries that share the connect deadline
        self._first = [
            Limits(timeouts.connect_s / max(1, tries), timeouts.idle_s, half_closed_s)
            for tries in range(MAX_TRIES + 1)
        ]

    def of_try(self, tries: Tries | None, eligible: int, ways_left: int, now: float) -> Limits:
        """Of a connect to a host: the tries that are left share the time until the deadline, and so do the *ways_left* to
        this host, which are its addresses.

        :param tries: what is known of earlier ones; None: there was none.
        :param eligible: hosts that a client of the service may be given to.
        """
        if tries is None or not tries.deadline:
            limits = self._first[min(MAX_TRIES, eligible)]
        else:
            tries_left = max(1, min(MAX_TRIES - tries.failed, eligible))
            limits = self._first[1]._replace(connect_s=max(LEAST_CONNECT_S, (tries.deadline - now) / tries_left))
        if self._timeouts.max_age_s:
            jitter = self._timeouts.max_age_jitter * (2.0 * self._random() - 1.0)
            limits = limits._replace(max_age_s=self._timeouts.max_age_s * (1.0 + jitter))
        if ways_left > 1:
            limits = limits._replace(connect_s=limits.connect_s / ways_left)
        return limits

    def deadline(self, tries: Tries | None, ticket: Ticket) -> float:
        """Of all tries; counted from the first pick."""
        return tries.deadline if tries is not None and tries.deadline else ticket.picked_at + self._timeouts.connect_s
