"""What this director lacked, and what for: counted each time, told once a second at most."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product

from prometheus_client.core import CounterMetricFamily, Metric
from twisted.logger import Logger

from cluster.shortage import ACCEPTS, CONNECTIONS, DESCRIPTORS, MEMORY, PORTS, PROCESSES
from director.timing.seldom import Seldom, more

#: What it was needed for.
ACCEPT, CONNECT, PROBE, LOOKUP = "accept", "connect", "probe", "lookup"
_WHAT = (DESCRIPTORS, MEMORY, PORTS, PROCESSES)
_FOR = (ACCEPT, CONNECT, PROBE, LOOKUP)
_PAIRS = (*product(_WHAT, _FOR), (CONNECTIONS, ACCEPT), (ACCEPTS, ACCEPT))


class Shortages:
    """One for a director; everybody who meets a shortage tells it."""

    log = Logger()

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seldom = Seldom(monotonic=monotonic)
        self.counts: Counter[tuple[str, str]] = Counter()  #: by what was lacked, and what for

    def met(self, what: str, purpose: str, detail: str) -> None:
        """*what* (`cluster.shortage`) was lacked for *purpose*; *detail* says in words whom it hit."""
        self.counts[what, purpose] += 1
        held = self._seldom.due((what, purpose))
        if held is not None:
            self.log.warn("out of {what}: {detail}{more}", what=what, detail=detail, more=more(held))

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "txdirector_shortages", "What this director lacked itself, and what for.", labels=("of", "for"))
        for what, purpose in _PAIRS:
            family.add_metric((what, purpose), self.counts[what, purpose])
        yield family
