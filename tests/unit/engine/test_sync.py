"""What the store holds becomes what the director does, whatever anybody with etcdctl writes there."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import (
    AdminState,
    Caps,
    CapShare,
    Configuration,
    Group,
    Health,
    Host,
    HostRef,
    HostState,
    Member,
    Observed,
    Order,
    Probe,
    Registered,
    Registration,
    Service,
    User,
)
from cluster.store import Delete, Operation, Put
from director.admin.userbook import UserBook
from director.engine.node import Node
from director.engine.sync import Sync
from director.ha.membership import Membership
from director.ha.observing import Observing
from director.metrics.counters import Metrics
from director.relay import make_relay

KEYS = Keys("test")
HEALTH = Health(probe=Probe(kind="none"))
GARBAGE = (b"", b"{", b"\xff", b'{"\xff":1}', b'"text"', b'{"x":' + b"[" * 5000)
BAD_ADDRESSES = ("nonsense", "10.0.0.1", "10.0.0.1:99999", "", "[::1:80")


def service(*hosts: str, group: str = "blue", **more: Any) -> bytes:
    spec = {f"h{number}": Host(address=address) for number, address in enumerate(hosts)}
    groups = {group: Group(hosts=spec, health=HEALTH, registration=Registration(mode="auto"))}
    return msgspec.json.encode(Service(groups=groups, **more))


class Running:
    """A director's readers of the store, without its listeners."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self.clock = clock
        self.node = Node(
            Configuration(), {"python": make_relay("python", reactor=clock)}, Metrics(CollectorRegistry()),
            reactor=clock, random=random.Random(7).random, monotonic=clock.seconds, wall=lambda: 1000.0,
        )
        self.users = UserBook()
        self.sync = Sync(store, KEYS, self.node, self.users.set_stored)
        member = Member(name="me", boot_id="b", version="1", started=0.0)
        self.membership = Membership(store, KEYS, member, reactor=clock)
        self.observing = Observing(store, KEYS, self.node, self.membership, boot_id="b", reactor=clock)
        self.sync.startService()
        self.sync.follow()
        self.observing.startService()
        self.turn()

    def turn(self) -> None:
        for _ in range(6):
            self.clock.advance(0)

    def doubt(self) -> None:
        """Continuity is lost: everything is read anew."""
        for watch in self.sync._watches:
            watch.stop()
        self.sync._watches.clear()
        self.sync.follow()
        self.turn()

    def stop(self) -> None:
        self.observing.stopService()
        self.sync.stopService()

    def picture(self) -> object:
        """All that follows from the store's content alone."""
        inventory = self.node.inventory
        return (
            {name: (entry.spec, entry.share, sorted(entry.groups)) for name, entry in inventory.services.items()},
            {ref: (entry.spec, entry.registered, entry.target and entry.target.address, entry.address_error, entry.admin, entry.orders,
                   entry.host.eligible, entry.verdict.down, inventory.others.about(ref))
             for ref, entry in inventory.hosts.items()},
            inventory.registrations(), {name: inventory.caps(name) for name in inventory.capped()},
            dict(self.users.users), self.sync.synced.called,
        )


def refs() -> list[HostRef]:
    return [HostRef(service, "blue", host) for service in ("s0", "s1") for host in ("h0", "h1", "r0")]


def candidates() -> dict[str, tuple[list[bytes], list[bytes]]]:
    """For each key, values that can be read (in part at least) and values that cannot."""
    bad_host = [service("10.0.0.9:80", bad, "10.0.0.10:80") for bad in BAD_ADDRESSES]
    bad_service = [service("10.0.0.1:80", enable="none"), service("10.0.0.1:80", listen=("nowhere",))]
    found: dict[str, tuple[list[bytes], list[bytes]]] = {}
    for name in ("s0", "s1"):
        good = [service("10.0.0.1:80"), service("10.0.0.2:80", "10.0.0.3:80"), service(group="green"), *bad_host]
        found[KEYS.service(name)] = good, [*GARBAGE, *bad_service]
        caps = Caps(number=1, maximum=5, shares={"director": CapShare(grant=2, ceiling=2)})
        found[KEYS.caps(name)] = [msgspec.json.encode(caps)], list(GARBAGE)
    for ref in refs():
        order = Order(state=AdminState.DRAIN, who="ada", at=1.0)
        found[KEYS.admin(ref, "operator")] = (
            [msgspec.json.encode(order), msgspec.json.encode(msgspec.structs.replace(order, state=AdminState.DOWN))],
            [*GARBAGE, b'{"state":"drain","who":"x","at":1e300}'])
        seen = Observed(state=HostState.DOWN, since=1.0, why="", boot_id="b")
        found[KEYS.observed("other", ref)] = [msgspec.json.encode(seen)], list(GARBAGE)

        def registered(address: str) -> bytes:
            return msgspec.json.encode(
                Registered(host=Host(address=address), agent="a", boot_id="b", at=1.0, approved=True))

        found[KEYS.registered(ref)] = ([registered("10.0.1.1:80"), registered("10.0.1.2:80")],
                                       [*GARBAGE, *map(registered, BAD_ADDRESSES)])
    for name in ("ada", "bob"):
        user = User(password="$2b$12$" + "a" * 53, role="full")
        found[KEYS.user(name)] = [msgspec.json.encode(user)], [*GARBAGE, b'{"password":"plain"}']
    return found


CANDIDATES = candidates()
#: What an unreadable record stands for nothing of, instead of for what it last said.
FORGOTTEN = KEYS.observations()


@st.composite
def writes(draw: st.DrawFn) -> tuple[str, bytes | None, bool]:
    """A key, its new value (None: deleted), and whether that can be read."""
    key = draw(st.sampled_from(sorted(CANDIDATES)))
    good, bad = CANDIDATES[key]
    value = draw(st.one_of(st.none(), st.sampled_from(good), st.sampled_from(bad)))
    return key, value, value in good


#: One transaction each; None: everything is read anew.
steps = st.lists(st.one_of(st.none(), st.lists(writes(), min_size=1, max_size=8, unique_by=lambda write: write[0])),
                 max_size=12)


class AnyOrderTests(SynchronousTestCase):
    def store(self, clock: Clock) -> MemoryStore:
        store = MemoryStore(clock=clock, wall=lambda: 0.0)
        self.successResultOf(store.start())
        return store

    @settings(max_examples=60, deadline=None)
    @given(steps)
    def test_as_a_fresh_start(self, history: list[list[tuple[str, bytes | None, bool]] | None]) -> None:
        """Whatever good and bad records were added, changed, corrected and removed, in any order and cut into any
        events, the end is that of a fresh start on the final content, where an unreadable record stands for what its key
        last said that could be read."""
        clock = Clock()
        clock.advance(100)
        store = self.store(clock)
        running = Running(store, clock)
        last: dict[str, bytes] = {}
        bad: set[str] = set()
        for transaction in history:
            if transaction is None:
                running.doubt()
                continue
            operations: list[Operation] = []
            for key, value, good in transaction:
                operations.append(Delete(key) if value is None else Put(key, value))
                bad.discard(key)
                if value is not None and not good:
                    bad.add(key)
                if value is not None and good:
                    last[key] = value
                elif value is None or key.startswith(FORGOTTEN):
                    last.pop(key, None)
            self.successResultOf(store.commit(operations))
            running.turn()
        self.assertLessEqual({key for key in bad if not key.startswith(FORGOTTEN)},
                             {problem.partition(": ")[0] for problem in running.sync.problems})
        fresh_store = self.store(clock)
        for key, value in last.items():
            self.successResultOf(fresh_store.commit([Put(key, value)]))
        fresh = Running(fresh_store, clock)
        self.assertEqual(running.picture(), fresh.picture())
        for each in (running, fresh):
            each.stop()


class BadRecordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock, wall=lambda: 0.0)
        self.successResultOf(self.store.start())
        self.running = Running(self.store, self.clock)
        self.addCleanup(self.running.stop)

    def put(self, *records: tuple[str, bytes]) -> None:
        self.successResultOf(self.store.commit([Put(key, value) for key, value in records]))
        self.running.turn()

    def targets(self) -> dict[str, bool]:
        return {ref.host: entry.target is not None for ref, entry in self.running.node.inventory.hosts.items()}

    def problems(self) -> Iterable[str]:
        return self.running.sync.problems

    def test_bad_address_first(self) -> None:
        """A host with a bad address before good new ones costs itself only, is named, and is there once corrected."""
        self.put((KEYS.service("web"), service("nonsense", "10.0.0.1:80", "10.0.0.2:80")))
        self.assertEqual(self.targets(), {"h1": True, "h2": True})
        [problem] = self.problems()
        self.assertIn("services.web.groups.blue.hosts.h0.address", problem)
        self.put((KEYS.service("web"), service("10.0.0.3:80", "10.0.0.1:80", "10.0.0.2:80")))
        self.assertEqual((self.targets(), self.problems()), ({"h0": True, "h1": True, "h2": True}, ()))

    def test_event_that_raises(self) -> None:
        """Even an event that nobody foresaw costs only itself."""
        node = self.running.node
        add, asked = node._targets.add, []

        def fails_once(entry: Any) -> None:
            asked.append(entry.ref.host)
            if len(asked) == 1:
                raise RuntimeError("unforeseen")
            add(entry)

        self.patch(node._targets, "add", fails_once)
        self.put((KEYS.service("web"), service("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")))
        self.assertEqual(self.targets(), {"h0": False, "h1": True, "h2": True})
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_garbage_at_start(self) -> None:
        """A director starts on a store with a record that msgspec chokes on."""
        self.put((KEYS.service("bad"), b'{"\xff":1}'), (KEYS.user("x"), b'{"x":' + b"[" * 100_000))
        other = Running(self.store, self.clock)
        self.addCleanup(other.stop)
        self.assertTrue(other.sync.synced.called)
        self.assertEqual(len(list(other.sync.problems)), 2)
