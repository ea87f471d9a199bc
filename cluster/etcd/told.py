"""What a watch has told, so that it can be compared with what is there. Pure.

etcd has had defects by which a watch loses an event and nobody notices. A listing that is compared some time after it
was read shows it: whatever has not been told by then, and of which nothing was told since, was lost.
"""

from __future__ import annotations

from cluster.store import Changes, Listing


class Told:
    """The last write of every key, as told. Call `attend` before the listing is asked for, `lost` a while after it came."""

    def __init__(self) -> None:
        self._written: dict[str, int] = {}
        self._revision = 0
        self._asked_at = 0
        self._since: set[str] | None = None  # told since the listing was asked for; None: everything was told anew

    def resync(self, listing: Listing) -> None:
        self._written = {record.key: record.mod_revision for record in listing.records}
        self._revision = listing.revision
        self._since = None

    def take(self, changes: Changes) -> None:
        self._revision = changes.revision
        for record in changes.written:
            self._written[record.key] = changes.revision
        for key in changes.deleted:
            self._written.pop(key, None)
        if self._since is not None:
            self._since.update(record.key for record in changes.written)
            self._since.update(changes.deleted)

    def attend(self) -> None:
        """A listing is being asked for."""
        self._since = set()
        self._asked_at = self._revision

    def lost(self, listing: Listing) -> list[str]:
        """Keys whose last write or deletion was not told. None of a listing older than that."""
        if self._since is None or listing.revision < self._asked_at:
            return []
        there = {record.key: record.mod_revision for record in listing.records}
        return sorted(key for key in (there.keys() | self._written.keys()) - self._since
                      if there.get(key) != self._written.get(key))
