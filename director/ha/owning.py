"""Leadership and virtual addresses apart: who leads, and who owns one address, each by promises (`director.ha.reigning`).

The leader's record says whether addresses are *spread* (each has a record, a term and an owner of its own) or are the
leader's, all of them. A director that would take all of them by leading does not lead where they are spread, so no address
has two kinds of owner. Who leads, and takes none by that, turns the record from one to the other before any address has a
record of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from cluster.keys import AddressKeys
from cluster.model import Leader, Member
from cluster.store import Committed, Operation, Put, Record, Store
from cluster.takeover import Transaction, as_written, operations
from cluster.view import Unreadable, decode
from director.ha.reigning import Reigning


class Presiding(Reigning):
    """The leadership, where addresses may be spread.

    :param spread: whether this director takes addresses one by one (True), all by leading (False), or none at all (None).
    :ivar spread_said: whether the record says that they are spread.
    """

    def __init__(self, *arguments: Any, spread: bool | None, **more: Any) -> None:
        self.spread_said = False
        self._spread = spread
        self._together = spread is False
        super().__init__(*arguments, **more)

    def _sight(self, records: Sequence[Record], revision: int) -> None:
        key = self._keys.leader()
        for record in records:
            if record.key == key:
                with contextlib.suppress(Unreadable):  # is told by `sighted`
                    self.spread_said = decode(record.value, Leader).spread
        super()._sight(records, revision)

    def _operations(self, transaction: Transaction) -> list[Operation]:
        spread = self.spread_said if self._spread is None else self._spread
        return operations(transaction, self._keys, self._wall(), spread=spread)

    def declare(self) -> Deferred[Committed | None]:
        """As the leader: have the record say that addresses are spread."""
        know = self._machine.know
        if not self._spread or self.spread_said or know is None or know.reign is None or not self.leads:
            return succeed(None)
        reign = know.reign._replace(term=self._machine.term)
        written = Put(self._keys.leader(), as_written(reign, self._wall(), spread=True))
        declared: Deferred[Any] = self.fenced([written])
        return declared


class Owning(Reigning):
    """The ownership of one address. `stopService` hands it over.

    :param prefer: whom to hand over to, if that director is able.
    """

    known_text = "{leader} owns {address}, term {term}"
    gained_text = "{director} owns {address}, term {term}"
    lost_text = "{director} owns {address} no more, term {term}: {why}"

    def __init__(self, store: Store, keys: AddressKeys, link: Any, *, prefer: Callable[[], str | None], **more: Any) -> None:
        super().__init__(store, keys, link, **more)
        self.address = keys.address
        self.setName(f"owning {self.address}")
        self._about = {"address": self.address}
        self._prefer = prefer

    def _directory(self, members: Mapping[str, Member]) -> tuple[frozenset[str], frozenset[str]]:
        """Who does not have the address any more is as good as gone (R11)."""
        have = {name: each for name, each in members.items() if self.address in each.vips}
        return frozenset(have), frozenset(name for name, each in have.items() if each.promises)

    def _successor(self) -> str:
        able = self.able()
        preferred = self._prefer()
        return preferred if preferred in able else super()._successor()

    def move(self, to: str) -> Deferred[None]:
        """Have *to* own it; nothing where that is not `able`, or this director does not own it. Fires when that is done, or
        is not. If it comes to nothing this director campaigns anew at once."""
        if self._over is not None or not self.leads or to not in self.able():
            return succeed(None)
        return self._hand_over(to, 0.0)
