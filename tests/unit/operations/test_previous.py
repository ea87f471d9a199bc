"""The clients of the process before this one, among this one's."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from director.core.snapshot import ConnectionPicture, ConnectionsPicture
from director.operations.previous import Previous, cut_previous, with_previous


def client(name: str, age_s: float) -> ConnectionPicture:
    return ConnectionPicture(client=name, group="blue", host="app1", age_s=age_s, idle_s=0.0, to_host=1, to_client=2)


class PreviousTests(SynchronousTestCase):
    def test_listed(self) -> None:
        """The oldest of both, each told apart; all of both are counted."""
        own = ConnectionsPicture(total=7, connections=(client("10.0.0.1:1", 5.0), client("10.0.0.1:2", 1.0)))
        theirs = ConnectionsPicture(total=300, connections=(client("10.0.0.2:1", 9.0), client("10.0.0.2:2", 3.0)))
        both = with_previous(own, theirs, 3)
        self.assertEqual(both.total, 307)
        self.assertEqual([(each.client, each.previous) for each in both.connections],
                         [("10.0.0.2:1", True), ("10.0.0.1:1", False), ("10.0.0.2:2", True)])
        self.assertIs(with_previous(own, None, 1), own)

    def test_cut(self) -> None:
        """The other process is told, whether or not it has told of the client."""
        told: list[tuple[str, str]] = []
        clients = {"web": ConnectionsPicture(total=1, connections=(client("10.0.0.2:1", 9.0),))}
        previous = Previous(1, {}, clients, lambda service, client: told.append((service, client)))
        self.assertEqual(cut_previous(previous, "web", Address("10.0.0.2", 1)), 1)
        self.assertEqual(cut_previous(previous, "web", Address("10.0.0.2", 2)), 0)
        self.assertEqual(cut_previous(previous, "other", Address("10.0.0.2", 1)), 0)
        self.assertEqual(told, [("web", "10.0.0.2:1"), ("web", "10.0.0.2:2"), ("other", "10.0.0.2:1")])
        self.assertEqual(cut_previous(None, "web", Address("10.0.0.2", 1)), 0)
