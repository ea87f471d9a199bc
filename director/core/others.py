"""What the other directors have written about hosts, as far as this one knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cluster.model import HostRef, HostState, Observed
from director.core.merge import is_cut_off


class Others:
    """Kept up to date by the inventory. Nothing of this director's own is in it; hosts need not be configured (yet)."""

    def __init__(self, panic_fraction: float) -> None:
        self._panic_fraction = panic_fraction
        self._live: tuple[str, ...] = ()
        self._records: dict[HostRef, dict[str, Observed]] = {}
        self._down: Counter[str] = Counter()  # hosts, by director
        self.cut_off: frozenset[str] = frozenset()  #: directors whose "down" is not believed
        self.judged_for = 0  #: the number of hosts for which `cut_off` is right; -1: a record has changed since

    def set_live(self, names: Iterable[str]) -> None:
        """The directors that live, besides this one."""
        self._live = tuple(sorted(names))

    def put(self, director: str, ref: HostRef, record: Observed | None) -> None:
        """*director* has written *record*, or (None) sees the host up now."""
        by = self._records.setdefault(ref, {})
        before = by.pop(director, None)
        self._down[director] -= before is not None and before.state is HostState.DOWN
        if record is not None:
            by[director] = record
            self._down[director] += record.state is HostState.DOWN
        if not by:
            del self._records[ref]
        self.judged_for = -1

    def judge_cut_off(self, hosts: int) -> bool:
        """Whether it has changed who is cut off, to be asked while it is not `judged_for` as many. *hosts*: how many are
        configured."""
        before, self.judged_for = self.cut_off, hosts
        self._down = +self._down
        self.cut_off = frozenset(
            name for name, down in self._down.items() if is_cut_off(down, hosts, self._panic_fraction)
        )
        return self.cut_off != before

    def __contains__(self, ref: HostRef) -> bool:
        """Whether anybody has written about *ref*."""
        return ref in self._records

    def say_down(self, ref: HostRef) -> bool:
        """Whether anybody sees *ref* down, believed or not."""
        return any(record.state is HostState.DOWN for record in self._records.get(ref, {}).values())

    def records(self, ref: HostRef) -> tuple[tuple[str, Observed], ...]:
        """Who has written what about *ref*, by director."""
        return tuple(sorted(self._records.get(ref, {}).items()))

    def about(self, ref: HostRef) -> dict[str, Observed | None]:
        """Every live director's record of *ref*."""
        return {**dict.fromkeys(self._live), **self._records.get(ref, {})}
