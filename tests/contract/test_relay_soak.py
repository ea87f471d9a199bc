"""Thousands of connections through a whole director, with every byte compared; nothing piles up inside.

``SOAK_CONNECTIONS`` says how many; ``make soak`` has 200,000.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from director.relay.choice import native_missing
from tests.clients.kit import Director, wait_until
from tests.contract.relay_soak import Loop

CONNECTIONS = int(os.environ.get("SOAK_CONNECTIONS") or (20_000 if os.environ.get("CI") else 3_000))
#: Of both sides, at once.
WIDTH = 150
#: Until then the director has taken what memory it needs.
WARM_UP = CONNECTIONS // 4
#: What the interpreter's heap may still come to; two hundred bytes a connection would be ten times that in `make soak`.
GROWTH_BYTES = 4_000_000


class SoakTests(SynchronousTestCase):
    @contextlib.contextmanager
    def through(self, relay: str) -> Iterator[tuple[Loop, Director]]:
        loop = Loop(WIDTH)
        self.addCleanup(loop.stop)
        with tempfile.TemporaryDirectory() as directory:
            hosts = {"only": f"127.0.0.1:{loop.listener.getsockname()[1]}"}
            director = Director(relay, hosts, Path(directory), service="soak")
            try:
                yield loop, director
                self.assertEqual(director.stop(), 0)
            finally:
                director.end()

    def soak(self, relay: str) -> None:
        with self.through(relay) as (loop, director):
            at_rest: list[tuple[int, int]] = []
            for numbers in (range(WARM_UP), range(WARM_UP, CONNECTIONS)):
                loop.run(("127.0.0.1", director.port), numbers)
                self.assertEqual(loop.wrong, [])
                wait_until(lambda: director.total("txdirector_relay_open_connections") == 0, "the last one ends")
                at_rest.append((director.descriptors(), director.memory()))
            (descriptors, memory), (descriptors_after, memory_after) = at_rest
            self.assertEqual(descriptors_after, descriptors)
            self.assertLess(memory_after - memory, GROWTH_BYTES)
            self.assertEqual(director.total("txdirector_connections_accepted_total"), CONNECTIONS)
            self.assertEqual(director.total("txdirector_connections_ended_total"), CONNECTIONS)
            for reason in ("relay_error", "connect_failed", "no_host"):
                ended = rf'txdirector_connections_ended_total{{reason="{reason}",service="soak"}} 0.0'
                self.assertIn(ended, director.metrics_text())

    def test_native(self) -> None:
        """The native relay: not one byte wrong or missing, every end as it was made, descriptors and memory flat."""
        if why := native_missing():
            if os.environ.get("CI"):
                raise AssertionError(why)
            raise SkipTest(why)
        self.soak("native")

    def test_python(self) -> None:
        """The Python relay: the same."""
        self.soak("python")
