"""Keeping a client on its host, around any scheduler.

`StickyHash` computes the host and remembers nothing, so that all directors agree, before and after any of them dies.
`StickyTable` lets the scheduler choose once and remembers; directors may tell each other what they remember, best effort.
A client whose host is not eligible goes elsewhere: by hash until the host returns, by table for good, since that is where
its session lives from then on.

Clients without an address (UNIX sockets) are left to the scheduler.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from typing import TypeAlias

from cluster.model import LoadReport, Reason, Sticky
from director.core.host import Host
from director.core.schedulers.base import Parts, Scheduler
from director.core.schedulers.maglev import Maglev


def with_sticky(scheduler: Scheduler, config: Sticky, *, previous: Scheduler | None = None) -> Scheduler:
    """*scheduler*, made sticky.

    :param previous: what is being replaced; if it is a table as well, its clients stay where they are.
    """
    if config.mode == "hash":
        return StickyHash(scheduler)
    table = StickyTable(scheduler, ttl_s=config.ttl_s, max_entries=config.max_entries)
    if isinstance(previous, StickyTable):
        table.inherit(previous)
    return table


class Around:
    """Passes everything on to the scheduler inside."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._inner = scheduler

    def configure(self, hosts: Collection[Host]) -> None:
        self._inner.configure(hosts)

    def add(self, host: Host) -> None:
        self._inner.add(host)

    def remove(self, host: Host) -> None:
        self._inner.remove(host)

    def reweigh(self, host: Host) -> None:
        self._inner.reweigh(host)

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        self._inner.picked(host, client, now)

    def closed(self, host: Host, duration_s: float, reason: Reason, now: float) -> None:
        self._inner.closed(host, duration_s, reason, now)

    def reported(self, host: Host, report: LoadReport, now: float) -> None:
        self._inner.reported(host, report, now)

    def turned(self, host: Host, count: int, total_s: float, now: float) -> None:
        self._inner.turned(host, count, total_s, now)

    def rule(self, client: bytes | None, now: float) -> str:
        return self._inner.rule(client, now)

    def parts(self, host: Host, now: float) -> Parts:
        return self._inner.parts(host, now)

    def looking(self, now: float) -> AbstractContextManager[None]:
        return self._inner.looking(now)

    @property
    def resolved(self) -> str:
        return self._inner.resolved

    @property
    def entries(self) -> int:
        return self._inner.entries

    def cleanup(self, now: float) -> int:
        return self._inner.cleanup(now)


class StickyHash(Around):
    """Clients with an address by `Maglev`, whatever the scheduler inside."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self._maglev = Maglev(_never)

    def configure(self, hosts: Collection[Host]) -> None:
        super().configure(hosts)
        self._maglev.configure(hosts)

    def add(self, host: Host) -> None:
        super().add(host)
        self._maglev.add(host)

    def remove(self, host: Host) -> None:
        super().remove(host)
        self._maglev.remove(host)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        return (self._inner if client is None else self._maglev).pick(client, exclude, now)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return (self._inner if client is None else self._maglev).preview(client, now)

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        return (self._inner if client is None else self._maglev).factors(host, client, now)

    def rule(self, client: bytes | None, now: float) -> str:
        if client is None:
            return self._inner.rule(client, now)
        return f"is not asked: clients stick to hosts by their addresses, and Maglev {self._maglev.rule(client, now)}"

    def parts(self, host: Host, now: float) -> Parts:
        return self._maglev.parts(host, now)


def _never() -> float:
    raise AssertionError("a client with an address needs no draw")


#: A host's name (one that was removed and configured again is the same place to its clients), until when it counts, and
#: until when others were told that it does. Plain tuples, for one is made with each connection.
_Memory: TypeAlias = tuple[str, float, float]
#: What directors tell each other: a client, its host's name, and for how many seconds it still counts.
Entry: TypeAlias = tuple[bytes, str, float]

#: Others are told anew of a client that stays once its time has grown by this share of the whole.
TOLD_SHARE = 0.25


class StickyTable(Around):
    """Clients where they were, for *ttl_s* after their last connection began; the longest unseen make room.

    After `share` it notes what others should know: `changes` hands that out.
    """

    def __init__(self, scheduler: Scheduler, *, ttl_s: float, max_entries: int) -> None:
        super().__init__(scheduler)
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._table: OrderedDict[bytes, _Memory] = OrderedDict()  # the longest unseen first
        self._eligible: dict[str, Host] = {}
        self._changed: dict[bytes, None] | None = None

    def inherit(self, other: StickyTable) -> None:
        """Take over what *other* remembers, to the end of the times that it gave."""
        self._table = other._table.copy()
        while len(self._table) > self._max_entries:
            self._table.popitem(last=False)

    def add(self, host: Host) -> None:
        super().add(host)
        self._eligible[host.name] = host

    def remove(self, host: Host) -> None:
        super().remove(host)
        del self._eligible[host.name]

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        host = self._remembered(client, now)
        if host is None or host in exclude:
            return self._inner.pick(client, exclude, now)
        return host

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        super().picked(host, client, now)
        if client is None:
            return
        name, until, told = host.ref.host, now + self._ttl_s, 0.0
        if self._changed is not None:
            before = self._table.get(client)
            if before is None or before[0] != name or until - before[2] > TOLD_SHARE * self._ttl_s:
                self._changed[client] = None
                told = until
            else:
                told = before[2]
        self._table[client] = (name, until, told)
        self._table.move_to_end(client)
        if len(self._table) > self._max_entries:
            self._table.popitem(last=False)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self._remembered(client, now) or self._inner.preview(client, now)

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        memory = self._memory(client, now)
        numbers = self._inner.factors(host, client, now)
        if memory is None or memory[0] != host.name:
            return {"remembered": 0.0, **numbers}
        return {"remembered": 1.0, "forgotten_in_s": memory[1] - now, **numbers}

    def rule(self, client: bytes | None, now: float) -> str:
        memory = self._memory(client, now)
        if memory is None:
            return self._inner.rule(client, now)
        if memory[0] in self._eligible:
            return f"is not asked: the sticky table remembers {memory[0]} for another {memory[1] - now:.0f} s"
        return (f"{self._inner.rule(client, now)}; the sticky table remembers {memory[0]}, which takes no connections "
                "now, and forgets it with this one")

    @property
    def entries(self) -> int:
        return len(self._table)

    def cleanup(self, now: float) -> int:
        forgotten = 0
        while self._table and next(iter(self._table.values()))[1] <= now:
            self._table.popitem(last=False)
            forgotten += 1
        return forgotten

    def until(self, client: bytes, now: float) -> float | None:
        """How long *client*'s host counts, eligible or not; None: it is not remembered."""
        memory = self._memory(client, now)
        return memory[1] if memory is not None else None

    # --- with other directors

    def share(self) -> None:
        """Note from now on what others should know; all that is remembered already is part of it."""
        if self._changed is None:
            self._changed = dict.fromkeys(self._table)

    def changes(self, most: int, now: float) -> list[Entry]:
        """Up to *most* clients that others were not told of; they count as told."""
        entries: list[Entry] = []
        while self._changed and len(entries) < most:
            client = next(iter(self._changed))
            del self._changed[client]
            memory = self._memory(client, now)
            if memory is not None:
                entries.append((client, memory[0], memory[1] - now))
        return entries

    def everything(self) -> list[tuple[bytes, str, float]]:
        """All that is remembered, each until when, the longest unseen first; for a director that has just come."""
        return [(client, name, until) for client, (name, until, _) in self._table.items()]

    def learn(self, entries: Iterable[Entry], now: float) -> None:
        """What another director remembers. Where both do, whoever saw the client later is right."""
        for client, name, left_s in entries:
            until = now + min(left_s, self._ttl_s)
            before = self._table.get(client)
            if before is None or before[1] < until:
                self._table[client] = (name, until, until)
                self._table.move_to_end(client)
        while len(self._table) > self._max_entries:
            self._table.popitem(last=False)

    def _memory(self, client: bytes | None, now: float) -> _Memory | None:
        memory = self._table.get(client) if client is not None else None
        return memory if memory is not None and now < memory[1] else None

    def _remembered(self, client: bytes | None, now: float) -> Host | None:
        memory = self._memory(client, now)
        return self._eligible.get(memory[0]) if memory is not None else None
