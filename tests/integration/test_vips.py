"""Virtual addresses on real interfaces, in network namespaces: what the kernel and the neighbours do."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from deploy.lab.net import Lab, Machine, python_path, why_not
from director.core.vip import OUTLIVES_S
from director.ha.neighbours import announce
from director.ha.netlink import add_address, remove_address

DEADLINE_S = 20.0
VIP4, VIP6 = "10.77.0.100", "fd77::100"
WEB = 8080

_MISSING = why_not()
if _MISSING and os.environ.get("CI"):
    raise RuntimeError(_MISSING)


def until(holds: Callable[[], object], what: str) -> float:
    """Wait for a condition; answers when it did not hold yet for the last time (monotonic seconds, of before looking)."""
    end = time.monotonic() + DEADLINE_S
    last = looked = time.monotonic()
    while not holds():
        last = looked
        if looked > end:
            raise AssertionError(f"not within {DEADLINE_S:g} s: {what}")
        time.sleep(0.005)
        looked = time.monotonic()
    return last


def show(machine: Machine, *words: str) -> str:
    return subprocess.run(["ip", "-n", machine.namespace, *words], capture_output=True, text=True, check=True).stdout


def addresses(machine: Machine) -> set[str]:
    """All that ``eth0`` answers to, of both families."""
    interfaces = json.loads(show(machine, "-j", "address", "show", "dev", "eth0"))
    return {info["local"] for interface in interfaces for info in interface["addr_info"] if "local" in info}


class LabTestCase(SynchronousTestCase):
    if _MISSING:
        skip = _MISSING

    def setUp(self) -> None:
        self.lab = Lab()
        self.addCleanup(self.lab.close)

    def machine(self, name: str) -> Machine:
        machine = self.lab.machine(name)
        show(machine, "address", "add", f"fd77::{name.encode().hex()[:4]}/64", "dev", "eth0", "nodad")
        return machine

    def mac(self, machine: Machine) -> str:
        address: str = json.loads(show(machine, "-j", "link", "show", "dev", "eth0"))[0]["address"]
        return address

    def known_mac(self, machine: Machine, address: str) -> str | None:
        """What *machine* thinks *address*'s hardware address is."""
        entries = json.loads(show(machine, "-j", "neighbour", "show", "to", address) or "[]")
        return next((entry["lladdr"] for entry in entries if "lladdr" in entry), None)

    def reach(self, machine: Machine, address: str) -> None:
        """Some machine answers at *address*, if only that nothing listens there."""
        with machine.inside(), self.assertRaises(ConnectionRefusedError):
            socket.create_connection((address, 9), DEADLINE_S)


class KernelTests(LabTestCase):
    def test_address_comes_and_goes_by_itself(self) -> None:
        """An address lives for its second and not longer than the policy counts on; refreshed, it stays; removed, it is
        gone at once, and removing it again is no error. Both families."""
        machine = self.machine("a")
        for text in (f"{VIP4}/24", f"{VIP6}/64"):
            address = ipaddress.ip_interface(text)
            with machine.inside():
                for _ in range(4):
                    add_address("eth0", address, 1)
                    time.sleep(0.4)  # four refreshes outlast the first lifetime
                self.assertIn(str(address.ip), addresses(machine))
                add_address("eth0", address, 1)
                refreshed = time.monotonic()
            seen = until(lambda address=address: str(address.ip) not in addresses(machine), "the kernel drops it")
            self.assertLess(seen - refreshed, OUTLIVES_S)
            with machine.inside():
                add_address("eth0", address, 1)
                self.assertTrue(remove_address("eth0", address))
                self.assertFalse(remove_address("eth0", address))
            self.assertNotIn(str(address.ip), addresses(machine))

    def test_usable_at_once_and_never_a_source(self) -> None:
        """IPv6 answers without waiting for duplicate address detection; connections of the machine's own don't come
        from it."""
        holder, other = self.machine("a"), self.machine("b")
        address = ipaddress.ip_interface(f"{VIP6}/64")
        with holder.inside():
            add_address("eth0", address, 60)
            self.assertIn("nodad", show(holder, "address", "show", "dev", "eth0", "to", str(address)))
            self.assertNotIn("tentative", show(holder, "address", "show", "dev", "eth0", "to", str(address)))
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                sock.connect(("fd77::62", 9))
                self.assertNotEqual(sock.getsockname()[0], VIP6)
        self.reach(other, VIP6)

    def test_errors_are_told(self) -> None:
        """No such device, and an address of no use, raise what the kernel says."""
        machine = self.machine("a")
        with machine.inside():
            self.assertRaises(OSError, add_address, "eth9", ipaddress.ip_interface("10.77.0.100/24"), 1)
            with self.assertRaises(OSError) as caught:
                add_address("eth0", ipaddress.ip_interface("ff02::5/64"), 1)
            self.assertTrue(caught.exception.errno)

    def test_neighbours_learn(self) -> None:
        """A neighbour that knew the former holder learns the new one from an announcement, without asking. Both
        families."""
        first, second, neighbour = self.machine("a"), self.machine("b"), self.machine("c")
        self.assertNotEqual(self.mac(first), self.mac(second))
        for text in (f"{VIP4}/24", f"{VIP6}/64"):
            address = ipaddress.ip_interface(text)
            with first.inside():
                add_address("eth0", address, 60)
            self.reach(neighbour, str(address.ip))
            self.assertEqual(self.known_mac(neighbour, str(address.ip)), self.mac(first))
            with first.inside():
                remove_address("eth0", address)
            with second.inside():
                add_address("eth0", address, 60)

            def learned(address: ipaddress.IPv4Interface | ipaddress.IPv6Interface = address) -> bool:
                with second.inside():
                    announce("eth0", address.ip)
                return self.known_mac(neighbour, str(address.ip)) == self.mac(second)

            until(learned, "the neighbour learns")
        with first.inside():
            announce("lo", ipaddress.ip_address("127.0.0.1"))  # nobody to tell, and no error


class DirectorTests(LabTestCase):
    """Whole directors, each with a store of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(tempfile.mkdtemp(dir="."))

    def start(self, machine: Machine, interface: str = "eth0", more: str = "") -> subprocess.Popen[bytes]:
        config = self.directory / f"{machine.name}.toml"
        config.write_text(f"""
[node]
name = "{machine.name}"
store = "file:{(self.directory / machine.name).absolute()}"
[node.vips]
interface = "{interface}"
addresses = ["{VIP4}/24", "{VIP6}/64"]
[services.web]
listen = ["{VIP4}:{WEB}", "[{VIP6}]:{WEB}", "{machine.address}:{WEB}"]
groups.main.hosts.app = "127.0.0.1:1"
{more}
""")
        with (self.directory / f"{machine.name}.log").open("wb") as log:
            return machine.start(sys.executable, "-m", "director", "run", str(config), log=log,
                                 env={**os.environ, "PYTHONPATH": str(python_path())})

    def log(self, machine: Machine) -> str:
        return (self.directory / f"{machine.name}.log").read_text()

    def connects(self, machine: Machine, address: str) -> bool:
        with machine.inside(), contextlib.suppress(OSError), socket.create_connection((address, WEB), 2):
            return True
        return False

    def holding(self, machine: Machine) -> subprocess.Popen[bytes]:
        process = self.start(machine)
        until(lambda: {VIP4, VIP6} <= addresses(machine), "the addresses are taken")
        return process

    def test_killed_and_frozen(self) -> None:
        """The kernel of a director that is killed, or frozen, drops its addresses within the time that others wait; one
        that wakes and still leads takes them again."""
        machine, other = self.machine("a"), self.machine("b")
        process = self.holding(machine)
        for address in (VIP4, VIP6):
            self.assertTrue(self.connects(other, address), "its listeners were bound beforehand")
        for number in (signal.SIGSTOP, signal.SIGKILL):
            process.send_signal(number)
            struck = time.monotonic()
            seen = until(lambda: not {VIP4, VIP6} & addresses(machine), "the kernel drops them")
            self.assertLess(seen - struck, OUTLIVES_S)
            if number is signal.SIGSTOP:
                process.send_signal(signal.SIGCONT)
                until(lambda: {VIP4, VIP6} <= addresses(machine), "it leads, alone as it is, and takes them again")

    def test_stopped(self) -> None:
        """A stop gives the addresses up at once, not by their lifetime, and says so."""
        machine = self.machine("a")
        process = self.holding(machine)
        process.send_signal(signal.SIGTERM)
        until(lambda: not {VIP4, VIP6} & addresses(machine), "given up")
        self.assertEqual(process.wait(DEADLINE_S), 0)
        self.assertIn("2 virtual addresses given up on eth0", self.log(machine))

    def fences(self, machine: Machine) -> list[bool]:
        """Whether the fence is there, for what comes and for what leaves."""
        return ["txdirector-fence" in subprocess.run(
            ["tc", "-n", machine.namespace, "filter", "show", "dev", "eth0", way], capture_output=True, text=True, check=True,
        ).stdout for way in ("ingress", "egress")]

    def test_fence(self) -> None:
        """A director has a fence in the kernel. It puts it back when somebody removes it; one that is killed leaves it there, one
        that is stopped takes it away."""
        machine, other = self.machine("a"), self.machine("b")
        process = self.holding(machine)
        self.assertEqual(self.fences(machine), [True, True])
        subprocess.run(["tc", "-n", machine.namespace, "qdisc", "del", "dev", "eth0", "clsact"], check=True)
        until(lambda: "somebody else removed the fence from eth0; it is back" in self.log(machine), "it is noticed")
        self.assertEqual(self.fences(machine), [True, True])
        self.assertTrue(self.connects(other, VIP4))
        process.kill()
        process.wait()
        self.assertEqual(self.fences(machine), [True, True])
        process = self.holding(machine)
        until(lambda: self.connects(other, VIP6), "the next one opens it")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(DEADLINE_S), 0)
        self.assertEqual(self.fences(machine), [False, False])

    def test_hooks(self) -> None:
        """A program is told of the lead and the addresses, when they come and when they go, the stop's news included."""
        machine, told = self.machine("a"), self.directory.absolute() / "told"
        on = ["leader_gained", "leader_lost", "vip_taken", "vip_released"]
        process = self.start(machine, more=f"[node.hooks.h]\ncommand = ['/bin/sh', '-c', 'cat >> {told}']\non = {on}")

        def events() -> list[str]:
            lines = told.read_text().splitlines() if told.exists() else []
            return [json.loads(line)["event"] for line in lines]

        until(lambda: len(events()) == 2, "it leads and has the addresses")
        self.assertEqual(sorted(events()), ["leader_gained", "vip_taken"])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(DEADLINE_S), 0)
        self.assertEqual(sorted(events()[2:]), ["leader_lost", "vip_released"])
        records = [json.loads(line) for line in told.read_text().splitlines()]
        self.assertEqual([each["number"] for each in records], [1, 2, 3, 4])
        taken, released = [sorted(each["addresses"]) for each in records if each["event"].startswith("vip")]
        self.assertEqual((taken, released), ([VIP4, VIP6], [VIP4, VIP6]))

    def test_moved(self) -> None:
        """The neighbours of a new owner find it without asking: their next connection reaches it."""
        first, second, client = self.machine("a"), self.machine("b"), self.machine("c")
        process = self.holding(first)
        self.assertTrue(self.connects(client, VIP4))
        self.assertTrue(self.connects(client, VIP6))
        process.kill()
        until(lambda: not {VIP4, VIP6} & addresses(first), "dropped")
        self.holding(second)
        for address in (VIP4, VIP6):
            until(lambda address=address: self.known_mac(client, address) == self.mac(second), "learned")
            self.assertTrue(self.connects(client, address))

    def test_flushed_and_link_down(self) -> None:
        """Addresses that somebody flushes, or whose link is down for a moment or longer, are back, both families usable at once;
        and the neighbours are told: one that has been told something else meanwhile learns better without asking. What is
        announced in between, by the way, is announced more seldom than that."""
        first, client = self.machine("a"), self.machine("b")
        self.holding(first)
        wounds = ((("address", "flush", "dev", "eth0"), 0.0, "removed by somebody else"),
                  (("link", "set", "eth0", "down"), 0.0, "the link was down"), (("link", "set", "eth0", "down"), 1.0, ""))
        for wound, down_s, said in wounds:
            for address in (VIP4, VIP6):
                self.assertTrue(self.connects(client, address))
                show(client, "neighbour", "replace", address, "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale")
            show(first, *wound)
            if "down" in wound:
                time.sleep(down_s)
                show(first, "link", "set", "eth0", "up")
            for address in (VIP4, VIP6):
                until(lambda address=address: self.known_mac(client, address) == self.mac(first), "told anew")
            until(lambda: {VIP4, VIP6} <= addresses(first), "the addresses are back")
            self.assertNotIn("dadfailed", show(first, "address", "show", "dev", "eth0"))
            self.assertNotIn("tentative", show(first, "address", "show", "dev", "eth0", "to", VIP6))
            self.assertIn(said, self.log(first))
            show(first, "address", "replace", f"{first.address}/24", "dev", "eth0")
            show(first, "address", "replace", "fd77::61/64", "dev", "eth0", "nodad")

    def test_carrier_lost(self) -> None:
        """While the link has no carrier nobody is told; with one again the neighbours are. A director that is alone keeps them."""
        first, client = self.machine("a"), self.machine("b")
        self.holding(first)
        for state in ("down", "up"):
            subprocess.run(["ip", "-n", self.lab.switch, "link", "set", f"{self.lab.prefix}c11", state], check=True)
            time.sleep(0.5)
        for address in (VIP4, VIP6):
            until(lambda address=address: self.connects(client, address), "it is reached again")
        self.assertIn("the link was down", self.log(first))

    def test_interface_missing(self) -> None:
        """A director does not start for an interface that is not there. A leader that cannot add its addresses any more, for
        the interface has gone, says why and makes room."""
        machine = self.machine("a")
        self.start(machine, interface="eth7").wait(DEADLINE_S)
        self.assertIn("eth7", self.log(machine))
        show(machine, "link", "add", "eth7", "type", "veth", "peer", "name", "eth8")
        show(machine, "link", "set", "eth7", "up")
        self.start(machine, interface="eth7")
        until(lambda: "virtual addresses taken" in self.log(machine), "the addresses are taken")
        show(machine, "link", "del", "eth7")
        until(lambda: "No such device" in self.log(machine), "it says why")
        until(lambda: "leads no more" in self.log(machine), "it resigns")


class KeepalivedTests(SynchronousTestCase):
    """The check script of ``deploy/keepalived``."""

    if shutil.which("curl") is None and not os.environ.get("CI"):
        skip = "curl is missing: apt-get install curl"

    SCRIPT = python_path() / "deploy" / "keepalived" / "check_director"

    def check(self, port: int, *services: str) -> int:
        env = {**os.environ, "TXDIRECTOR_URL": f"http://127.0.0.1:{port}"}
        return subprocess.run([self.SCRIPT, *services], env=env, capture_output=True, check=False).returncode

    def test_check_script(self) -> None:
        """It succeeds while every service named has a host in rotation, and fails for one that has none, one that
        does not exist, and a director that does not answer."""
        with socket.create_server(("127.0.0.1", 0)) as backend, socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
            free.close()
            config = Path(tempfile.mkdtemp(dir=".")) / "d.toml"
            config.write_text(f"""
node.admin.endpoints = [{{ listen = "127.0.0.1:{port}" }}]
services.web.groups.main.hosts.app = "127.0.0.1:{backend.getsockname()[1]}"
services.empty.groups.main.hosts.app = {{ address = "127.0.0.1:1", weight = 0 }}
""")
            self.assertNotEqual(self.check(port, "web"), 0)
            process = subprocess.Popen([sys.executable, "-m", "director", "run", str(config)], stderr=subprocess.DEVNULL,
                                       env={**os.environ, "PYTHONPATH": str(python_path())})
            try:
                until(lambda: self.check(port, "web") == 0, "the director serves")
                for services in ((), ("empty",), ("web", "empty"), ("absent",)):
                    self.assertNotEqual(self.check(port, *services), 0, services)
            finally:
                process.kill()
                process.wait()
