"""Clients that the kernel has connected and that wait to be accepted: how many there are, may be, and were turned away."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from director.ports.binding import BACKLOG

#: The most that Linux grants a listener, whatever it asks for.
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
#: Counters of this network namespace: of all its listeners, not only ours.
NETSTAT = Path("/proc/net/netstat")

#: The beginning of ``struct tcp_info`` (linux/tcp.h). Of a listening socket *unacked* is its queue, *sacked* what it may be.
_TCP_INFO = struct.Struct("=8B6I")


def granted(file: Path = SOMAXCONN) -> int:
    """Of the backlog that a listener asks for, what it gets."""
    try:
        return min(BACKLOG, int(file.read_text()))
    except (OSError, ValueError):
        return BACKLOG


def queue_of(sock: socket.socket) -> tuple[int, int] | None:
    """Of a listening socket over TCP: clients that wait to be accepted, and how many may."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:  # a UNIX socket
        return None
    waiting, most = _TCP_INFO.unpack(info)[12:14]
    return waiting, most


def turned_away(file: Path = NETSTAT) -> dict[str, int]:
    """``ListenOverflows``: handshakes dropped because a listener's queue was full; ``ListenDrops``: for whatever reason."""
    try:
        lines = [line.split() for line in file.read_text().splitlines() if line.startswith("TcpExt:")]
        found = dict(zip(*lines, strict=True))
        return {name: int(found[name]) for name in ("ListenOverflows", "ListenDrops")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class BacklogCollector:
    """A prometheus-client collector.

    :param queues: of each listener: its service, its address, who waits, who may.
    """

    def __init__(self, queues: Callable[[], Iterable[tuple[str, str, int, int]]], *, netstat: Path = NETSTAT) -> None:
        self._queues = queues
        self._netstat = netstat

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("txdirector_listen_queue", "Clients that wait to be accepted.",
                                    labels=("service", "address"))
        most = GaugeMetricFamily("txdirector_listen_backlog", "Clients that may: the kernel drops the handshakes of more.",
                                 labels=("service", "address"))
        for service, address, now, limit in self._queues():
            waiting.add_metric((service, address), now)
            most.add_metric((service, address), limit)
        yield waiting
        yield most
        counts = turned_away(self._netstat)
        for name, text, key in (
            ("overflows", "Handshakes dropped because a queue was full, by any listener of this network namespace.",
             "ListenOverflows"),
            ("drops", "Handshakes dropped for whatever reason, by any listener of this network namespace.", "ListenDrops"),
        ):
            if key in counts:
                yield CounterMetricFamily(f"txdirector_listen_{name}", text, value=counts[key])
