"""The fence in real kernels: what comes to a virtual address, and what says that it is here, ends at the deadline."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address, ip_interface

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from deploy.lab.net import Lab, Machine, python_path, why_not
from director.ha.fence import fences
from director.ha.fence.interface import Fence
from director.ha.fence.nft import TICKET_S
from director.ha.fence.tc import LOOK_S
from director.ha.leading import boottime
from director.ha.neighbours import announce
from director.ha.netlink import add_address

VIP4, VIP6 = "10.77.0.100", "fd77::100"
OWN4, OWN6 = "10.77.0.11", "fd77::a"  #: the holder's, on the same interface
OTHER4, OTHER6 = "10.77.0.12", "fd77::b"
PORT = 9
FOREVER_S = 3_600
#: An answer within a namespace takes some tens of microseconds. Where none is expected, none that takes so long is missed.
SILENCE_S = 0.1
DEADLINE_S = 20.0
#: How often a process is stopped at random, and for how long it opens the fence each time.
ROUNDS = int(os.environ.get("FENCE_ROUNDS", "15"))
REFRESHED_S = 0.02
#: The ways in which an address shows that it is here.
WAYS = ("asked", "reached", "sent", "announced")

_MISSING = why_not()
if _MISSING and os.environ.get("CI"):
    raise RuntimeError(_MISSING)


def ip(machine: Machine, *words: str) -> str:
    return subprocess.run(["ip", "-n", machine.namespace, *words], capture_output=True, text=True, check=True).stdout


def tc(machine: Machine, *words: str) -> str:
    return subprocess.run(["tc", "-n", machine.namespace, *words], capture_output=True, text=True, check=True).stdout


def nft(machine: Machine, commands: str) -> str:
    words = ["ip", "netns", "exec", machine.namespace, "nft", commands]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


class FenceTestCase(SynchronousTestCase):
    """A machine that has the addresses, and one that asks. Neighbour tables are filled by hand: what is asked for is asked for
    by frames of our own, and nothing else waits for it."""

    kind = "tc"
    early_s = 0.0  #: by what the kernel may close it before the deadline
    if _MISSING:
        skip = _MISSING

    def setUp(self) -> None:
        self.lab = Lab()
        self.addCleanup(self.lab.close)
        self.holder, self.other = self.lab.machine("a"), self.lab.machine("b")
        self.macs = {}
        for machine, own6 in ((self.holder, OWN6), (self.other, OTHER6)):
            ip(machine, "address", "add", f"{own6}/64", "dev", "eth0", "nodad")
            self.macs[machine.name] = json.loads(ip(machine, "-j", "link", "show", "dev", "eth0"))[0]["address"]
        with self.holder.inside():
            for text in (f"{VIP4}/24", f"{VIP6}/64"):
                add_address("eth0", ip_interface(text), FOREVER_S)
        for machine, name, addresses in ((self.other, "a", (VIP4, VIP6, OWN4, OWN6)), (self.holder, "b", (OTHER4, OTHER6))):
            for address in addresses:
                ip(machine, "neighbour", "replace", address, "lladdr", self.macs[name], "dev", "eth0", "nud", "permanent")
        self.clock = MemoryReactorClock()
        self.patience_s = DEADLINE_S

    def fence(self, until_s: float = 0.0) -> Fence:
        until_ns = int((boottime() + until_s) * 1e9) if until_s else 0
        with self.holder.inside():
            (made,) = fences([[ip_address(VIP4), ip_address(VIP6)]], until_ns, interface="eth0",
                             reactor=self.clock, kinds=[self.kind])
        self.assertEqual((made.kind, made.holds()), (self.kind, ""))
        self.addCleanup(made.leave)
        return made

    # --- what others see of an address

    @contextlib.contextmanager
    def listening(self, machine: Machine) -> Iterator[socket.socket]:
        """All frames that reach *machine*."""
        with machine.inside():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with sock:
            sock.bind(("eth0", 3))
            sock.settimeout(self.patience_s)
            yield sock

    def heard(self, sock: socket.socket, kind: int, said: bytes) -> bool:
        """Whether a frame of that EtherType, from the holder, which says that, comes in time."""
        source = bytes.fromhex(self.macs["a"].replace(":", ""))
        end = time.monotonic() + self.patience_s
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                frame, (_, _, packet_type, *_) = sock.recvfrom(2_048)
                if packet_type != 4 and frame[6:14] == source + struct.pack("!H", kind) and said in frame[14:]:
                    return True
        return False

    def asked(self, address: str) -> bool:
        """ARP or a neighbour solicitation is answered."""
        mac = bytes.fromhex(self.macs["b"].replace(":", ""))
        target = ip_address(address)
        with self.listening(self.other) as sock:
            if isinstance(target, IPv6Address):
                node = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(target) & 0xFFFFFF)
                solicitation = struct.pack("!BBHI", 135, 0, 0, 0) + target.packed + b"\1\1" + mac
                with self.other.inside(), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
                    icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
                    index = socket.if_nametoindex("eth0")
                    icmp.bind((OTHER6, 0, 0, index))
                    icmp.sendto(solicitation, (str(node), 0, 0, index))
                return self.heard(sock, 0x86DD, b"\x88\0")  # an advertisement
            arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, mac, socket.inet_aton(OTHER4), bytes(6), target.packed)
            sock.send(b"\xff" * 6 + mac + b"\x08\x06" + arp)
            return self.heard(sock, 0x0806, struct.pack("!H", 2) + bytes.fromhex(self.macs["a"].replace(":", "")) + target.packed)

    def reached(self, address: str) -> bool:
        """A segment to the address is answered, if only that nobody listens."""
        with self.other.inside(), socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            sock.settimeout(self.patience_s)
            error = sock.connect_ex((address, PORT))
        return error == errno.ECONNREFUSED

    def sent(self, address: str) -> bool:
        """What the holder sends from the address arrives."""
        family, to = (socket.AF_INET6, OTHER6) if ":" in address else (socket.AF_INET, OTHER4)
        with self.other.inside():
            receiver = socket.socket(family, socket.SOCK_DGRAM)
        with receiver, self.holder.inside(), socket.socket(family, socket.SOCK_DGRAM) as sender:
            receiver.bind((to, PORT))
            receiver.settimeout(self.patience_s)
            sender.bind((address, 0))
            with contextlib.suppress(OSError):
                sender.sendto(b"x", (to, PORT))
            with contextlib.suppress(TimeoutError):
                return receiver.recv(1) == b"x"
        return False

    def announced(self, address: str) -> bool:
        """The holder's own news of the address arrives."""
        with self.listening(self.other) as sock:
            with self.holder.inside(), contextlib.suppress(OSError):
                announce("eth0", ip_address(address))
            return self.heard(sock, 0x86DD if ":" in address else 0x0806, ip_address(address).packed)

    def assert_open(self, *addresses: str) -> None:
        self.patience_s = DEADLINE_S
        self.assertEqual([(way, each) for way in WAYS for each in addresses if not getattr(self, way)(each)], [])

    def assert_shut(self, *addresses: str) -> None:
        self.patience_s = SILENCE_S
        self.assertEqual([(way, each) for way in WAYS for each in addresses if getattr(self, way)(each)], [])


class PacketTests(FenceTestCase):
    def test_closed_open_closed(self) -> None:
        """Closed, nothing comes or goes for the addresses, by no protocol; open, everything; past the deadline nothing again.
        The interface's other addresses notice nothing. Released, nothing is left."""
        self.assert_open(VIP4, VIP6)
        fence = self.fence()
        self.assert_shut(VIP4, VIP6)
        self.assert_open(OWN4, OWN6)
        fence.open_until(int((boottime() + FOREVER_S) * 1e9))
        self.assert_open(VIP4, VIP6)
        fence.close()
        self.assert_shut(VIP4, VIP6)
        fence.open_until(int(boottime() * 1e9) - 1)
        self.assert_shut(VIP4, VIP6)
        self.assert_open(OWN4, OWN6)
        fence.release()
        self.assert_open(VIP4, VIP6)
        self.assertNotIn("fence", tc(self.holder, "filter", "show", "dev", "eth0", "ingress") + nft(self.holder, "list ruleset"))

    def test_to_the_instant(self) -> None:
        """Of a stream of datagrams each that is sent before the deadline arrives, and none that is sent after it."""
        fence = self.fence()
        for address in (VIP4, VIP6):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with self.holder.inside():
                receiver = socket.socket(family, socket.SOCK_DGRAM)
            with self.other.inside():
                sender = socket.socket(family, socket.SOCK_DGRAM)
            with receiver, sender:
                receiver.bind((address, PORT))
                receiver.setblocking(False)
                for _ in range(20):
                    until_ns = int((boottime() + self.early_s + 0.02) * 1e9)
                    fence.open_until(until_ns)
                    before, passed, now = set(), set(), 0
                    while now < until_ns + 5_000_000:
                        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                        sender.sendto(struct.pack("=Q", now), (address, PORT))
                        if time.clock_gettime_ns(time.CLOCK_BOOTTIME) < until_ns - self.early_s * 1e9:
                            before.add(now)
                        with contextlib.suppress(BlockingIOError):
                            while True:
                                passed.update(struct.unpack("=Q", receiver.recv(8)))
                    self.assertLessEqual(before, passed)
                    self.assertLess(max(passed, default=0), until_ns)

    def test_others_claims_pass(self) -> None:
        """While it is closed, the machine learns who has the address now, and reaches it."""
        for text in (f"{VIP4}/24", f"{VIP6}/64"):
            ip(self.holder, "address", "del", text, "dev", "eth0")
            with self.other.inside():
                add_address("eth0", ip_interface(text), FOREVER_S)
        for address in (OTHER4, OTHER6):
            ip(self.holder, "neighbour", "del", address, "dev", "eth0")
        self.fence()
        for address in (VIP4, VIP6):
            with self.holder.inside(), self.assertRaises(ConnectionRefusedError):
                socket.create_connection((address, PORT), DEADLINE_S)


    def test_forwarded(self) -> None:
        """A closed fence lets through what its machine only forwards: clients behind it reach the address where it is. While the
        address is on this machine too they reach nobody."""
        behind = self.lab.machine("c")
        ip(self.holder, "link", "add", "inner", "type", "veth", "peer", "name", "inner", "netns", behind.namespace)
        for machine, number in ((self.holder, 1), (behind, 2)):
            ip(machine, "link", "set", "inner", "up")
            ip(machine, "address", "add", f"10.79.0.{number}/24", "dev", "inner")
        subprocess.run(["ip", "netns", "exec", self.holder.namespace, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        ip(behind, "route", "replace", VIP4, "via", "10.79.0.1", "dev", "inner")
        ip(self.other, "route", "add", "10.79.0.0/24", "via", OWN4)
        with self.other.inside():
            add_address("eth0", ip_interface(f"{VIP4}/24"), FOREVER_S)
        self.fence()

        def reached() -> bool:
            with behind.inside(), socket.socket() as sock:
                sock.settimeout(self.patience_s)
                return sock.connect_ex((VIP4, PORT)) == errno.ECONNREFUSED

        self.patience_s = SILENCE_S
        self.assertFalse(reached())
        ip(self.holder, "address", "del", f"{VIP4}/24", "dev", "eth0")
        ip(self.holder, "neighbour", "flush", "all")
        self.patience_s = DEADLINE_S
        self.assertTrue(reached())


class ProcessTests(FenceTestCase):
    """The process that has the fence is killed, or frozen."""

    def child(self) -> subprocess.Popen[bytes]:
        process = self.holder.start(sys.executable, "-m", "tests.integration.fence_child", self.kind, VIP4, VIP6, stdout=subprocess.PIPE,
                                    env={**os.environ, "PYTHONPATH": str(python_path())})
        self.assertEqual(self.said(process), self.kind)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().decode().strip()

    def order(self, process: subprocess.Popen[bytes], what: str, seconds: float) -> None:
        assert process.stdin is not None
        process.stdin.write(f"{what} {seconds}\n".encode())
        process.stdin.flush()

    def test_killed(self) -> None:
        """What a killed process last said holds until its instant, and no longer; nothing opens the fence again but a new one."""
        process = self.child()
        self.assert_shut(VIP4, VIP6)
        self.order(process, "open", 3.0)
        until_s = int(self.said(process)) / 1e9
        process.kill()
        process.wait()
        self.assertTrue(self.reached(VIP4) or boottime() > until_s)
        time.sleep(max(0.0, until_s - boottime()))
        self.assert_shut(VIP4, VIP6)
        fence = self.fence()
        self.assert_shut(VIP4, VIP6)
        fence.open_until(int((boottime() + FOREVER_S) * 1e9))
        self.assert_open(VIP4, VIP6)

    def test_frozen_between_computing_and_writing(self) -> None:
        """A refresh that is written long after it was computed opens nothing."""
        process = self.child()
        self.order(process, "frozen", 0.2)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        time.sleep(0.3)
        process.send_signal(signal.SIGCONT)
        self.assertGreater(boottime(), int(self.said(process)) / 1e9)
        self.assert_shut(VIP4, VIP6)

    def test_frozen_at_random(self) -> None:
        """A process that refreshes all the time, and is stopped at any instant of it: nothing passes after what it last computed,
        neither while it is stopped nor when it goes on with what it had begun."""
        process = self.child()
        with self.holder.inside():
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with self.other.inside():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind((VIP4, PORT))
            receiver.setblocking(False)
            for _ in range(ROUNDS):
                passed = [0]
                self.order(process, "refresh", self.early_s + REFRESHED_S)
                struck_at = boottime() + random.uniform(0.02, 0.04)
                thawed_at = struck_at + 2 * (self.early_s + REFRESHED_S)
                for number, until_s in ((signal.SIGSTOP, struck_at), (signal.SIGCONT, thawed_at), (0, thawed_at + REFRESHED_S)):
                    while (now := boottime()) < until_s:
                        sender.sendto(struct.pack("=Q", int(now * 1e9)), (VIP4, PORT))
                        with contextlib.suppress(BlockingIOError):
                            while True:
                                passed += struct.unpack("=Q", receiver.recv(8))
                    process.send_signal(number)
                self.assertTrue(0 < max(passed) < int(self.said(process)))


class Nft(FenceTestCase):
    """The same by nftables: early by the ticket, and by the ticks in which the kernel counts."""

    kind = "nft"
    early_s = TICKET_S + 0.02


class NftPacketTests(Nft, PacketTests):
    pass


class NftProcessTests(Nft, ProcessTests):
    pass


class NftRemovedTests(Nft):
    def test_put_back(self) -> None:
        """What somebody flushes is back after the next look, or with the next refresh."""
        fence = self.fence(FOREVER_S)
        table = next(line for line in nft(self.holder, "list tables").splitlines() if "fence" in line and "inet" in line)
        for what in ("flush ruleset", f"flush chain {table.removeprefix('table ')} input", f"delete {table}"):
            for refreshed in (True, False):
                nft(self.holder, what)
                if refreshed:
                    fence.open_until(int((boottime() + FOREVER_S) * 1e9))
                self.clock.advance(LOOK_S)
                self.assertEqual(fence.holds(), "")
                self.assert_open(VIP4, VIP6)
            fence.close()
            self.assert_shut(VIP4, VIP6)
            fence.open_until(int((boottime() + FOREVER_S) * 1e9))


class NamespaceTests(SynchronousTestCase):
    if _MISSING:
        skip = _MISSING

    def test_time_namespace(self) -> None:
        """Where this process's clock is not the kernel's there is no fence by it."""
        words = ["unshare", "--time", "--boottime", "1000", sys.executable, "-c", "from director.ha.fence import best; print(best())"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=python_path())
        self.assertIn("tc: this process is in a time namespace", done.stdout)


class SweptTests(FenceTestCase):
    def test_other_kind(self) -> None:
        """What a killed process left of the other kind does not stay beside."""
        for self.kind, other in (("tc", "nft"), ("nft", "tc")):
            left = self.fence()
            left.leave()
            self.kind = other
            self.fence(FOREVER_S)
            self.assert_open(VIP4, VIP6)
        with self.holder.inside():
            (none,) = fences([[ip_address(VIP4)]], interface="eth0", reactor=self.clock, kinds=[])
        self.assertEqual(none.kind, "lifetime")
        self.assert_open(VIP4, VIP6)


class RemovedTests(FenceTestCase):
    """Somebody removes it by hand."""

    def test_put_back(self) -> None:
        """Filters and queueing disciplines that somebody deletes are back after the next look, and the log says so."""
        fence = self.fence(FOREVER_S)
        for words in (("qdisc", "del", "dev", "eth0", "clsact"), ("filter", "del", "dev", "eth0", "ingress"),
                      ("filter", "del", "dev", "eth0", "egress")):
            fence.open_until(int((boottime() + FOREVER_S) * 1e9))
            tc(self.holder, *words)
            self.clock.advance(LOOK_S)
            self.assertEqual(fence.holds(), "")
            self.assert_open(VIP4, VIP6)
            fence.close()
            self.assert_shut(VIP4, VIP6)

    def test_new_interface(self) -> None:
        """One that comes later gets the fence too: the kernel says that it is there. A port of a bridge does not."""
        self.fence()
        ip(self.holder, "link", "add", "new", "type", "veth", "peer", "name", "port")
        ip(self.holder, "link", "add", "bridge", "type", "bridge")
        ip(self.holder, "link", "set", "port", "master", "bridge")
        (reader,) = self.clock.getReaders()
        reader.doRead()
        self.clock.advance(LOOK_S / 10)
        for name, there in (("new", True), ("bridge", True), ("port", False), ("lo", False)):
            for way in ("ingress", "egress"):
                self.assertEqual("fence" in tc(self.holder, "filter", "show", "dev", name, way), there, name)

    def test_followed(self) -> None:
        """A process that follows another replaces its fence, which the other leaves alone."""
        first = self.fence(FOREVER_S)
        first_clock, self.clock = self.clock, MemoryReactorClock()
        second = self.fence(FOREVER_S)
        first_clock.advance(LOOK_S)
        self.assertIn("another process", first.holds())
        first.close()
        self.clock.advance(LOOK_S)
        self.assertEqual(second.holds(), "")
        self.assert_open(VIP4, VIP6)
