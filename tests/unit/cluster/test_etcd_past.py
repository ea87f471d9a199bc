"""What is known of the past at any moment of its replay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.etcd.past import Past
from cluster.store import Changes, PastWrite, Record

#: Transactions: for each of a few keys, written, deleted or untouched.
KEYS = "abc"
HISTORIES = st.lists(st.dictionaries(st.sampled_from(KEYS), st.booleans(), min_size=1), max_size=12)


def happened(history: list[dict[str, bool]]) -> tuple[list[Changes], dict[str, int]]:
    """The changes that *history* makes, from revision 2 on, and what is there afterwards."""
    there: dict[str, int] = {}
    changes = []
    for revision, wanted in enumerate(history, 2):
        written = [key for key, present in wanted.items() if present]
        deleted = [key for key, present in wanted.items() if not present and key in there]
        there.update(dict.fromkeys(written, revision))
        for key in deleted:
            del there[key]
        if written or deleted:
            changes.append(Changes(tuple(Record(key, b"%d" % revision, 0, revision) for key in written),
                                   tuple(deleted), revision))
    return changes, there


def flat(changes: list[Changes]) -> list[PastWrite]:
    """Newest first."""
    found = []
    for each in changes:
        found += [PastWrite(record.key, record.value, each.revision, None) for record in each.written]
        found += [PastWrite(key, None, each.revision, None) for key in each.deleted]
    return found[::-1]


class PastTests(SynchronousTestCase):
    @given(HISTORIES, st.integers(0, 12), st.integers(0, 30))
    def test_replay(self, history: list[dict[str, bool]], skipped: int, limit: int) -> None:
        """From wherever it starts, a whole replay agrees and yields the newest changes; it never disagrees again."""
        changes, there = happened(history)
        start, end = 2 + skipped, 1 + len(history)
        replayed = [each for each in changes if each.revision >= start]
        past = Past(there, start, end, limit=limit)
        for each in replayed:
            past.take(each)
        self.assertTrue(past.agrees)
        self.assertEqual(list(past.newest_first), flat(replayed)[:limit])

    @given(HISTORIES)
    def test_never_agrees_too_early(self, history: list[dict[str, bool]]) -> None:
        """A replay that agrees before its end lacks only changes that leave everything as it was."""
        changes, there = happened(history)
        past = Past(there, 2, 1 + len(history), limit=100)
        state: dict[str, int] = {}
        for each in [None, *changes]:
            if each is not None:
                past.take(each)
                state.update((record.key, each.revision) for record in each.written)
                for key in each.deleted:
                    del state[key]
            if past.agrees:
                self.assertEqual(state, there)

    def test_certain(self) -> None:
        """At the last revision nothing can follow; what lies beyond is not part of it."""
        past = Past({"a": 5}, 1, 5, limit=10)
        past.take(Changes((Record("a", b"1", 2, 2),), (), 2))
        self.assertEqual((past.agrees, past.certain), (False, False))
        past.take(Changes((Record("a", b"2", 2, 5),), (), 5))
        past.take(Changes((), ("a",), 6))
        self.assertEqual((past.agrees, past.certain), (True, True))
        self.assertEqual([change.value for change in past.newest_first], [b"2", b"1"])
