"""TLS of ports: certificates are looked at though nobody connects. What peers are shown is in `tests/integration`."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.renewal import LOOK_S
from director.ports.tls import Renewal


class Files:
    """Some of `Renewed`: how often they were looked at."""

    looks = 0
    problem = ""

    def look(self, *, anyway: bool = False) -> bool:
        self.looks += 1
        return False


class RenewalTests(SynchronousTestCase):
    def test_looks(self) -> None:
        """Every port's files are looked at at the start and every `LOOK_S`, until the service stops; started again it goes on."""
        clock, files = Clock(), [Files(), Files()]
        watched: Any = files
        renewal = Renewal(lambda: watched, reactor=clock)
        for _ in range(2):
            before = files[0].looks
            renewal.startService()
            for _ in range(3):
                clock.advance(LOOK_S)
            self.assertEqual([each.looks - before for each in files], [4, 4])
            renewal.stopService()
            clock.advance(10 * LOOK_S)
            self.assertEqual(files[0].looks - before, 4)
        self.assertEqual(clock.getDelayedCalls(), [])
