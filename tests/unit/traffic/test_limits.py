"""How long each part of a connection may take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Timeouts
from director.core.pool import Ticket
from director.traffic.limits import LEAST_CONNECT_S, TimeLimits
from director.traffic.tries import Tries

NOW = 1000.0


def ticket() -> Ticket:
    """Picked at `NOW`."""
    return cast(Ticket, SimpleNamespace(picked_at=NOW))


def limits(**timeouts: Any) -> TimeLimits:
    return TimeLimits(Timeouts(**timeouts), random=lambda: 0.75)


def later(failed: int, deadline: float) -> Tries:
    tries = Tries()
    tries.failed, tries.deadline = failed, deadline
    return tries


class TimeLimitTests(SynchronousTestCase):
    def test_first_try(self) -> None:
        """As many tries as there can be share the connect deadline."""
        for eligible, share_s in ((0, 6.0), (1, 6.0), (2, 3.0), (3, 2.0), (50, 2.0)):
            self.assertEqual(limits(connect_s=6.0).of_try(None, eligible, 1, NOW).connect_s, share_s, eligible)

    def test_header_only(self) -> None:
        """What is kept for a PROXY header is no try."""
        self.assertEqual(limits(connect_s=6.0).of_try(Tries(), 3, 1, NOW).connect_s, 2.0)

    def test_later_tries(self) -> None:
        """Those left share what is left, and there is always a moment."""
        of = limits(connect_s=6.0).of_try
        self.assertEqual(of(later(1, NOW + 5), 9, 1, NOW + 1).connect_s, 2.0)
        self.assertEqual(of(later(2, NOW + 5), 9, 1, NOW + 1).connect_s, 4.0)
        self.assertEqual(of(later(1, NOW + 5), 0, 1, NOW + 1).connect_s, 4.0)
        self.assertEqual(of(later(1, NOW + 5), 1, 1, NOW + 9).connect_s, LEAST_CONNECT_S)

    def test_addresses_share(self) -> None:
        self.assertEqual(limits(connect_s=6.0).of_try(None, 1, 3, NOW).connect_s, 2.0)

    def test_half_closed(self) -> None:
        """As idle, unless it is configured."""
        self.assertEqual(limits(idle_s=7.0).of_try(None, 1, 1, NOW)[1:3], (7.0, 7.0))
        self.assertEqual(limits(idle_s=7.0, half_closed_s=2.0).of_try(None, 1, 1, NOW)[1:3], (7.0, 2.0))

    def test_max_age(self) -> None:
        """Varies by the jitter, either way; 0 stays none."""
        self.assertEqual(limits(max_age_s=100.0, max_age_jitter=0.5).of_try(None, 1, 1, NOW).max_age_s, 125.0)
        self.assertEqual(limits().of_try(None, 1, 1, NOW).max_age_s, 0.0)

    def test_deadline(self) -> None:
        """One for all tries, from the first pick."""
        self.assertEqual(limits(connect_s=6.0).deadline(None, ticket()), NOW + 6)
        self.assertEqual(limits(connect_s=6.0).deadline(Tries(), ticket()), NOW + 6)
        self.assertEqual(limits(connect_s=6.0).deadline(later(1, NOW + 2), ticket()), NOW + 2)
