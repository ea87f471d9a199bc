"""An inventory under test, with words to steer it by."""

from __future__ import annotations

import random

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import (
    AdminState,
    Group,
    Health,
    Host,
    HostRef,
    LoadReport,
    Order,
    Reason,
    Service,
)
from director.core.entries import HostEntry
from director.core.inventory import Inventory
from director.core.pool import Ticket

HEALTH = Health(jitter=0.0)


def group(*names: str, **changes: object) -> Group:
    hosts = {name: Host(address=f"10.0.0.{index + 1}:80") for index, name in enumerate(names)}
    return msgspec.structs.replace(Group(hosts=hosts, health=HEALTH, scheduler="leastconns"), **changes)


def ref(host: str, group: str = "blue") -> HostRef:
    return HostRef("web", group, host)


def order(state: AdminState, **changes: object) -> Order:
    return msgspec.structs.replace(Order(state=state, who="ann", why="test", at=0.0), **changes)


class InventoryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.inventory = Inventory(now=self.now, random=random.Random(7).random)

    def apply(self, spec: Service | None) -> None:
        self.inventory.apply_service("web", spec, self.now)

    def web(self, *names: str, **changes: object) -> None:
        self.apply(msgspec.structs.replace(Service(groups={"blue": group(*names)}), **changes))

    def entry(self, name: str, group: str = "blue") -> HostEntry:
        return self.inventory.hosts[ref(name, group)]

    def arrive(self, waiter: object = None) -> Ticket | Reason | None:
        return self.inventory.services["web"].admission.arrive(b"\x0a\0\0\1", waiter or object(), self.now)

    def rotation(self) -> set[str]:
        return {name.host for name, entry in self.inventory.hosts.items() if entry.host.eligible}

    def report(self, name: str, **load: object) -> None:
        self.inventory.reported(ref(name), LoadReport(**load), self.now)  # type: ignore[arg-type]

    def take_down(self, name: str) -> None:
        for _ in range(HEALTH.fall):
            self.inventory.probe_result(self.entry(name), False, "refused", 0.0, self.now)
