"""The arithmetic of load reports, and the counting of connections."""

from __future__ import annotations

import errno
import socket
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from agent.connections import ConnectionCounter, count_diag, count_proc, diag_request
from agent.load import LoadMeter, Sample, Stated
from agent.utilisation import Own
from cluster import wire
from cluster.model import LoadReport


class Metering(SynchronousTestCase):
    def test_an_interval(self) -> None:
        """Rate, errors and mean latency are of what finished in the interval; what is open is carried over."""
        meter = LoadMeter(10.0)
        for _ in range(5):
            meter.begin()
        meter.finish(latency_s=0.2)
        meter.finish(latency_s=0.4)
        meter.finish(ok=False)
        report = meter.cut(Sample(), 12.0)
        self.assertEqual((report.in_flight, report.rate, report.completions), (2, 1.5, 3))
        self.assertAlmostEqual(report.errors or 0, 1 / 3)
        self.assertAlmostEqual(report.latency_s or 0, 0.3)
        report = meter.cut(Sample(), 13.0)
        self.assertEqual(report, LoadReport(in_flight=2, rate=0.0, completions=0))

    def test_unknown_stays_unknown(self) -> None:
        """An agent beside a service that tells nothing reports what the machine says, and no rate of 0."""
        sample = Sample(cpu=0.25, memory=0.5, load=1.0, connections=7)
        report = LoadMeter(0.0).cut(sample, 1.0)
        self.assertEqual(report, LoadReport(utilisation=0.25, in_flight=7,
                                            custom={"cpu": 0.25, "memory": 0.5, "load": 1.0}))
        self.assertEqual(LoadMeter(0.0).cut(Sample(), 1.0), LoadReport())

    def test_utilisation_is_of_the_scarcest(self) -> None:
        """CPU, or what is in flight of what can be; at most 1; what the application says counts alone."""
        for cpu, in_flight, stated, expected in (
            (0.3, 5, None, 0.5), (0.7, 5, None, 0.7), (None, 5, None, 0.5), (0.1, 50, None, 1.0), (0.9, 9, 0.2, 0.2),
        ):
            meter = LoadMeter(0.0, max_in_flight=10)
            meter.stated = Stated(utilisation=stated)
            self.assertEqual(meter.cut(Sample(cpu=cpu, connections=in_flight), 1.0).utilisation, expected)

    def test_the_service_apart_from_the_machine(self) -> None:
        """The service's own utilisation stands in for the machine's, and both go along."""
        own = Own("cgroup", 0.9, 0.8, throttled=0.1, memory=0.5)
        report = LoadMeter(0.0).cut(Sample(cpu=0.1, own=own), 1.0)
        self.assertEqual(report, LoadReport(utilisation=0.9, custom={
            "cpu": 0.1, "cgroup_cpu": 0.8, "cgroup_memory": 0.5, "throttled": 0.1}))
        report = LoadMeter(0.0).cut(Sample(cpu=0.95, own=Own("process", 0.5, 0.4)), 1.0)
        self.assertEqual(report, LoadReport(utilisation=0.5, custom={"cpu": 0.95, "process_cpu": 0.4}))

    def test_whose_in_flight(self) -> None:
        """Stated before counted before the port's connections."""
        meter = LoadMeter(0.0)
        self.assertEqual(meter.in_flight(9), 9)
        meter.begin()
        self.assertEqual(meter.in_flight(9), 1)
        meter.stated = Stated(in_flight=4)
        self.assertEqual(meter.in_flight(9), 4)

    def test_what_no_report_can_carry(self) -> None:
        """Values out of range, not finite, or too many are refused where they are stated."""
        Stated(utilisation=1.0, custom={"queue": 3.0}).check()
        for wrong in (
            Stated(utilisation=1.1), Stated(in_flight=-1), Stated(latency_s=float("nan")),
            Stated(custom={"x": float("inf")}), Stated(custom={str(n): 1.0 for n in range(wire.MAX_CUSTOM - 2)}),
            Stated(custom={"x" * 64: 1.0}),
        ):
            self.assertRaises(ValueError, wrong.check)

    @given(st.lists(st.tuples(st.booleans(), st.booleans(), st.none() | st.floats(-1, 1e5)), max_size=30),
           st.floats(0.01, 100))
    def test_reports_are_always_valid(self, events: list[tuple[bool, bool, float | None]], elapsed: float) -> None:
        """Whatever an application counts, even more ends than beginnings, fits the wire."""
        meter = LoadMeter(0.0, max_in_flight=3)
        for begin, ok, latency_s in events:
            if begin:
                meter.begin()
            else:
                meter.finish(ok=ok, latency_s=latency_s)
        line = wire.encode(wire.Report(seq=1, load=meter.cut(Sample(cpu=0.5), elapsed)))
        director = wire.Conversation(wire.Role.DIRECTOR)
        director.receive_data(wire.encode(wire.Hello(
            version=1, agent="a", boot_id="b", hosts=[wire.HostClaim(host="a/b/c")])))
        director.next_message()
        director.send(wire.Welcome(version=1, director="d", interval_s=1))
        director.receive_data(line)
        self.assertIsInstance(director.next_message(), wire.Report)


def diag_message(port: int, kind: int = 20) -> bytes:
    """One answer: header, inet_diag_msg with *port* as its source, padding to 72 bytes."""
    body = struct.pack("=BBBB", socket.AF_INET, 1, 0, 0) + struct.pack("!HH", port, 4000)
    return struct.pack("=IHHII", 16 + 72, kind, 2, 1, 0) + body.ljust(72, b"\0")


DONE = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)


class Counting(SynchronousTestCase):
    def test_netlink(self) -> None:
        """Only the port's sockets count; the end is told; an error raises."""
        data = diag_message(80) + diag_message(81) + diag_message(80)
        self.assertEqual(count_diag(data, 80), (2, False))
        self.assertEqual(count_diag(data + DONE, 80), (2, True))
        self.assertRaises(OSError, count_diag, diag_message(80, kind=2), 80)
        self.assertRaises(OSError, count_diag, bytes(16), 80)
        self.assertEqual(len(diag_request(socket.AF_INET)), 72)

    def test_proc(self) -> None:
        """The text of ``/proc/net/tcp`` says the same; other states and ports do not count."""
        lines = [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            "   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1",
            "   1: 0100007F:0050 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1",
            "   2: 0100007F:D431 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 3 1",
            "   3: 00000000000000000000000001000000:0050 00000000000000000000000001000000:D432 01 0:0 00:0 0 0 0 4",
            "",
        ]
        self.assertEqual(count_proc(lines, 80), 2)

    def test_counts_cost_their_share_at_most(self) -> None:
        """A slow count stands for fifty times as long as it took."""
        clock = Clock()
        calls: list[int] = []

        def slow(port: int) -> int:
            calls.append(port)
            clock.advance(0.05)
            return len(calls)

        counter = ConnectionCounter(80, monotonic=clock.seconds, readers=(slow,))
        self.assertEqual([counter.count(), counter.count()], [1, 1])
        clock.advance(2.4)
        self.assertEqual(counter.count(), 1)
        clock.advance(0.2)
        self.assertEqual(counter.count(), 2)

    def test_the_next_reader_takes_over(self) -> None:
        """A kernel that does not answer is not asked again; with nobody left the count is unknown."""
        def refuse(port: int) -> int:
            raise PermissionError("no")

        self.assertEqual(ConnectionCounter(80, monotonic=lambda: 0.0, readers=(refuse, lambda _: 3)).count(), 3)
        self.assertIsNone(ConnectionCounter(80, monotonic=lambda: 0.0, readers=(refuse,)).count())

    def test_a_shortage_is_no_refusal(self) -> None:
        """A reader that could not ask, for want of a descriptor, is asked again."""
        errors = [OSError(errno.EMFILE, "Too many open files")]

        def read(port: int) -> int:
            if errors:
                raise errors.pop()
            return 3

        counter = ConnectionCounter(80, monotonic=lambda: 0.0, readers=(read,))
        self.assertEqual([counter.count(), counter.count()], [None, 3])
