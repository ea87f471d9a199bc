"""The sections of the state that passes."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from director.handover.sections import VERSIONS, read, write
from director.metrics.carried import Counted


class RecordTests(SynchronousTestCase):
    def test_read(self) -> None:
        """What was written is read; what is missing, of another version or of another form is not there."""
        counted = Counted(samples=[("a_total", [("service", "web")], 2.0)])
        version, data = write("counted", counted)
        self.assertEqual(version, VERSIONS["counted"])
        self.assertEqual(read({"counted": (version, data)}, "counted", Counted), counted)
        for sections in ({}, {"counted": (version + 1, data)}, {"counted": (version, b"\xc1")},
                         {"counted": (version, msgspec.msgpack.encode([1]))}):
            self.assertIsNone(read(sections, "counted", Counted))

    def test_new_fields(self) -> None:
        """Fields of a newer release are left out."""
        data = msgspec.msgpack.encode({"samples": [], "hosts": [], "moons": 3})
        self.assertEqual(read({"counted": (VERSIONS["counted"], data)}, "counted", Counted), Counted())
