"""Where the log goes: lines (`director.logs.lines`) to a stream or a file, records (`director.logs.records`) to syslog or
the journal.

Writing never waits (`cluster.log.writer`) and storms are summed up (`cluster.log.storms`), but not the access log: who turns
it on wants every client.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
)
from zope.interface import implementer

from cluster.log.channel import opened, standard
from cluster.log.datagrams import Datagrams, receiver
from cluster.log.storms import EACH, Storms
from cluster.log.writer import Channels, LineWriter
from cluster.model import Logging, Reason
from director.logs.lines import brief_text, json_line, text_line
from director.logs.records import journal_record, syslog_records

if TYPE_CHECKING:
    from director.traffic.connection import Closed, Connection

#: Between tries to open a file anew: its directory has no room, or is not there.
REOPEN_S = 5.0

_FORMATS: dict[str, Callable[[LogEvent], str]] = {"text": text_line, "json": json_line}
#: In syslog, which has the time and the level itself.
_BRIEF_FORMATS: dict[str, Callable[[LogEvent], str]] = {"text": brief_text, "json": json_line}


@implementer(ILogObserver)
class Output:
    """A log's target. Twisted's own chatter below a warning shows only at level ``debug``.

    :param streams: the standard ones, by name; None for one that is closed.
    :raises OSError: the target cannot be written.
    """

    log = Logger()

    def __init__(self, config: Logging, *, reactor: Any, streams: Mapping[str, IO[str] | None] | None = None) -> None:
        self._streams = {"stderr": sys.stderr, "stdout": sys.stdout} if streams is None else streams
        self._reactor = reactor
        self.target = config.target
        self._kind, self._place = receiver(config.target) or ("", "")
        self._format = (_BRIEF_FORMATS if self._kind else _FORMATS)[config.format]
        self._writer = LineWriter(self._open(), self._told, reactor=reactor)
        self._storms = Storms(self._write, reactor=reactor)
        self._reopening: Any = None
        self.set_level(config.level)

    @property
    def dropped(self) -> int:
        """Lines that were never written, because the target took none for too long."""
        return self._writer.dropped

    def set_level(self, level: str) -> None:
        """Show events of *level* and above from now on."""
        self._levels = LogLevelFilterPredicate(LogLevel.levelWithName(level))
        if level == "info":
            for namespace in ("twisted", "log_legacy"):
                self._levels.setLogLevelForNamespace(namespace, LogLevel.warn)

    def __call__(self, event: LogEvent) -> None:
        if self._levels(event) is not PredicateResult.no:
            self._storms(event)

    def reopen(self) -> str:
        """Open the file anew under its name, after it was moved away, and only then close the old one; for log rotation.
        The standard streams stay as they are; syslog and the journal are connected to anew.

        :returns: why it cannot be opened; empty when all is well. The old one is written to then, and the new one is
            tried again every `REOPEN_S`.
        """
        if self.target in self._streams:
            return ""
        tried_before = self._stop_trying()
        try:
            channel = self._open()
        except OSError as error:
            why = error.strerror or str(error)
            self._reopening = self._reactor.callLater(REOPEN_S, self._try_again)
            if not tried_before:
                self.log.error("cannot reopen the log, the old file is written to, and it is tried again every "
                               "{seconds:g} s: {why}", seconds=REOPEN_S, why=why)
            return why
        self._writer.replace(channel)
        if tried_before:
            self.log.info("the log is open again")
        return ""

    def close(self) -> None:
        """Write what waits and close the file. Waits a bounded time for a target that takes nothing."""
        self._stop_trying()
        self._storms.finish()
        self._writer.close()

    def _write(self, event: LogEvent) -> None:
        for record in self._records(event):
            self._writer.write(record)

    def _records(self, event: LogEvent) -> Iterable[bytes]:
        """Of a stream or file one, which is a line and its traceback's."""
        if self._kind == "journal":
            return (journal_record(event),)
        if self._kind == "syslog":
            return syslog_records(event, self._format(event), pid=os.getpid())
        return ((self._format(event) + "\n").encode(errors="backslashreplace"),)

    def _told(self, count: int) -> bytes:
        (record,) = self._records({
            "log_time": time.time(), "log_level": LogLevel.warn, "log_namespace": __name__, "count": count,
            "log_format": "{count} lines were dropped here: the log was not read, or its disk was full or too slow",
        })
        return record

    def _open(self) -> Channels:
        if self._kind:
            return Datagrams(self._place)
        return standard(self._streams[self.target]) if self.target in self._streams else opened(self.target)

    def _try_again(self) -> None:
        self.reopen()

    def _stop_trying(self) -> bool:
        trying, self._reopening = self._reopening, None
        if trying is not None and trying.active():
            trying.cancel()
        return trying is not None


# --- one line for each connection -------------------------------------------------------------------------


class AccessRecord(NamedTuple):
    """What the access log tells of one client."""

    client: str  #: address as text
    service: str
    group: str  #: empty, as *host*, when no host was picked
    host: str
    reason: Reason
    to_host: int  #: bytes
    to_client: int  #: bytes
    waited_s: float  #: from accept to the pick of the last host tried; all of its life when there was none
    duration_s: float  #: from accept to the end


_access = Logger(namespace="director.access")


def log_access(record: AccessRecord) -> None:
    """Write one line, with every field of *record* by name (and as fields in JSON)."""
    _access.info(
        "{client} service={service} group={group} host={host} reason={reason} to_host={to_host} to_client={to_client} "
        "waited_s={waited_s} duration_s={duration_s}",
        **{
            EACH: True,
            **record._asdict(),
            "reason": record.reason.value,
            "waited_s": round(record.waited_s, 6),
            "duration_s": round(record.duration_s, 6),
        },
    )


def access_log(config: Logging) -> Closed | None:
    """Who is to be told of closed connections; None when the access log is off."""
    return _log_closed if config.access else None


def _log_closed(connection: Connection, reason: Reason, to_host: int, to_client: int, now: float) -> None:
    ticket = connection.ticket
    log_access(
        AccessRecord(
            client=connection.peer,
            service=connection.frontend.service.name,
            group="" if ticket is None else ticket.host.ref.group,
            host="" if ticket is None else ticket.host.name,
            reason=reason,
            to_host=to_host,
            to_client=to_client,
            waited_s=(now if ticket is None else ticket.picked_at) - connection.accepted_at,
            duration_s=now - connection.accepted_at,
        )
    )
