"""Which hosts are outliers of their group, for how long they are out, and how many at a time."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Outliers, Reason
from director.core.host import Host
from director.core.outliers import CHANCE, LONGEST, Comparison, Conduct, _no_chance
from director.core.pool import Pool, Ticket
from tests.unit.core.core_pools import pool_of

EARLY_S = 0.5
POLICY = Outliers()


class ComparisonTestCase(SynchronousTestCase):
    """A group whose hosts take clients in turn."""

    def setUp(self) -> None:
        self.now = 100.0
        self.policy = POLICY
        self.begin(4)

    def begin(self, hosts: int) -> None:
        self.pool: Pool = pool_of("roundrobin", [1.0] * hosts)
        self.comparison = Comparison(self.now)
        self.conducts = [self.comparison.add(host, self.now) for host in self.pool.hosts.values()]
        self.open: list[Ticket] = []

    def conduct(self, ticket: Ticket) -> Conduct:
        return self.conducts[int(ticket.host.name[1:])]

    def failed(self, ticket: Ticket) -> str:
        ticket.release(Reason.HOST_CLOSED, self.now)
        elsewhere = self.pool.in_flight - ticket.host.in_flight
        return self.comparison.failed(self.conduct(ticket), elsewhere, self.now, self.policy, EARLY_S)

    def pick(self) -> Ticket:
        ticket = self.pool.pick(None, self.now)
        assert ticket is not None
        return ticket

    def client(self, *failing: int) -> str:
        """One comes and ends; why its host, if it is one of *failing*, is an outlier now."""
        ticket = self.pick()
        if int(ticket.host.name[1:]) in failing:
            return self.failed(ticket)
        ticket.release(Reason.CLIENT_CLOSED, self.now)
        return ""

    def clients(self, number: int, *failing: int) -> list[str]:
        """So many come, until one is found out."""
        found = []
        for _ in range(number):
            found.append(self.client(*failing))
            if found[-1]:
                break
        return found

    def ticket_at(self, index: int) -> Ticket:
        """Of a client that comes to that host."""
        ticket = self.pool.pick(None, self.now, [host for host in self.pool.hosts.values() if host.name != f"h{index}"])
        assert ticket is not None
        return ticket

    def at(self, index: int, served: int, failed: int = 0) -> None:
        """So many clients of that host come and end."""
        for _ in range(failed):
            self.failed(self.ticket_at(index))
        for _ in range(served):
            self.ticket_at(index).release(Reason.CLIENT_CLOSED, self.now)

    def until_found(self, index: int = 0) -> str:
        """Clients of that host fail until it is an outlier by it; why, and empty if it never is."""
        return next((why for _ in range(40) if (why := self.failed(self.ticket_at(index)))), "")

    def eject(self, index: int, why: str = "bad") -> float | None:
        return self.comparison.eject(self.conducts[index], why, in_rotation=self.pool.available, now=self.now,
                                     policy=self.policy)

    def window(self, seconds: float | None = None) -> list[str]:
        """Time passes; who is an outlier by the window that is over then."""
        self.now += self.policy.window_s if seconds is None else seconds
        return [each.host.name for each, _ in self.comparison.close_window(self.now, self.policy)]


class InARowTests(ComparisonTestCase):
    def test_one_of_four(self) -> None:
        """The fifth failure of the one that serves nobody is enough, and says why."""
        self.clients(100)
        found = self.clients(100, 2)
        self.assertEqual(self.conducts[2].failures, 5)
        self.assertIn("5 of its last 5 clients failed", found[-1])

    def test_from_the_beginning(self) -> None:
        """Without a past, what the others have done meanwhile will do; few of them need a few failures more."""
        self.assertTrue(self.clients(100, 2)[-1])
        self.assertLessEqual(self.conducts[2].failures, 8)

    def test_all_of_them(self) -> None:
        """Where every host gets rid of clients at once, that is how they are, or somebody else's fault."""
        self.assertFalse(any(self.clients(1000, 0, 1, 2, 3)))
        self.window()
        self.assertFalse(any(self.clients(1000, 0, 1, 2, 3)))

    def test_all_at_once(self) -> None:
        """Of those who came in one moment nobody knows anything yet."""
        tickets = sorted((self.pick() for _ in range(400)), key=lambda ticket: ticket.host.name)
        self.assertFalse(any(self.failed(ticket) for ticket in tickets))

    def test_chance(self) -> None:
        """Where clients fail by chance, and often, nobody is an outlier for long rows of them."""
        draw = random.Random(5)
        for share in (0.01, 0.1, 0.5):
            self.begin(4)
            for count in range(40_000):
                if count % 1000 == 0:
                    self.window()
                self.assertEqual(self.client(*(range(4) if draw.random() < share else ())), "", share)

    def test_served_in_between(self) -> None:
        """A host that serves more than it fails has none in a row, however long the connections are open."""
        self.clients(100)
        for _ in range(200):
            tickets = [self.pick() for _ in range(12)]
            mine = [ticket for ticket in tickets if ticket.host.name == "h1"]
            self.assertEqual(self.failed(mine[0]), "")

    def test_takes_everybody(self) -> None:
        """A host that is always free is given all clients, while the others have theirs for hours."""
        held = [self.pick() for _ in range(40)]
        for ticket in held:
            if ticket.host.name == "h0":
                ticket.release(Reason.CLIENT_CLOSED, self.now)
        for name in ("h1", "h2", "h3"):
            self.pool.set_available(self.pool.hosts[name], False, False)
        self.window(LONGEST * POLICY.window_s)
        self.assertTrue(self.clients(8, 0)[-1])

    def test_nobody_else(self) -> None:
        """A host that alone has clients is compared with nobody."""
        self.begin(1)
        self.clients(200)
        self.assertFalse(any(self.clients(200, 0)))

    def test_off(self) -> None:
        self.policy = replace(POLICY, consecutive=0)
        self.assertFalse(any(self.clients(400, 2)))

    def test_after_its_return(self) -> None:
        """The first failure is enough then; but not once somebody was served."""
        self.clients(100)
        for served, needed in ((0, 1), (8, 5)):
            self.eject(2)
            self.now += 31
            self.comparison.release(self.conducts[2], self.now)
            before = self.conducts[2].failures
            self.clients(served)
            self.assertTrue(self.clients(400, 2)[-1])
            self.assertEqual(self.conducts[2].failures - before, needed)


class KnownTests(ComparisonTestCase):
    """How many failures in a row it takes, by what is known of the others: n where p^n is below 1e-8."""

    def test_clients(self) -> None:
        """Five clients of others, at least; p is of them and two more, of which one failed."""
        for served, failed, why in (
            (4, 0, ""), (5, 0, "10 of its last 10 clients failed, of others 14% at most"),
            (4, 1, "15 of its last 15 clients failed, of others 29% at most"),
            (2, 3, "33 of its last 33 clients failed, of others 57% at most"),
            (100, 0, "5 of its last 5 clients failed, of others 1% at most"),
        ):
            self.begin(2)
            self.at(1, served, failed)
            self.assertEqual(self.until_found(), why)

    def test_window_before(self) -> None:
        """What the others did in the window before counts on, for one window, and what the host did itself is no part of it."""
        for windows, why in ((1, "15 of its last 15 clients failed, of others 29% at most"), (2, "")):
            self.begin(2)
            self.at(0, 4, 2)
            self.at(1, 4, 1)
            for _ in range(windows):
                self.assertEqual(self.window(LONGEST * POLICY.window_s), [])
            self.assertEqual(self.until_found(), why)

    def test_both_windows(self) -> None:
        self.begin(2)
        for _ in range(2):
            self.assertEqual(self.window(LONGEST * POLICY.window_s), [])
            self.at(0, 9, 1)
            self.at(1, 5, 1)
        self.assertIn("of others 21% at most", self.until_found())  # (2 + 1) / (12 + 2)

    def test_open(self) -> None:
        """Those that are open count once they are too old to fail at once; as many as came lately are not."""
        found = "10 of its last 10 clients failed, of others 14% at most"
        for held, served, after_s, why in (
            (5, 0, 0.25, ""), (5, 0, 0.5, found), (4, 0, 0.5, ""), (5, 2, 0.5, ""), (7, 2, 0.5, found), (7, 2, 0.25, ""),
            (4, 9, 0.25, found), (4, 8, 0.5, ""),
        ):
            self.begin(2)
            self.open = [self.ticket_at(1) for _ in range(held)]
            for _ in range(2):  # the window before has nothing to say
                self.window(LONGEST * POLICY.window_s)
            self.at(1, served)
            self.now += after_s
            self.assertEqual(self.until_found(), why, (held, served, after_s))

    def test_row(self) -> None:
        """It begins at a failure, and goes on for as many that were served as have failed."""
        for before, failed, between, row in ((0, 1, 2, "5 of its last 7"), (0, 1, 3, "5 of its last 5"), (1, 0, 0, "5 of its last 5"),
                                             (2, 0, 0, "5 of its last 5"), (0, 2, 3, "5 of its last 8")):
            self.begin(2)
            self.at(1, 1000)
            self.at(0, before)
            self.at(0, between, failed)
            self.assertIn(row, self.until_found(), (before, failed, between))

    def test_later_row(self) -> None:
        """A row that begins anew, since clients were served, counts from that failure on, and who was served after it."""
        self.begin(2)
        self.at(1, 1000)
        self.at(0, 3, 1)
        self.at(0, 1, 1)
        self.assertIn("5 of its last 6", self.until_found())

    def test_rare(self) -> None:
        """The first failure after a return is enough where at most a tenth of the others fail."""
        for others, why in ((8, "1 of its last 1 clients failed, of others 10% at most"),
                            (7, "9 of its last 9 clients failed, of others 11% at most")):
            self.begin(2)
            self.at(1, others)
            self.eject(0)
            self.now += 30
            self.comparison.release(self.conducts[0], self.now)
            self.assertEqual(self.until_found(), why)

    def test_client_of_before(self) -> None:
        """It is enough when a client fails that came before the host was ejected."""
        self.at(1, 100)
        ticket = self.ticket_at(0)
        self.eject(0)
        self.comparison.release(self.conducts[0], self.now)
        self.assertEqual(self.failed(ticket), "1 of its last 1 clients failed, of others 1% at most")

    @given(st.integers(1, 60), st.integers(0, 60), st.floats(0.001, 0.999))
    def test_no_chance(self, failed: int, served: int, share: float) -> None:
        """As the ways to choose those that failed, times the chance that all of them do."""
        chance = math.comb(failed + served, failed) * share**failed
        if abs(chance / CHANCE - 1) > 1e-6:
            self.assertIs(_no_chance(failed + served, failed, share), chance < 1e-8)


class WindowTests(ComparisonTestCase):
    def some(self, each: int, of: int, *failing: int) -> None:
        """Of every *of* rounds of clients *each* fail at the hosts *failing*."""
        for count in range(100):
            for _ in self.conducts:
                self.client(*(failing if count % of < each else ()))

    def test_share(self) -> None:
        """A third of them, where the others fail none; a tenth is too little to be sure."""
        self.some(1, 10, 1)
        self.assertEqual(self.window(), [])
        self.some(1, 3, 1)
        self.assertEqual(self.window(), ["h1"])
        self.assertEqual(self.window(), [])

    def test_beside_the_others(self) -> None:
        """As many as the others, or nearly, is no outlier."""
        self.some(1, 2, 0, 1, 2, 3)
        self.assertEqual(self.window(), [])

    def test_among_failures(self) -> None:
        """Where half fail everywhere, three quarters of 84 are chance; of 120 they are none."""
        for clients, outliers in ((84, []), (120, ["h1"])):
            self.begin(4)
            for count in range(clients):
                for _ in self.conducts:
                    self.client(*((0, 2, 3) if count % 2 else ()), *((1,) if count % 4 else ()))
            self.assertEqual(self.window(), outliers, clients)

    def test_beside_fewer_others(self) -> None:
        """The others' share is theirs alone, and what nobody has seen of them counts as one failure of two clients."""
        self.begin(2)
        for count in range(100):
            for _ in self.conducts:
                self.client(1, *((0,) if count % 5 == 0 else ()))
        self.now += self.policy.window_s
        [(conduct, why)] = self.comparison.close_window(self.now, self.policy)
        self.assertEqual((conduct.host.name, why), ("h1", "100% of its 100 clients failed, of others 21%"))  # (20 + 1) / (100 + 2)

    def test_few_clients(self) -> None:
        """A window goes on until there are enough, five minutes at most; a share of fewer says nothing."""
        for count in range(40):
            for _ in self.conducts:
                self.client(*((1,) if count % 2 else ()))
        self.assertEqual(self.window(), [])
        for _ in range(80):
            self.client()
        self.assertEqual(self.window(), ["h1"])
        self.clients(8, 1)
        self.assertEqual(self.window(LONGEST * POLICY.window_s), [])
        self.assertEqual(self.conducts[1].failures, 0)

    def test_borders(self) -> None:
        """Fifty clients of its own, fifty of others, five failures, and a fifth more than the others: each at least."""
        for mine, failed, others, changes, outliers in (
            (50, 11, 50, {}, ["h0"]), (50, 10, 50, {}, []), (49, 49, 51, {}, []), (51, 51, 49, {}, []),
            (50, 11, 50, {"consecutive": 11}, ["h0"]), (50, 11, 50, {"consecutive": 12}, []),
            (50, 11, 50, {"failure_share": 0.21}, []), (1, 1, 1000, {"samples": 1, "consecutive": 1}, ["h0"]),
            (1, 1, 1000, {"samples": 1, "consecutive": 0}, ["h0"]),
        ):
            self.begin(2)
            self.policy = replace(POLICY, **changes)
            self.at(0, mine - failed, failed)
            self.at(1, others)
            self.assertEqual(self.window(), outliers, (mine, failed, others, changes))

    def test_over(self) -> None:
        """A window ends after its time, with fifty clients for each host; or with fewer after thirty times as long."""
        for clients, windows in ((150, 1), (149, LONGEST)):
            self.begin(4)
            self.at(0, 39, 11)
            self.at(1, clients)
            self.assertEqual(self.window(POLICY.window_s - 1), [])
            ends = [self.window(1 if index == 0 else None) for index in range(windows)]
            self.assertEqual(ends, [*[[]] * (windows - 1), ["h0"]])

    def test_worst_first(self) -> None:
        self.begin(8)
        for count in range(100):
            for _ in self.conducts:
                self.client(*((1,) if count % 2 else ()), *((5,) if count % 4 else ()))
        self.assertEqual(self.window(), ["h5", "h1"])

    def connects(self, *took_s: float) -> None:
        for conduct, each_s in zip(self.conducts, took_s, strict=True):
            conduct.connects, conduct.connect_s = 60, 60 * each_s
        self.clients(len(self.conducts) * POLICY.samples)

    def test_slow(self) -> None:
        """Much slower than the others, and slow: both."""
        for took_s, outliers in (((0.001, 0.001, 0.002, 0.9), ["h3"]), ((0.0001, 0.0001, 0.0001, 0.2), []),
                                 ((0.3, 0.3, 0.3, 0.9), []), ((1.0, 1.0, 1.0, 1.0), []), ((1.0, 1.0, 1.0, 0.001), [])):
            self.connects(*took_s)
            self.assertEqual(self.window(), outliers, took_s)
            self.assertEqual({(each.connects, each.connect_s) for each in self.conducts}, {(0, 0.0)}, "the next window's")
        self.policy = replace(POLICY, latency_factor=0.0)
        self.connects(0.001, 0.001, 0.002, 0.9)
        self.assertEqual(self.window(), [])

    def test_slow_borders(self) -> None:
        """Slower than half a second, than five times the others' median, by the mean of fifty connects: each for itself."""
        for connects, took_s, outliers in (
            (50, (0.01, 0.01, 0.01, 0.5), []), (50, (0.01, 0.01, 0.01, 0.501), ["h3"]), (49, (0.01, 0.01, 0.01, 0.9), []),
            (50, (0.1, 0.2, 0.3, 1.0), []), (50, (0.1, 0.2, 0.3, 1.001), ["h3"]),
            (50, (0.1, 0.1, 0.3, 0.3, 1.0), []), (50, (0.1, 0.1, 0.3, 0.3, 1.001), ["h4"]),
        ):
            self.begin(len(took_s))
            self.connects(*took_s)
            self.conducts[-1].connects, self.conducts[-1].connect_s = connects, connects * took_s[-1]
            self.assertEqual(self.window(), outliers, (connects, took_s))

    def test_slow_says_why(self) -> None:
        """After those that fail clients, however few."""
        self.begin(4)
        self.connects(0.1, 0.2, 0.3, 1.1)
        self.at(0, 100, 100)
        self.now += POLICY.window_s
        self.assertEqual([(each.host.name, why) for each, why in self.comparison.close_window(self.now, self.policy)],
                         [("h0", "40% of its 250 clients failed, of others 1%"),
                          ("h3", "its connects took 1100 ms, those of others 200 ms")])

    def test_slow_of_two(self) -> None:
        self.begin(2)
        self.connects(0.001, 0.9)
        self.assertEqual(self.window(), ["h1"])


class EjectionTests(ComparisonTestCase):
    def test_cap(self) -> None:
        """One may always be; more up to the share."""
        for hosts, share, most in ((2, 0.0, 1), (4, 0.1, 1), (19, 0.1, 1), (20, 0.1, 2), (10, 0.3, 3), (4, 1.0, 3), (1, 1.0, 0),
                                   (100, 0.29, 29)):  # 28.999999999999996, to a computer
            self.begin(hosts)
            self.policy = replace(POLICY, max_ejected=share)
            for index in range(hosts):
                if self.eject(index) is not None:
                    self.pool.set_available(self.conducts[index].host, False, True)
            self.assertEqual(len(self.comparison.ejected), most, (hosts, share))

    def test_forgotten_one_by_one(self) -> None:
        """Each 30 s in rotation take one ejection back."""
        for _ in range(3):
            self.eject(0)
            self.comparison.release(self.conducts[0], self.now)
        for after_s, left in ((29.0, 3), (1.0, 2), (1.0, 2), (30.0, 1), (29.0, 0), (30.0, 0)):
            self.now += after_s
            self.assertEqual([look(self.now, self.policy) for look in (self.conducts[0].counted, self.conducts[0].times)],
                             [left, left])

    def test_not_forgotten_while_it_is_out(self) -> None:
        for _ in range(3):
            self.eject(0)
            self.comparison.release(self.conducts[0], self.now)
        self.eject(0)
        self.now += 100.0
        self.assertEqual([look(self.now, self.policy) for look in (self.conducts[0].counted, self.conducts[0].times)], [4, 4])

    def test_longer_each_time(self) -> None:
        """And as short as before after as long in rotation."""
        spans = []
        for _ in range(12):
            for_s = self.eject(0)
            assert for_s is not None
            spans.append(for_s)
            self.assertIsNone(self.eject(0))
            self.now += for_s
            self.assertEqual(self.comparison.due(self.now, self.policy), [self.conducts[0]])
            self.comparison.release(self.conducts[0], self.now)
        self.assertEqual(spans, [30.0, 60.0, 90.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0, 300.0, 300.0])
        self.now += 10 * POLICY.ejection_s
        self.assertEqual(self.eject(0), 90.0)
        self.comparison.release(self.conducts[0], self.now)
        self.now += 1000.0
        self.assertEqual(self.eject(0), 30.0)

    def test_least_maximum(self) -> None:
        """A maximum below the first time is no way to eject for nothing."""
        self.policy = replace(POLICY, max_ejection_s=1.0)
        self.assertEqual(self.eject(0), 30.0)

    def test_smaller_group(self) -> None:
        """What was allowed in a larger group, or under another policy, is given back, the first that was to return first."""
        self.begin(10)
        self.policy = replace(POLICY, max_ejected=0.3)
        for index in range(3):
            self.eject(index)
            self.now += 1
        self.assertEqual(self.comparison.due(self.now, self.policy), [])
        for conduct in self.conducts[4:]:
            self.comparison.discard(conduct.host)
        self.assertEqual(self.comparison.due(self.now, self.policy), self.conducts[:2])
        self.assertEqual(self.comparison.due(self.now, replace(self.policy, enabled=False)), self.conducts[:3])

    def test_gone(self) -> None:
        """A host that was removed is ejected no more."""
        self.eject(1)
        self.comparison.discard(self.conducts[1].host)
        self.assertEqual(self.comparison.due(self.now + 1e6, self.policy), [])
        self.assertIsInstance(self.conducts[1].host, Host)
