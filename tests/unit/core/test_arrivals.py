"""Open connections and new ones a second, of networks and of a service."""

from __future__ import annotations

import socket
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import Misuse
from cluster.model import Limits, Reason
from director.core.arrivals import Arrivals

FULL, FAST, SERVICE = Reason.CLIENT_FULL, Reason.CLIENT_RATE, Reason.SERVICE_RATE


def ip(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def open_of(arrivals: Arrivals, client: bytes) -> int:
    network = arrivals._open.get(arrivals.network(client))
    return network.open if network is not None else 0


A, B = ip("192.0.2.1"), ip("192.0.2.2")

#: Steps of a client: which one, what it does, and how much time passes before.
STEPS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["enter", "leave"]),
                           st.sampled_from([0.0, 0.125, 0.5, 2.0])), max_size=80)
LIMITS = st.builds(Limits, max_connections_per_client=st.integers(0, 3), new_per_client_per_s=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
                   new_per_s=st.sampled_from([0.0, 0.5, 2.0, 8.0]))


class ArrivalsTests(SynchronousTestCase):
    def test_open_connections(self) -> None:
        """As many as a network may have; who leaves makes room; others have their own."""
        arrivals = Arrivals(Limits(max_connections_per_client=2), 0.0)
        self.assertEqual([arrivals.enter(A, 0.0) for _ in range(3)], [None, None, FULL])
        self.assertIsNone(arrivals.enter(B, 0.0))
        arrivals.leave(A, 0.0)
        self.assertEqual([arrivals.enter(A, 0.0) for _ in range(2)], [None, FULL])
        self.assertEqual((open_of(arrivals, A), open_of(arrivals, B)), (2, 1))

    def test_rate(self) -> None:
        """A second's worth at once, then one for each 1/rate seconds; who is refused pays nothing."""
        arrivals = Arrivals(Limits(new_per_client_per_s=2.0), 0.0)
        self.assertEqual([arrivals.enter(A, 0.0) for _ in range(9)], [None, None] + [FAST] * 7)
        self.assertEqual([arrivals.enter(A, at) for at in (0.25, 0.5, 0.75, 1.0)], [FAST, None, FAST, None])
        self.assertIsNone(arrivals.enter(B, 1.0))

    def test_less_than_one_a_second(self) -> None:
        """One at once all the same."""
        arrivals = Arrivals(Limits(new_per_client_per_s=0.5, new_per_s=0.25), 0.0)
        self.assertEqual([arrivals.enter(A, at) for at in (0.0, 1.0, 2.0, 4.0)], [None, FAST, SERVICE, None])

    def test_rate_of_the_service(self) -> None:
        """All clients together, those of UNIX sockets too; what a network may not have anyway takes nothing of it."""
        arrivals = Arrivals(Limits(new_per_s=3.0, new_per_client_per_s=1.0), 0.0)
        self.assertEqual([arrivals.enter(each, 0.0) for each in (A, A, A, B, None, None)], [None, FAST, FAST, None, None, SERVICE])

    def test_refused_by_the_service(self) -> None:
        """Costs the network nothing: when the service has room, it has its turn."""
        arrivals = Arrivals(Limits(new_per_s=1.0, new_per_client_per_s=1.0), 0.0)
        self.assertEqual([arrivals.enter(each, 0.0) for each in (A, B, B)], [None, SERVICE, SERVICE])
        self.assertIsNone(arrivals.enter(B, 1.0))

    def test_networks(self) -> None:
        """IPv4 by the address, mapped into IPv6 or not, IPv6 by the /64; or by what the limits say."""
        arrivals = Arrivals(Limits(), 0.0)
        for one, other, same in (
            ("192.0.2.1", "::ffff:192.0.2.1", True), ("192.0.2.1", "192.0.2.2", False),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True), ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False), ("0.0.0.0", "::", False),
        ):
            self.assertEqual(arrivals.network(ip(one)) == arrivals.network(ip(other)), same, (one, other))
        wide = Arrivals(Limits(client_ipv4_prefix=20, client_ipv6_prefix=50), 0.0)
        for one, other, same in (
            ("10.1.16.0", "10.1.31.255", True), ("10.1.16.0", "10.1.32.0", False),
            ("2001:db8:0:3fff::", "2001:db8::", True), ("2001:db8:0:4000::", "2001:db8::", False),
        ):
            self.assertEqual(wide.network(ip(one)) == wide.network(ip(other)), same, (one, other))

    def test_those_who_are_there(self) -> None:
        """Count from the start, and nobody is thrown out when limits fall."""
        arrivals = Arrivals(Limits(max_connections_per_client=2), 0.0, [A, A, A, None])
        self.assertEqual((open_of(arrivals, A), arrivals.enter(A, 0.0)), (3, FULL))
        arrivals.configure(Limits(max_connections_per_client=4), 1.0)
        self.assertEqual([arrivals.enter(A, 1.0) for _ in range(2)], [None, FULL])
        arrivals.configure(Limits(), 1.0)
        self.assertEqual([arrivals.enter(A, 1.0) for _ in range(9)], [None] * 9)

    def test_nobody_to_leave(self) -> None:
        arrivals = Arrivals(Limits(max_connections_per_client=2), 0.0)
        arrivals.leave(None, 0.0)
        self.assertRaises(Misuse, arrivals.leave, A, 0.0)

    def test_memory(self) -> None:
        """Networks that come once are forgotten when their buckets are full again, and at the bound before that; who hammers
        on is not."""
        arrivals = Arrivals(Limits(new_per_client_per_s=1.0), 0.0, max_idle=50)
        self.assertIsNone(arrivals.enter(A, 0.0))
        arrivals.leave(A, 0.0)
        for number in range(1000):
            other = bytes(12) + number.to_bytes(4, "big")
            other = other[8:] + other[:8]
            self.assertIsNone(arrivals.enter(other, 0.1))
            arrivals.leave(other, 0.1)
            self.assertEqual(arrivals.enter(A, 0.1), FAST)
            self.assertLessEqual(arrivals.networks, 50)
        for number in range(100):
            self.assertIsNone(arrivals.enter(B, 2.0 + number))
            arrivals.leave(B, 2.0 + number)
        self.assertEqual(arrivals.networks, 1)

    def test_no_rate_no_memory(self) -> None:
        """Of networks without connections nothing is remembered, where only open ones count."""
        arrivals = Arrivals(Limits(max_connections_per_client=1), 0.0)
        for each in (A, B):
            arrivals.enter(each, 0.0)
            arrivals.leave(each, 0.0)
        self.assertEqual(arrivals.networks, 0)

    def test_what_is_limited(self) -> None:
        self.assertFalse(Arrivals.limited(Limits(max_connections=5, queue=1, client_ipv6_prefix=48)))
        for limits in (Limits(new_per_s=1.0), Limits(max_connections_per_client=1), Limits(new_per_client_per_s=0.1)):
            self.assertTrue(Arrivals.limited(limits))

    @given(STEPS, LIMITS)
    def test_properties(self, steps: list[tuple[int, str, float]], limits: Limits) -> None:
        """Never more open than allowed, never more new ones in a stretch of time than a burst and the rate give; and whoever is
        refused could not have been let in."""
        arrivals, now = Arrivals(limits, 0.0), 0.0
        there: Counter[bytes] = Counter()
        came: list[tuple[float, bytes]] = []
        for client, does, wait in steps:
            now += wait
            packed = bytes((192, 0, 2, client))
            if does == "leave":
                if there[packed]:
                    arrivals.leave(packed, now)
                    there[packed] -= 1
                continue
            refusal = arrivals.enter(packed, now)
            if refusal is None:
                there[packed] += 1
                came.append((now, packed))
            if refusal is FULL:
                self.assertEqual(there[packed], limits.max_connections_per_client)
            self.assertEqual(open_of(arrivals, packed), there[packed])
            if limits.max_connections_per_client:
                self.assertLessEqual(there[packed], limits.max_connections_per_client)
            own = [at for at, who in came if who == packed]
            for rate, times, why in ((limits.new_per_client_per_s, own, FAST), (limits.new_per_s, [at for at, _ in came], SERVICE)):
                if not rate:
                    self.assertIsNot(refusal, why)
                    continue
                most = [max(1.0, rate) + rate * (now - start) - sum(at >= start for at in times) for start in [0.0, *times]]
                self.assertGreaterEqual(min(most), -1e-6)
                if refusal is why:
                    self.assertLess(min(most), 1)
