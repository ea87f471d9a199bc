"""Lost events are seen, and nothing else is taken for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.etcd.told import Told
from cluster.store import Changes, Listing, Record

KEYS = "abc"
#: Each revision writes or deletes one key; False deletes.
HISTORIES = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), max_size=12)


def changes(history: list[tuple[str, bool]]) -> list[Changes]:
    """One for each revision, from 2 on."""
    return [Changes((Record(key, b"", 0, revision),) if put else (), () if put else (key,), revision)
            for revision, (key, put) in enumerate(history, 2)]


def listing(history: list[tuple[str, bool]]) -> Listing:
    """What is there after *history*."""
    there: dict[str, Record] = {}
    for each in changes(history):
        there.update((record.key, record) for record in each.written)
        for key in each.deleted:
            there.pop(key, None)
    return Listing(tuple(there.values()), len(history) + 1)


class ToldTests(SynchronousTestCase):
    @given(HISTORIES, st.data())
    def test_nothing_lost(self, history: list[tuple[str, bool]], data: st.DataObject) -> None:
        """Wherever the listing falls among the events, before or after they were told, nothing seems lost."""
        begun, asked, read = sorted(data.draw(st.integers(0, len(history))) for _ in range(3))
        told = Told()
        told.resync(listing(history[:begun]))
        events = changes(history)
        for each in events[begun:asked]:
            told.take(each)
        told.attend()
        for each in events[asked:]:
            told.take(each)
        self.assertEqual(told.lost(listing(history[:read])), [])

    @given(HISTORIES, st.data())
    def test_lost(self, history: list[tuple[str, bool]], data: st.DataObject) -> None:
        """A key whose last event was lost is named, be it a write or a deletion."""
        lost = data.draw(st.integers(0, len(history)))
        before = listing(history[:lost])
        told = Told()
        told.resync(before)
        told.attend()
        written = {record.key: record.mod_revision for record in before.records}
        now = {record.key: record.mod_revision for record in listing(history).records}
        self.assertEqual(told.lost(listing(history)), [key for key in KEYS if written.get(key) != now.get(key)])

    def test_stale_listing(self) -> None:
        """A listing older than what was told before it was asked for says nothing."""
        told = Told()
        told.resync(listing([("a", True), ("b", True)]))
        told.attend()
        self.assertEqual(told.lost(listing([("a", True)])), [])

    def test_anew(self) -> None:
        """Nothing is lost of what was told anew while the listing was read."""
        told = Told()
        told.attend()
        told.resync(listing([("a", True)]))
        self.assertEqual(told.lost(listing([("b", True), ("a", True)])), [])
