"""The record in the store and the machine's words are the same, and what is neither is nobody's."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.model import Leader
from cluster.store import Compare, Put, Record
from cluster.takeover.records import as_written, comparisons, operations, sighted
from cluster.takeover.words import Seen
from tests.unit.cluster.takeover.takeover_kit import T0, Aim, answering, reign, seen, sent, standby

KEYS = Keys("c")


def record(value: bytes, mod: int) -> Record:
    return Record(KEYS.leader(), value, 3, mod)


BEAT = Record(KEYS.leader_beat(), b"0", 3, 7)


class RecordTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        """A new term is the revision that wrote it; a change of electors keeps the term."""
        for term, read in ((0, 9), (5, 5)):
            sight, why = sighted([record(as_written(reign(term=term), 1.0), 9), BEAT], KEYS)
            self.assertEqual((sight, why), (Seen(reign(term=read), 9, 7), ""))

    def test_absent(self) -> None:
        self.assertEqual(sighted([], KEYS), (Seen(None, 0, 0), ""))
        self.assertEqual(sighted([BEAT], KEYS), (Seen(None, 0, 7), ""))

    def test_not_by_promises(self) -> None:
        """One that cannot be read, and one of a lease, may be followed by nobody, and depose."""
        lease = msgspec.json.encode(Leader(name="a", boot_id="1", since=1.0))
        for value, word in ((b"\xff", "json"), (b"{}", "name"), (lease, "lease")):
            sight, why = sighted([record(value, 9), BEAT], KEYS)
            self.assertIn(word, why.lower())
            assert sight.reign is not None
            self.assertEqual((sight.reign.electors, sight.reign.term), (frozenset(), 9))
            machine = answering()
            machine.seen(sight, T0)
            self.assertFalse(machine.owner)
            machine = standby()
            machine.seen(sight, T0)
            self.assertEqual(sent(machine.turn(T0 * 2)), [])

    def test_transactions(self) -> None:
        """A campaign compares record and beat; a beat the record only; every write is one of the beat as well."""
        (campaign,) = sent(standby().turn(T0 * 2))
        self.assertEqual(comparisons(campaign, KEYS), [Compare(KEYS.leader(), 5), Compare(KEYS.leader_beat(), 5)])
        self.assertEqual([each.key for each in operations(campaign, KEYS, 1.0)], [KEYS.leader_beat(), KEYS.leader()])
        machine = answering()
        (beat,) = sent(machine.link_lost("b", T0))
        self.assertEqual(comparisons(beat, KEYS), [Compare(KEYS.leader(), 5)])
        self.assertEqual(operations(beat, KEYS, 1.5), [Put(KEYS.leader_beat(), b"1.500")])
        machine.seen(Seen(None, 0, 0), T0)
        (made,) = sent(machine.turn(T0), Aim.RECREATE)
        self.assertEqual(comparisons(made, KEYS), [Compare(KEYS.leader(), 0)])

    def test_a_former_version_reads_it(self) -> None:
        """It finds who leads."""
        value = msgspec.json.decode(as_written(seen().reign or reign(), 1.0))
        self.assertEqual((value["name"], value["boot_id"], value["since"]), ("a", "a0", 1.0))
