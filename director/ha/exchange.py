"""What directors tell each other all the time over the peer link: that they live, reports that the other misses, and where
clients stay. `director.core.forwarding` decides about reports, the sticky tables about their entries.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from cluster.model import HostRef
from cluster.peer_wire import MAX_COUNTS, MAX_ENTRIES, MAX_REFS, Alive, Entries, Forwarded, Missing, Reports, batches
from director.core.forwarding import FRESH_S, Forwarding
from director.core.schedulers.sticky import StickyTable
from director.engine.node import Node
from director.engine.telling import tell_each
from director.ha.peers import Peers
from director.reports.attendance import Attendance

#: Messages of sticky entries at one beat, for each peer and table: 20,000 entries a second, 100 KB a message. A larger burst
#: waits for the next beat.
ENTRIES_PER_BEAT = 25

T = TypeVar("T")


class Exchange:
    """Attached to *peers*; works while they do.

    :param store_answers: whether this director reaches the shared store.
    :param caps: what this director says of shared maxima, by service (`Alive.caps`).
    :ivar alive: what each linked peer said last.
    """

    def __init__(self, peers: Peers, node: Node, attendance: Attendance, *, store_answers: Callable[[], bool],
                 fresh_s: float = FRESH_S, caps: Callable[[], dict[str, tuple[int, int, int]]] = dict) -> None:
        self.alive: dict[str, Alive] = {}
        self._caps = caps
        self.on_alive: list[Callable[[str], None]] = []
        self._peers = peers
        self._node = node
        self._attendance = attendance
        self._store_answers = store_answers
        self._forwarding = Forwarding(self._heard_at, fresh_s=fresh_s)
        self._exports: dict[str, deque[tuple[str, str, Sequence[tuple[bytes, str, float]]]]] = {}
        peers.on_joined.append(self._joined)
        peers.on_left.append(self._left)
        peers.on_beat.append(self.beat)
        peers.hear(Alive, self._alive)
        peers.hear(Missing, self._missing)
        peers.hear(Reports, self._reports)
        peers.hear(Entries, self._entries)

    def in_flight(self, ref: HostRef) -> dict[str, int | None]:
        """Open connections of a draining host at each linked peer; None: the peer has not said (yet)."""
        return {name: alive.draining.get(str(ref)) for name, alive in self.alive.items()}

    # --- out

    def beat(self) -> None:
        now = self._node.monotonic()
        change = self._forwarding.look(self._node.inventory.hosts, now)
        news = [Missing(add=chunk) for chunk in _chunks(list(map(str, change.add)), MAX_REFS)]
        news += [Missing(remove=chunk) for chunk in _chunks(list(map(str, change.remove)), MAX_REFS)]
        entries = self._changed_entries(now)
        alive = self._own()
        for peer in self._peers.names:
            self._peers.send(peer, alive)
            for each in news:
                self._peers.send(peer, each)
            for batch in batches(self._due(peer, now)):
                self._peers.send(peer, batch, droppable=True)
            for message in entries:
                self._peers.send(peer, message, droppable=True)
            self._export(peer, now)

    def _own(self) -> Alive:
        drains = islice(self._node.inventory.drains(), MAX_COUNTS)
        return Alive(
            store=self._store_answers(), draining={str(entry.ref): entry.host.in_flight for entry, _ in drains},
            caps=dict(islice(self._caps().items(), MAX_COUNTS)),
        )

    def _due(self, peer: str, now: float) -> Iterator[Forwarded]:
        for ref, age_s in self._forwarding.due(peer, now):
            report = self._node.inventory.hosts[ref].report
            if report is not None:
                yield Forwarded(host=str(ref), age_s=age_s, load=report)

    def _tables(self) -> Iterator[tuple[str, str, StickyTable]]:
        for service in self._node.inventory.services.values():
            for group in service.groups.values():
                if isinstance(group.pool.scheduler, StickyTable):
                    yield service.name, group.name, group.pool.scheduler

    def _changed_entries(self, now: float) -> list[Entries]:
        messages = []
        for service, group, table in self._tables():
            table.share()
            for _ in range(ENTRIES_PER_BEAT):
                changes = table.changes(MAX_ENTRIES, now)
                if not changes:
                    break
                wire = [(client.hex(), host, left_s) for client, host, left_s in changes]
                messages.append(Entries(service=service, group=group, entries=wire))
        return messages

    def _export(self, peer: str, now: float) -> None:
        """A part of all that is remembered, to a peer that joined."""
        exports = self._exports.get(peer)
        for _ in range(ENTRIES_PER_BEAT):
            if not exports:
                return
            service, group, entries = exports[0]
            wire = [(client.hex(), host, until - now) for client, host, until in entries if now < until]
            if wire and not self._peers.send(peer, Entries(service=service, group=group, entries=wire), droppable=True):
                return  # later
            exports.popleft()

    def _joined(self, peer: str) -> None:
        missing = sorted(map(str, self._forwarding.missing))
        self._peers.send(peer, Missing(all=True, add=missing[:MAX_REFS]))
        for chunk in _chunks(missing[MAX_REFS:], MAX_REFS):
            self._peers.send(peer, Missing(add=chunk))
        self._exports[peer] = deque(
            (service, group, chunk)
            for service, group, table in self._tables() for chunk in _chunks(table.everything(), MAX_ENTRIES)
        )
        self._peers.send(peer, self._own())

    def _left(self, peer: str, _: bool) -> None:
        self.alive.pop(peer, None)
        self._exports.pop(peer, None)
        self._forwarding.left(peer)

    # --- in

    def _heard_at(self, ref: HostRef) -> float:
        entry = self._node.inventory.hosts.get(ref)
        return -math.inf if entry is None else entry.reported_at

    def _alive(self, peer: str, alive: Alive) -> None:
        self.alive[peer] = alive
        tell_each(self.on_alive, peer)

    def _missing(self, peer: str, missing: Missing) -> None:
        add, remove = (list(map(HostRef.parse, refs)) for refs in (missing.add, missing.remove))
        self._forwarding.wants(peer, add, remove, anew=missing.all)

    def _reports(self, peer: str, reports: Reports) -> None:
        now = self._node.monotonic()
        for each in reports.reports:
            ref = HostRef.parse(each.host)
            if ref in self._node.inventory.hosts and self._forwarding.take(ref, each.age_s, now):
                self._attendance.relayed(ref, each.load, each.age_s)

    def _entries(self, peer: str, entries: Entries) -> None:
        service = self._node.inventory.services.get(entries.service)
        group = service.groups.get(entries.group) if service is not None else None
        if group is not None and isinstance(group.pool.scheduler, StickyTable):
            learned = ((bytes.fromhex(client), host, left_s) for client, host, left_s in entries.entries)
            group.pool.scheduler.learn(learned, self._node.monotonic())


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
