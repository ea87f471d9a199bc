"""The store's content on disk: whole, or refused."""

from __future__ import annotations

import hashlib

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.snapshot import Snapshot, Unusable, decode, encode
from cluster.store import Record

RECORDS = (Record("/a/b", b'{"x": 1}', 3, 7), Record("/a/c", "ü".encode(), 4, 4))
SNAPSHOT = Snapshot("main", 12.5, 7, RECORDS)


class SnapshotTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        self.assertEqual(decode(encode(SNAPSHOT), "main"), SNAPSHOT)

    def test_what_is_no_text(self) -> None:
        """Is no record of ours, and keeps the others from nothing."""
        odd = (Record("/a/d", b"\xff", 1, 1), Record("/a/\udcff", b"", 1, 1))
        self.assertEqual(decode(encode(SNAPSHOT._replace(records=(*odd, *RECORDS))), "main"), SNAPSHOT)

    def test_torn_or_changed(self) -> None:
        """A file that ends early anywhere, or has another byte anywhere, is refused."""
        whole = encode(SNAPSHOT)
        for end in range(len(whole) - 1):
            with self.assertRaises(Unusable):
                decode(whole[:end], "main")
        for at in range(len(whole) - 1):
            with self.assertRaises(Unusable):
                decode(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], "main")

    def test_of_another(self) -> None:
        """Another cluster's, another version's, and what is none at all, each by its own sentence."""
        def sealed(body: bytes) -> bytes:
            return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"

        later = msgspec.json.encode({**msgspec.json.decode(encode(SNAPSHOT).splitlines()[0]), "version": 2})
        for data, cluster, why in (
            (encode(SNAPSHOT), "other", "of cluster 'main', not 'other'"),
            (sealed(later), "main", "of version 2, not 1"),
            (sealed(b"{}"), "main", "cannot be read"),
            (sealed(b"["), "main", "cannot be read"),
            (sealed(b"[" * 100_000), "main", "cannot be read"),
        ):
            with self.assertRaisesRegex(Unusable, why):
                decode(data, cluster)
