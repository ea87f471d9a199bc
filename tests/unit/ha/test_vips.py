"""Virtual addresses: named in the store, taken, told, given up, in that order; the interface is a list here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_interface
from itertools import pairwise

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import StoreUnavailable
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Leader, VipOwner
from cluster.model import Vips as Config
from cluster.store import Delete, Put
from cluster.table import Transaction
from director.core.vip import CARRIER_S, OUTLIVES_S, VALID_S
from director.ha.device import Device
from director.ha.leading import RESIGN_HOLD_S, Leading
from director.ha.lookout import Befell
from director.ha.netlink import Interface
from director.ha.vips import ANNOUNCE_AT_S, Vips

KEYS = Keys("c")
ADDRESS = "10.0.0.100/24"
KEY = KEYS.vip("10.0.0.100")


class RecordingLink(Device):
    """An interface that does what it is told, and remembers it."""

    broken_from_the_start = False

    def __init__(self, store: MemoryStore) -> None:
        super().__init__("eth0")
        self.store = store
        self.done: list[str] = []
        self.at: list[float] = []
        self.broken: bool | str = self.broken_from_the_start  #: all of it, or one address
        self.befalls = Befell()
        self.named: list[bool] = []  #: whether the record was there, at each change

    def _do(self, what: str) -> None:
        self.done.append(what)
        self.at.append(self.store._clock.seconds())
        self.named.append(any(record.key == KEY for record in self.store._table.records))
        if self.broken is True or (self.broken and self.broken in what):
            raise OSError(1, "Operation not permitted")

    def times(self, what: str) -> list[float]:
        return [at for at, done in zip(self.at, self.done, strict=True) if done.startswith(what)]

    def listen(self, reactor: object, told: Callable[[], None]) -> None:
        self.told = told

    def befell(self) -> Befell:
        befell, self.befalls = self.befalls, Befell(running=self.befalls.running)
        return befell

    def add(self, address: Interface, lifetime_s: int) -> None:
        self._do(f"add {address} {lifetime_s}")

    def remove(self, address: Interface) -> None:
        self._do(f"remove {address}")

    def announce(self, address: Interface) -> None:
        self._do(f"announce {address}")


class RecordingFence:
    """A fence that remembers what was asked of it, on the same list as the interface."""

    kind = "none"
    why = ""
    broken = False

    def __init__(self, link: RecordingLink, until_ns: int) -> None:
        self.link = link
        self.until_ns = until_ns
        self.asked = ["made"]

    def open_until(self, boot_ns: int) -> None:
        if self.broken:
            raise OSError(1, "Operation not permitted")
        self.until_ns = boot_ns
        self.asked.append("open")
        self.before = len(self.link.done)

    def close(self) -> None:
        self.until_ns = 0
        self.asked.append("close")
        self.before = len(self.link.done)

    def holds(self) -> str:
        return self.why

    def release(self) -> None:
        self.asked.append("release")

    def leave(self) -> None:
        self.asked.append("leave")


class FailingStore(MemoryStore):
    """A store that can't write some keys."""

    refused: str | None = None  #: a prefix of keys that cannot be written

    async def _persist(self, transactions: Sequence[Transaction]) -> None:
        written = [record.key for transaction in transactions for record in transaction.written]
        if self.refused is not None and any(key.startswith(self.refused) for key in written):
            raise StoreUnavailable("away")


class VipsTestCase(SynchronousTestCase):
    fence: RecordingFence  #: of the director made last

    @staticmethod
    def wanted() -> bool:
        return True

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FailingStore(clock=self.clock, wall=lambda: 0.0)
        self.successResultOf(self.store.start())
        self.promised_s = 0.0
        self.rivals = False

    def director(self, name: str = "d1", ttl_s: float = 2.0) -> tuple[Leading, Vips, RecordingLink]:
        leading = Leading(self.store, KEYS, director=name, boot_id="1", reactor=self.clock, ttl_s=ttl_s,
                          boottime=self.clock.seconds, wall=lambda: 5.0)
        link = RecordingLink(self.store)

        def fence(until_ns: int) -> RecordingFence:
            self.fence = RecordingFence(link, until_ns)
            return self.fence

        vips = Vips(Config(interface="eth0", addresses=(ADDRESS,)), leading, self.store, KEYS, reactor=self.clock,
                    link=link, rivals=lambda: self.rivals, fence=fence, boottime=self.clock.seconds, right_s=lambda: self.promised_s, wanted=self.wanted, monotonic=self.clock.seconds, wall=lambda: 5.0)
        vips.startService()
        leading.startService()
        self.pass_time()
        return leading, vips, link

    def pass_time(self, seconds: float = 0.0) -> None:
        self.clock.pump([0.0] * 6 + [0.05] * round(seconds / 0.05))

    def owner(self) -> VipOwner | None:
        record = self.successResultOf(self.store.get(KEY))
        return None if record is None else msgspec.json.decode(record.value, type=VipOwner)


class HoldingTests(VipsTestCase):
    def test_taken(self) -> None:
        """The owner is named before the address is added; neighbours are told at once and again; then it is refreshed."""
        leading, vips, link = self.director()
        self.assertTrue(vips.held)
        self.assertEqual(link.done, [f"add {ADDRESS} 1", f"announce {ADDRESS}"])
        self.assertEqual(self.owner(), VipOwner(owner="d1", interface="eth0", term=leading.term, since=5.0))
        self.pass_time(ANNOUNCE_AT_S[-1] + 1)
        self.assertEqual(link.done.count(f"announce {ADDRESS}"), len(ANNOUNCE_AT_S))
        adds = [0.0, *link.times("add"), self.clock.seconds()]
        self.assertLess(max(later - earlier for earlier, later in pairwise(adds)), VALID_S)
        self.assertTrue(all(link.named))

    def test_news_after_a_loss(self) -> None:
        """Wherever a loss of seconds ends, the next news of an address comes within five more, for the first twenty."""
        for end in range(20):
            self.assertLessEqual(min(at for at in ANNOUNCE_AT_S if at >= end) - end, 5.0, end)

    def test_told(self) -> None:
        """Who wants to know hears of an address once, when it is taken and when it is given up."""
        leading, vips, _link = self.director()
        told: list[tuple[str, tuple[str, ...]]] = []
        vips.on_taken.append(lambda addresses: told.append(("taken", addresses)))
        vips.on_released.append(lambda addresses: told.append(("released", addresses)))
        self.pass_time(2.0)
        self.assertEqual(told, [])
        leading.resign()
        self.pass_time(1.0)
        self.assertEqual(told, [("released", (str(ADDRESS).partition("/")[0],))])
        self.pass_time(RESIGN_HOLD_S + 3.0)
        self.assertEqual([what for what, _ in told], ["released", "taken"])
        vips.stopService()
        self.assertEqual([what for what, _ in told], ["released", "taken", "released"])

    def test_not_named_not_taken(self) -> None:
        """While the store does not take the owner's name the address is not taken; then it is."""
        self.store.refused = KEYS.vips()
        leading, vips, link = self.director()
        self.pass_time(1.0)
        self.assertTrue(leading.leads)
        self.assertFalse(vips.held)
        self.assertEqual(link.done, [])
        self.store.refused = None
        self.pass_time(0.3)
        self.assertTrue(vips.held)

    def test_nobody_served(self) -> None:
        """While there is no service no address is named or taken; with the first one it is, and stays without any."""
        served = False
        self.patch(self, "wanted", lambda: served)
        _, vips, link = self.director()
        self.pass_time(1.0)
        self.assertEqual((vips.held, self.owner(), link.done), (False, None, []))
        served = True
        self.pass_time(0.3)
        self.assertTrue(vips.held)
        served = False
        self.pass_time(1.0)
        self.assertTrue(vips.held)

    def test_given_up_before_the_record(self) -> None:
        """At a resignation the address goes first; only then does the store forget the owner and the leader."""
        leading, _, link = self.director()
        resigned = leading.resign(hold_s=60.0)
        self.assertEqual((link.done[-1], link.named[-1]), (f"remove {ADDRESS}", True))
        self.pass_time()
        self.successResultOf(resigned)
        self.assertIsNone(self.owner())
        self.pass_time(5.0)
        self.assertEqual(link.done[-1], f"remove {ADDRESS}", "no late announcement, no refresh")

    def test_address_that_stays_keeps_its_record(self) -> None:
        """What could not be removed lives on for a moment: its record stays, for whoever leads next."""
        leading, _, link = self.director()
        link.broken = True
        self.successResultOf(leading.resign())
        self.assertIsNotNone(self.owner())

    def test_stopped(self) -> None:
        """A stop removes what is held and leaves no timer."""
        leading, vips, link = self.director()
        vips.stopService()
        self.assertEqual(link.done[-1], f"remove {ADDRESS}")
        self.successResultOf(leading.stopService())
        self.successResultOf(self.store.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_store_lost(self) -> None:
        """When the lease is not renewed any more the refreshing ends before it, and the address goes with it."""
        leading, vips, link = self.director()
        lease = leading._lease
        assert lease is not None
        lease.forget()  # type: ignore[attr-defined]
        lease.live = True  # type: ignore[attr-defined]  # promised, but not renewed
        end = self.clock.seconds() + leading.remaining_s()
        self.pass_time(2.1)
        adds = link.times("add")
        self.assertLessEqual(adds[-1], end - OUTLIVES_S + 1e-6)
        self.assertGreater(adds[-1], end - OUTLIVES_S - 0.3, "but it is refreshed up to there")
        self.assertEqual(link.done[-1], f"remove {ADDRESS}")
        self.assertFalse(vips.held)

    def test_promises_keep(self) -> None:
        """What the others have promised keeps the address where it is after the leadership has lapsed."""
        leading, vips, link = self.director()
        self.promised_s = 6.0
        self.store.refused = KEYS.leader()
        leading._follow(leading._machine.lease_lost(leading._lease.id, self.clock.seconds()))  # type: ignore[union-attr]
        del link.done[:]
        self.pass_time(2.0)
        self.assertFalse(leading.leads)
        self.assertTrue(vips.held)
        self.assertEqual(set(link.done), {f"add {ADDRESS} 1", f"announce {ADDRESS}"})
        self.promised_s = 0.0
        self.pass_time(0.3)
        self.assertFalse(vips.held)

    def test_broken_interface(self) -> None:
        """A leader that fails to add the address for a second makes room for another, and comes back later."""
        leading, _, link = self.director()
        link.broken = True
        self.pass_time(1.2)
        self.assertFalse(leading.leads)
        link.broken = False
        self.pass_time(31.0)
        self.assertTrue(leading.leads)


    def announced(self, link: RecordingLink) -> int:
        return link.done.count(f"announce {ADDRESS}")

    def test_flushed(self) -> None:
        """An address that somebody removed is added at the next turn and announced as often as one that was taken."""
        _, _, link = self.director()
        self.pass_time(ANNOUNCE_AT_S[-1] + 1)
        del link.done[:]
        link.befalls = Befell(lost=frozenset({ip_interface(ADDRESS).packed}))
        self.pass_time(ANNOUNCE_AT_S[-1] + 1)
        self.assertEqual(link.done[:2], [f"add {ADDRESS} 1", f"announce {ADDRESS}"])
        self.assertEqual(self.announced(link), len(ANNOUNCE_AT_S))

    def test_link_down(self) -> None:
        """What was on a link that was down is announced once it is up again; another's address concerns nobody."""
        _, _, link = self.director()
        self.pass_time(ANNOUNCE_AT_S[-1] + 1)
        del link.done[:]
        link.befalls = Befell(lost=frozenset({b"1234"}), interrupted=True, running=False)
        self.pass_time(2.0)
        self.assertEqual(self.announced(link), 0)
        link.befalls = Befell(running=True)
        self.pass_time(ANNOUNCE_AT_S[-1] + 1)
        self.assertEqual(self.announced(link), len(ANNOUNCE_AT_S))
        link.befalls = Befell(lost=frozenset({b"1234"}))
        self.pass_time(ANNOUNCE_AT_S[-1] + 1)
        self.assertEqual(self.announced(link), len(ANNOUNCE_AT_S))

    def test_befell_is_heard(self) -> None:
        """An address that somebody removes is there again as soon as the kernel says so, not at the next turn."""
        _, _, link = self.director()
        self.pass_time(0.1)
        link.befalls = Befell(lost=frozenset({ip_interface(ADDRESS).packed}))
        link.told()
        self.assertEqual(link.times("add")[-1], self.clock.seconds())
        self.assertEqual(link.done[-1], f"announce {ADDRESS}")

    def test_carrier_lost(self) -> None:
        """A leader whose link stays without a carrier makes room for another, and does not campaign before it has one again; one
        that has it again in a moment, or that is alone, goes on."""
        leading, vips, link = self.director()
        for self.rivals, down_s, held in ((True, CARRIER_S / 2, True), (False, 5.0, True), (True, CARRIER_S + 0.3, False)):
            link.befalls = Befell(interrupted=True, running=False)
            link.told()
            self.pass_time(down_s)
            self.assertEqual((vips.held, leading.leads), (held, held))
            link.befalls = Befell(running=held)
            link.told()
        self.assertEqual(link.done[-1], f"remove {ADDRESS}")
        self.pass_time(10.0)
        self.assertFalse(leading.leads)
        link.befalls = Befell(running=True)
        self.pass_time(2.0)
        self.assertTrue(leading.leads and vips.held)

    def test_cannot_add(self) -> None:
        """An address that cannot be added is neither told to be taken, nor announced, nor held, nor given up."""
        said: list[str] = []
        self.patch(Vips, "log", Lines(said))
        self.patch(RecordingLink, "broken_from_the_start", True)
        _, vips, link = self.director()
        self.assertEqual((vips.on, self.announced(link)), ((), 0))
        self.pass_time(1.2)
        self.assertEqual([line for line in said if "cannot add" not in line], [])
        self.assertIn("CAP_NET_ADMIN", said[0])
        link.broken = False
        self.pass_time(31.0)
        self.assertEqual([str(each) for each in vips.on], [ADDRESS])
        self.assertIn("1 virtual addresses taken on eth0", said)


class FenceTests(VipsTestCase):
    def test_opened_before_and_closed_before(self) -> None:
        """The fence is made closed; it is open before the address is there, until the lease's end, and again at every refresh;
        it is closed before the address goes. An orderly stop takes it away."""
        leading, vips, link = self.director()
        self.assertEqual((self.fence.asked, self.fence.before), (["made", "open"], 0))
        self.pass_time(1.0)
        self.assertEqual(self.fence.asked, ["made"] + ["open"] * len(link.times("add")))
        until_s = self.fence.until_ns / 1e9
        self.assertTrue(self.clock.seconds() < until_s <= self.clock.seconds() + leading.remaining_s())
        leading.resign()
        self.assertEqual((self.fence.asked[-1], self.fence.until_ns), ("close", 0))
        self.assertEqual(link.done[self.fence.before :], [f"remove {ADDRESS}"])
        vips.stopService()
        self.assertEqual(self.fence.asked[-1], "release")

    def test_address_that_stays(self) -> None:
        """While an address cannot be removed the fence stays, closed."""
        _, vips, link = self.director()
        link.broken = True
        vips.stopService()
        self.assertEqual(self.fence.asked[-2:], ["close", "leave"])

    def test_left_to_another_process(self) -> None:
        """Another process that goes on with the addresses finds the fence as it was."""
        _, vips, _ = self.director()
        vips.let_go()
        vips.stopService()
        self.assertEqual(self.fence.asked, ["made", "open", "leave"])

    def test_adopted(self) -> None:
        """Who takes over from another process makes its fence open, for as long as the lease it was given."""
        lease = self.successResultOf(self.store.lease(2.0))
        leading = Leading(self.store, KEYS, director="d1", boot_id="1", reactor=self.clock, boottime=self.clock.seconds)
        made: list[int] = []
        link = RecordingLink(self.store)

        def fence(until_ns: int) -> RecordingFence:
            made.append(until_ns)
            return RecordingFence(link, until_ns)

        vips = Vips(Config(interface="eth0", addresses=(ADDRESS,)), leading, self.store, KEYS, reactor=self.clock, link=link,
                    fence=fence, boottime=self.clock.seconds, monotonic=self.clock.seconds)
        leading.adopt(lease, 1)
        vips.adopt([ADDRESS], 1)
        vips.startService()
        self.assertEqual(made, [2_000_000_000])

    def test_kernel_refuses(self) -> None:
        """A leader whose fence the kernel does not open makes room for another, as one that cannot add its addresses."""
        leading, _, _ = self.director()
        self.fence.broken = True
        self.pass_time(1.2)
        self.assertFalse(leading.leads)

    def test_said(self) -> None:
        """That there is no fence is said once, with the reason."""
        said: list[str] = []
        self.patch(Vips, "log", Lines(said))
        self.patch(RecordingFence, "why", "old kernel")
        self.director()
        self.assertEqual([line for line in said if "old kernel" in line], [
            "no fence in the kernel for the virtual addresses, they end by their lifetime: old kernel"])


class Lines:
    """A log that keeps its lines."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def info(self, form: str, **values: object) -> None:
        self.lines.append(form.format(**values))

    error = warn = info


class LingerTests(VipsTestCase):
    def former(self, linger_s: float) -> None:
        owner = VipOwner(owner="d9", interface="eth0", term=1, since=1.0, linger_s=linger_s)
        self.successResultOf(self.store.commit([Put(KEY, msgspec.json.encode(owner))]))

    def test_waits_for_the_former_owner(self) -> None:
        """An address that may outlive the former owner's short lease is not taken before it is gone."""
        self.former(0.7)
        leading, vips, _ = self.director(ttl_s=1.0)
        self.assertTrue(leading.leads)
        self.pass_time(0.6)
        self.assertFalse(vips.held)
        self.pass_time(0.3)
        self.assertTrue(vips.held)
        owner = self.owner()
        assert owner is not None
        self.assertEqual((owner.owner, round(owner.linger_s, 2)), ("d1", 0.5))

    def test_absurd_wait(self) -> None:
        """A record that asks for a longer wait than any address lives is named, and waited for no longer than that."""
        self.store.refused = KEYS.leader()
        _, vips, _ = self.director()
        self.former(1e6)
        self.pass_time()
        self.assertIn("linger_s", vips.problems[KEY])
        self.store.refused = None
        self.pass_time(0.5)
        self.pass_time(OUTLIVES_S + 0.5)
        self.assertTrue(vips.held)

    def test_no_longer_than_needed(self) -> None:
        """The wait counts from when the former leader's record was seen to be gone, not from when a campaign succeeded, and
        the address is taken at its end, not at the next turn."""
        self.former(0.7)
        leader = Leader(name="d9", boot_id="9", since=1.0)
        lease = self.successResultOf(self.store.lease(1e6))
        self.successResultOf(self.store.commit([Put(KEYS.leader(), msgspec.json.encode(leader), lease.id)]))
        leading, vips, link = self.director(ttl_s=1.0)
        self.pass_time(0.5)
        self.assertFalse(leading.leads)
        self.store.refused = KEYS.leader()  # campaigns fail for a while
        gone = self.clock.seconds()
        self.successResultOf(self.store.commit([Delete(KEYS.leader())]))
        self.pass_time(0.1)
        self.store.refused = None
        while not vips.held and self.clock.seconds() < gone + 5:
            self.clock.pump([0.0, 0.0, 0.001])
        self.assertTrue(0.7 <= link.times("add")[0] - gone < 0.71)

    def test_no_wait_after_a_default_lease(self) -> None:
        """A lease of two seconds outlives its address: the next leader takes it at once."""
        self.former(0.0)
        self.assertTrue(self.director()[1].held)
