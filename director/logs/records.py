"""Events as syslog and the journal take them: each record is one datagram. Pure.

**syslog**: RFC 3164 as local daemons have it, ``<30>Jan 31 12:00:00 director[123]: message``; a traceback's lines are
records of their own, since a record is a line.

**The journal**: its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL), fields of any content. The event's own
are ``TXDIRECTOR_…``, so that none can pass for one of the journal's.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

from twisted.logger import LogEvent, LogLevel, formatEvent

from cluster.log.backlog import MAX_LINE
from director.logs.lines import escaped, traceback_of

IDENTIFIER = "director"
#: syslog's number for daemons, in the place that a priority has for it.
_DAEMON = 3 << 3
#: Of syslog(3), by our levels.
SEVERITIES = {
    LogLevel.debug: 7, LogLevel.info: 6, LogLevel.warn: 4, LogLevel.error: 3, LogLevel.critical: 2,
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Fields of one event in the journal, and bytes of each: a record has room for one line of the backlog, and must be whole.
MAX_FIELDS = 24
MAX_VALUE = 500
#: Bytes of the message, and of the traceback, whose end tells most.
MAX_MESSAGE = 16_000
MAX_TRACEBACK = 24_000
#: The journal takes no longer names.
_MAX_NAME = 64 - len("TXDIRECTOR_")


def syslog_records(event: LogEvent, text: str, *, pid: int) -> Iterator[bytes]:
    """One for each line of *text*, which is the message, with its traceback if any."""
    at = time.localtime(event.get("log_time", 0.0))
    head = (f"<{_DAEMON | severity(event)}>{_MONTHS[at.tm_mon - 1]} {at.tm_mday:2} {at.tm_hour:02}:{at.tm_min:02}:"
            f"{at.tm_sec:02} {IDENTIFIER}[{pid}]: ")
    for line in text.split("\n"):
        yield (head + line).encode(errors="backslashreplace")


def journal_record(event: LogEvent) -> bytes:
    """All that is known of an event."""
    fields = {
        "MESSAGE": _cut(escaped(formatEvent(event)), MAX_MESSAGE),
        "PRIORITY": b"%d" % severity(event),
        "SYSLOG_IDENTIFIER": IDENTIFIER.encode(),
        "SYSLOG_FACILITY": b"%d" % (_DAEMON >> 3),
        "TXDIRECTOR_NAMESPACE": _cut(str(event.get("log_namespace", "-")), MAX_VALUE),
    }
    if traceback := traceback_of(event):
        fields["TXDIRECTOR_TRACEBACK"] = _cut(traceback, -MAX_TRACEBACK)
    own = [key for key in event if not key.startswith("log_") and key.isidentifier() and key.isascii()]
    for key in own[:MAX_FIELDS]:
        fields.setdefault(f"TXDIRECTOR_{key.upper()[:_MAX_NAME]}", _cut(str(event[key]), MAX_VALUE))
    record = b"".join(_field(name, value) for name, value in fields.items())
    assert len(record) <= MAX_LINE
    return record


def severity(event: LogEvent) -> int:
    return SEVERITIES.get(event.get("log_level", LogLevel.info), 6)


def _cut(text: str, most: int) -> bytes:
    """The first *most* bytes of *text*, or the last of a negative *most*; no character is cut in two."""
    data = text.encode(errors="backslashreplace")
    kept = data[:most] if most > 0 else data[most:]
    return data if len(kept) == len(data) else kept.decode(errors="ignore").encode()


def _field(name: str, data: bytes) -> bytes:
    """With its length where it has several lines."""
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
