"""A prefix as typed values: what cannot be read, and what becomes of it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import CapsKey, Keys
from cluster.model import Caps
from cluster.store import Changes, Listing, Record, Resync
from cluster.view import Checked, Unreadable, View, decode

KEYS = Keys("test")
GOOD = b'{"number":1,"maximum":2,"shares":{}}'
#: One of each way in which msgspec fails.
BAD = (b"", b"{", b"[]", b'{"number":1}', b"\xff", b'{"number":1,"maximum":"2","shares":{}}',
       b'{"number":1,"maximum":2,"shares":{"a":"\xff"}}', b'{"number":1,"maximum":2,"shares":{"\xff":{"grant":1,"ceiling":1}}}',
       b'{"x":' + b"[" * 100_000)


def written(*values: tuple[str, bytes], revision: int = 2) -> Changes:
    return Changes(tuple(Record(KEYS.caps(name), value, 1, revision) for name, value in values), (), revision)


class ViewTests(SynchronousTestCase):
    def view(self, *, keep: bool = False) -> View[CapsKey, Caps]:
        return View(KEYS, KEYS.all_caps(), CapsKey, Caps, keep=keep)

    def test_unreadable(self) -> None:
        """Whatever a value is, it is read or fails as unreadable."""
        for value in BAD:
            self.assertRaises(Unreadable, decode, value, Caps)

    def test_costs_only_itself(self) -> None:
        """Bad records, and keys that name nothing, before good ones: the good ones count, the others are named."""
        view = self.view()
        bad = [(f"bad{number}", value) for number, value in enumerate(BAD)]
        news = view.take(written(*bad, ("good", GOOD)))
        self.assertEqual(list(news.changed), [CapsKey("good")])
        view.take(Changes((Record(KEYS.all_caps() + "no/name", GOOD, 1, 3),), (), 3))
        self.assertEqual(len(view.problems), len(BAD) + 1)

    def test_corrected(self) -> None:
        """A problem ends with the record's correction or deletion, also within a resync."""
        view = self.view()
        view.take(written(("a", b"{"), ("b", b"{"), ("c", b"{"), ("d", b"{")))
        view.take(Changes((Record(KEYS.caps("a"), GOOD, 1, 3),), (KEYS.caps("b"),), 3))
        self.assertEqual(set(view.problems), {KEYS.caps("c"), KEYS.caps("d")})
        view.take(Resync(Listing((Record(KEYS.caps("c"), GOOD, 1, 4),), 4)))
        self.assertEqual((view.problems, set(view.values)), ({}, {CapsKey("c")}))

    def test_what_it_stands_for(self) -> None:
        """A record that became unreadable is gone, or stays what it was, as the view says; deleted, it is gone."""
        for keep in (False, True):
            view = self.view(keep=keep)
            view.take(written(("a", GOOD)))
            news = view.take(written(("a", b"{"), revision=3))
            self.assertEqual((list(news.changed.values()), set(view.values)),
                             ([], {CapsKey("a")}) if keep else ([None], set()))
            news = view.take(Changes((), (KEYS.caps("a"),), 4))
            self.assertEqual((list(news.changed.values()), view.values), ([None] if keep else [], {}))

    def test_checked(self) -> None:
        """Of a value that is sound in part, that part counts and the rest is named."""
        view = View(KEYS, KEYS.all_caps(), CapsKey, Caps,
                    check=lambda place, caps: Checked(Caps(number=9, maximum=0, shares={}), ["something"]))
        news = view.take(written(("a", GOOD)))
        self.assertEqual(news.changed[CapsKey("a")], Caps(number=9, maximum=0, shares={}))
        self.assertEqual(view.problems, {KEYS.caps("a"): "something"})
