"""What agents may register: so many hosts, with so much weight."""

from __future__ import annotations

import msgspec

from cluster.model import Group, Host, HostRef, Registered, Registration, Service
from tests.unit.engine import test_swapping as kit
from tests.unit.engine.test_sync import HEALTH, KEYS


class Greedy(kit.SwappingTestCase):
    def begin(self, **policy: object) -> None:
        registration = Registration(**{"mode": "auto", **policy})  # type: ignore[arg-type]
        group = Group(hosts={"a": Host(address="10.0.0.1:80")}, health=HEALTH, registration=registration)
        self.put(KEYS.service("web"), msgspec.json.encode(Service(groups={"blue": group, "green": group})))
        self.pass_time()

    def ask(self, number: int, *, group: str = "blue", identity: str = "one", most: int = 1000, weight: float = 1.0,
            ) -> str:
        ref = HostRef("web", group, f"x{number}")
        said = self.directors[0].attendance.registered(ref, "agent", "b", f"10.0.1.1:{number + 1}", weight,
                                                       peer="10.0.1.1", identity=identity, most=most)
        self.pass_time()
        return said

    def test_a_group_takes_so_many(self) -> None:
        """Whoever asks; the others' is another matter, and who is there stays, and may say hello again."""
        self.begin(max_hosts=3)
        said = [self.ask(number, identity=f"i{number}") for number in range(5)]
        self.assertEqual(said, [""] * 3 + ["3 hosts are registered with the group, the most it takes"] * 2)
        self.assertEqual((self.ask(1), self.ask(1, group="green")), ("", ""))
        inventory = self.directors[0].node.inventory
        self.assertEqual(len(inventory.registrations()), 4)

    def test_an_identity_has_so_many(self) -> None:
        """In all groups together; what was removed counts no more."""
        self.begin()
        self.assertEqual([self.ask(0, most=2), self.ask(1, group="green", most=2)], ["", ""])
        self.assertIn("the most it may", self.ask(2, most=2))
        self.assertEqual(self.ask(2, identity="two", most=2), "")
        self.directors[0].node.set_registered(HostRef("web", "blue", "x0"), None)
        self.assertEqual(self.ask(3, most=2), "")

    def test_weight_is_bounded_by_the_group(self) -> None:
        """An agent gets what its group allows at most, and no more clients than that brings."""
        self.begin(max_weight=3.0)
        for number, weight in enumerate((2.0, 1e6)):
            self.assertEqual(self.ask(number, weight=weight), "")
        weights = [self.directors[1].node.inventory.registrations()[HostRef("web", "blue", f"x{number}")].host.weight
                   for number in range(2)]
        self.assertEqual(weights, [2.0, 3.0])
        self.assertEqual(msgspec.json.decode(self.stored(KEYS.registered(HostRef("web", "blue", "x1"))) or b"",
                                             type=Registered).host.weight, 3.0)
