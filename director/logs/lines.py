"""One line for each event, as text for people or as JSON for machines.

A log line never spans lines: what clients or files put into a message cannot forge another event. Tracebacks follow
their event, indented (text), or are a field of it (JSON).
"""

from __future__ import annotations

import datetime
import json

import msgspec
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


def text_line(event: LogEvent) -> str:
    """``2026-01-31T12:00:00.123Z info  [director.node] web listens on 0.0.0.0:80``"""
    level = event.get("log_level", LogLevel.info).name
    return f"{_time(event)} {level:<5} {brief_text(event)}"


def brief_text(event: LogEvent) -> str:
    """Without time and level."""
    line = f"[{event.get('log_namespace', '-')}] {escaped(formatEvent(event))}"
    return line + "".join(f"\n    {escaped(each)}" for each in traceback_of(event).splitlines())


def json_line(event: LogEvent) -> str:
    """An object: ``time``, ``level``, ``namespace``, ``message``, ``traceback`` if any, and the event's own fields."""
    fields = {key: value for key, value in event.items() if not key.startswith("log_") and key.isidentifier()}
    fields |= {
        "time": _time(event),
        "level": event.get("log_level", LogLevel.info).name,
        "namespace": event.get("log_namespace", "-"),
        "message": formatEvent(event),
    }
    if traceback := traceback_of(event):
        fields["traceback"] = traceback
    try:
        return msgspec.json.encode(fields, enc_hook=str).decode()
    except (ValueError, TypeError):  # half a surrogate pair, a key that is no text
        return json.dumps(fields, default=str, skipkeys=True)


def escaped(text: str) -> str:
    """Without line ends, escapes and other controls."""
    return text.translate(_CONTROLS)


def _time(event: LogEvent) -> str:
    at = datetime.datetime.fromtimestamp(event.get("log_time", 0.0), datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def traceback_of(event: LogEvent) -> str:
    """Empty without a failure."""
    failure = event.get("log_failure")
    return failure.getTraceback() if isinstance(failure, Failure) else ""
