"""Who serves a port."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from agent.owner import PortOwner, Process, listening, process, roots, tree
from tests.unit.agent.machine_tree import Machine

NET = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 901 1 0 100 0 0 10 0",
    "   1: 00000000:0051 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 902 1 0 100 0 0 10 0",
    "   2: 0100007F:0050 0100007F:D431 03 00000000:00000000 00:00000000 00000000     0        0 0 1 0",
    "   3: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 903 1 0 100 0 0 10 0",
    "   4: 0100007F:0050 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 904 1 0",
    "   5: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 905 1 0",
]


class Parsing(SynchronousTestCase):
    def test_listening(self) -> None:
        """The inodes of the port's listening sockets; reading ends where connections begin."""
        self.assertEqual(listening(NET, 80), {"901", "903"})
        self.assertEqual(listening([], 80), set())

    def test_process(self) -> None:
        """A name may have blanks and parentheses; children that were waited for count."""
        stat = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 99 1 2"
        self.assertEqual(process(stat), Process(3, 127))
        self.assertRaises(ValueError, process, "7 (a) S 3")
        self.assertRaises(ValueError, process, "")

    def test_roots(self) -> None:
        """A master and its workers share the socket: the master. Init holds sockets for others."""
        processes = {1: Process(0, 0), 5: Process(1, 0), 6: Process(5, 0), 7: Process(5, 0), 9: Process(1, 0)}
        self.assertEqual(roots([7, 5, 6], processes), (5,))
        self.assertEqual(roots([1, 5, 6, 9], processes), (5, 9))
        self.assertEqual(roots([1], processes), (1,))

    def test_tree(self) -> None:
        """All descendants, once each."""
        processes = {1: Process(0, 0), 5: Process(1, 0), 6: Process(5, 0), 8: Process(6, 0), 9: Process(1, 0)}
        self.assertEqual(sorted(tree([5], processes)), [5, 6, 8])
        self.assertEqual(tree([77], processes), [])


class Finding(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine = Machine(Path(tempfile.mkdtemp()))
        self.clock = Clock()
        self.owner = PortOwner(80, monotonic=self.clock.seconds, root=str(self.machine.root))

    def test_found_and_found_again(self) -> None:
        """The owner is found, kept while it holds the socket, and sought anew when it does not."""
        self.assertEqual(self.owner.pids(), ())
        self.machine.listen(80, inode=901)
        self.machine.process(50, parent=1, ticks=30, sockets=[901])
        self.machine.process(51, parent=50, ticks=12, sockets=[901])
        self.machine.process(52, parent=1, ticks=5, sockets=[7])
        self.assertEqual(self.owner.pids(), (50,))
        self.assertAlmostEqual(self.owner.used_s(), 42 / os.sysconf("SC_CLK_TCK"))
        self.machine.end(50)
        self.machine.listen(80, inode=902)
        self.machine.process(60, parent=1, ticks=1, sockets=[902])
        self.assertEqual(self.owner.pids(), (60,))

    def test_searches_cost_their_share_at_most(self) -> None:
        """A search that takes long and finds nothing is not repeated at once."""
        self.machine.listen(80, inode=901)
        seconds = iter([0.0, 0.1, 1.0, 5.2, 5.2])
        owner = PortOwner(80, monotonic=lambda: next(seconds), root=str(self.machine.root))
        self.assertEqual(owner.pids(), ())
        self.machine.process(50, parent=1, ticks=30, sockets=[901])
        self.assertEqual(owner.pids(), ())
        self.assertEqual(owner.pids(), (50,))
