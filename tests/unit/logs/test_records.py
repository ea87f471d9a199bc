"""`director.logs.records`: what syslog and the journal are sent of an event."""

from __future__ import annotations

import os
import struct
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.log.backlog import MAX_LINE
from director.logs.records import MAX_FIELDS, journal_record, severity, syslog_records
from tests.unit.logs.test_lines import event


def fields(record: bytes) -> dict[str, bytes]:
    """As the journal reads them."""
    found: dict[str, bytes] = {}
    while record:
        line, _, record = record.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", record[:8])
            value, end, record = record[8 : 8 + size], record[8 + size : 9 + size], record[9 + size :]
            assert end == b"\n"
        assert name.decode() not in found
        found[name.decode()] = value
    return found


def failed() -> Failure:
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        return Failure()


class SyslogTests(SynchronousTestCase):
    def setUp(self) -> None:
        zone = os.environ.get("TZ")
        os.environ["TZ"] = "UTC"
        time.tzset()
        self.addCleanup(time.tzset)
        self.addCleanup(lambda: os.environ.pop("TZ") if zone is None else os.environ.update(TZ=zone))

    def test_a_record(self) -> None:
        """Facility and severity, local time, who, and the text."""
        self.assertEqual(list(syslog_records(event(level=LogLevel.error), "web listens", pid=7)),
                         [b"<27>Jan 31 12:00:00 director[7]: web listens"])

    def test_each_line_is_a_record(self) -> None:
        records = list(syslog_records(event(), "one\n    two\u2028é", pid=7))
        self.assertEqual([each.partition(b": ")[2].decode() for each in records], ["one", "    two\u2028é"])

    def test_severities(self) -> None:
        """Every level has one, worse ones a lower one."""
        found = [severity(event(level=level)) for level in LogLevel.iterconstants()]
        self.assertEqual(found, [7, 6, 4, 3, 2])


class JournalTests(SynchronousTestCase):
    def test_fields(self) -> None:
        """The journal's own, and the event's under a name that none of the journal's has."""
        found = fields(journal_record(event(level=LogLevel.warn, count=3, MESSAGE="forged", _PID=1, log_id=5)))
        self.assertEqual((found["MESSAGE"], found["PRIORITY"], found["SYSLOG_IDENTIFIER"]), (b"web listens", b"4", b"director"))
        self.assertEqual((found["TXDIRECTOR_COUNT"], found["TXDIRECTOR_MESSAGE"]), (b"3", b"forged"))
        self.assertEqual(found["TXDIRECTOR__PID"], b"1")
        self.assertNotIn("TXDIRECTOR_LOG_ID", found)

    def test_nothing_is_forged(self) -> None:
        """Line ends in values begin no field; a message is one line; a traceback is whole."""
        found = fields(journal_record(event(a="x\nPRIORITY=0\n", log_failure=failed())))
        self.assertEqual(found["PRIORITY"], b"6")
        self.assertEqual(found["MESSAGE"], rb"x\x0aPRIORITY=0\x0a listens")
        self.assertIn(b"ValueError: bad\nthing", found["TXDIRECTOR_TRACEBACK"])

    @given(st.text(min_size=1, max_size=5), st.integers(1, 30_000))
    def test_bounded(self, piece: str, times: int) -> None:
        """Whatever an event holds, its record is whole and fits a line."""
        many = {f"field{number}": piece * times for number in range(2 * MAX_FIELDS)}
        record = journal_record(event(a=piece * times, log_namespace=piece * times, **many))
        self.assertLessEqual(len(record), MAX_LINE)
        self.assertGreater(len(fields(record)), MAX_FIELDS)
