"""A director reduced to what observes: a node without listeners, whose agents and clients are the test."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from cluster.keys import Keys
from cluster.model import Configuration, Group, Health, Host, HostRef, LoadReport, Member, Probe, Service
from cluster.model import Node as NodeConfiguration
from cluster.store import Store
from director.engine.node import Node
from director.ha.membership import Membership
from director.ha.observing import Observing
from director.metrics.counters import Metrics
from director.relay import make_relay

KEYS = Keys("c")
HEALTH = Health(probe=Probe(kind="none"), jitter=0.0)


def ref(host: str) -> HostRef:
    return HostRef("web", "blue", host)


class Director:
    """A node and its observing service. Its hosts are h0, h1..., which no probe watches."""

    def __init__(self, name: str, store: Store, reactor: Any, *, hosts: int = 10,
                 monotonic: Callable[[], float] = time.monotonic) -> None:
        self.node = Node(
            Configuration(node=NodeConfiguration(name=name)), {"python": make_relay("python", reactor=reactor)},
            Metrics(CollectorRegistry()), reactor=reactor, random=random.Random(7).random, monotonic=monotonic,
            wall=lambda: 1000 + monotonic(),
        )
        self.node.inventory.grace_from -= HEALTH.timeout_s  # past its grace
        spec = {f"h{number}": Host(address=f"10.0.0.{number % 250 + 1}:80") for number in range(hosts)}
        self.node.apply_service("web", Service(groups={"blue": Group(hosts=spec, health=HEALTH)}))
        member = Member(name=name, boot_id=f"{name}-1", version="1", started=0.0)
        self.store = store
        self.membership = Membership(store, KEYS, member, reactor=reactor)
        self.observing = Observing(store, KEYS, self.node, self.membership, boot_id=f"{name}-1", reactor=reactor)

    def start(self) -> None:
        self.membership.startService()
        self.observing.startService()

    def hear(self, *hosts: str) -> None:
        for host in hosts:
            self.node.inventory.reported(ref(host), LoadReport(), self.node.monotonic())
        self.node.settle()

    def leave(self, *hosts: str) -> None:
        """Their agents say goodbye."""
        for host in hosts:
            self.node.inventory.agent_left(ref(host), self.node.monotonic())
        self.node.settle()

    def fail(self, *hosts: str) -> None:
        """Enough clients' connects fail, though the agent was heard (so that no trial follows)."""
        self.hear(*hosts)
        for host in hosts:
            for _ in range(HEALTH.fall):
                self.node.inventory.connect_failed(self.node.inventory.hosts[ref(host)].host, "refused", self.node.monotonic())
        self.node.settle()

    def out(self) -> set[str]:
        return {each.host for each, entry in self.node.inventory.hosts.items() if not entry.host.eligible}
