"""The units, started by a real systemd as a stranger would: the commands of docs/operations/systemd.md, as printed."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from director.relay.choice import native_missing
from tests.integration.booted import DEADLINE_S, ROOT, SYSTEMD, Booted, require
from tests.one_thread import died, stopped, threads

GUIDE, INIT_GUIDE = ROOT / "docs/operations/systemd.md", ROOT / "docs/operations/init.md"
#: What an installation puts at /usr/bin for each of the commands.
COMMAND = """#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/txdirector:/opt/packages
exec /opt/python/bin/python3 -c 'import sys; from {module} import {function}; sys.exit({function}())' "$@"
"""
DIRECTOR = """
[node]
name = "lb1"
store = "file:/var/lib/txdirector/state"
control_socket = "/run/txdirector/control"
agents.listen = ["127.0.0.1:7946"]
admin.endpoints = [{ listen = "127.0.0.1:7401" }]
[services.web]
listen = ["127.0.0.1:80"]
timeouts.drain_s = 60
groups.main.health.probe.kind = "none"
groups.main.hosts.app1 = "127.0.0.1:8000"
"""
AGENT = """
name = "app1"
directors = ["127.0.0.1:7946"]
hosts = ["web/main/app1"]
leave_deadline_s = 5
"""
STOP = """
systemctl kill --signal=KILL txdirector director-agent || true
systemctl stop txdirector director-agent
systemctl reset-failed
"""
#: What the units say is 20 s, and nobody wants to wait for that.
PATIENCE = "[Service]\nWatchdogSec=3s\n"
#: A busy machine may give the whole process no turn for longer than the test's watchdog waits, before a thread is missed.
TRIES = 5
VIP = "10.99.0.100"


def commands() -> dict[str, list[str]]:
    """What the project installs: modules and functions by name."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return {name: entry.split(":") for name, entry in scripts.items()}


def may_raise_limits() -> bool:
    """Whether root may here: containers often leave CAP_SYS_RESOURCE (24) out."""
    [capabilities] = re.findall(r"CapBnd:\s+(\w+)", Path("/proc/self/status").read_text())
    return bool(int(capabilities, 16) >> 24 & 1)


class UnitsTests(SynchronousTestCase):
    machine: ClassVar[Booted]

    @classmethod
    def setUpClass(cls) -> None:
        require(str(SYSTEMD), "systemd")
        machine = cls.machine = Booted()
        try:
            machine.wait_until_up()
            for name, (module, function) in commands().items():
                machine.write(f"/usr/bin/{name}", COMMAND.format(module=module, function=function), 0o755)
            machine.write("/etc/txdirector/director.toml", DIRECTOR, 0o600)
            machine.write("/etc/txdirector/agent.toml", AGENT, 0o600)
            [install] = re.findall(r"```sh\n(install .*?)```", GUIDE.read_text(), flags=re.S)
            machine.run(script=install)  # which starts it
            machine.do(script=STOP)
        except BaseException:
            machine.stop()
            raise

    @classmethod
    def tearDownClass(cls) -> None:
        cls.machine.stop()

    def tearDown(self) -> None:
        """Each test begins with a machine on which nothing of ours runs, nor has failed."""
        self.machine.write("/etc/txdirector/director.toml", DIRECTOR)
        self.machine.do(script=STOP)

    def drop_in(self, unit: str, text: str) -> None:
        """For this test."""
        path = f"/etc/systemd/system/{unit}.service.d/test.conf"
        self.machine.write(path, text)
        self.machine.run("systemctl", "daemon-reload")
        self.addCleanup(self.machine.run, script=f"rm {path}; systemctl daemon-reload")

    # --- looking

    def begin(self, unit: str = "txdirector") -> int:
        """It has started; its process."""
        self.machine.run("systemctl", "start", unit)
        state, pid = self.machine.show(unit, "ActiveState", "MainPID")
        self.assertEqual(state, "active")
        return int(pid)

    def until(self, holds: Callable[[], bool], unit: str = "txdirector") -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(self.machine.do("systemctl", "status", unit).stdout + self.journal(unit))
            time.sleep(0.05)

    def journal(self, unit: str = "txdirector") -> str:
        return self.machine.run("journalctl", "--unit", unit, "--output=cat", "--no-pager")

    def status(self, unit: str = "txdirector") -> str:
        return self.machine.show(unit, "StatusText")[0]

    def restarted(self, unit: str, pid: int, restarts: int) -> bool:
        """Whether another process is up instead of *pid*."""
        state, now, count = self.machine.show(unit, "ActiveState", "MainPID", "NRestarts")
        return state == "active" and int(now) not in (0, pid) and int(count) > restarts

    def restarts(self, unit: str = "txdirector") -> int:
        return int(self.machine.show(unit, "NRestarts")[0])

    def listening(self, address: tuple[str, int]) -> socket.socket:
        with self.machine.network():
            sock = socket.create_server(address)
        self.addCleanup(sock.close)
        sock.settimeout(DEADLINE_S)
        return sock

    def client(self, address: tuple[str, int] = ("127.0.0.1", 80)) -> socket.socket:
        with self.machine.network():
            sock = socket.create_connection(address, DEADLINE_S)
        self.addCleanup(sock.close)
        return sock

    # --- the director's

    def test_director(self) -> None:
        """`systemctl start` returns with a director that serves, as its own user, at port 80, and writes where it may."""
        self.machine.do("systemctl", "stop", "txdirector")
        pid = self.begin()
        backend = self.listening(("127.0.0.1", 8000))
        client = self.client()
        host, _ = backend.accept()
        client.sendall(b"ping")
        self.assertEqual(host.recv(4), b"ping")
        host.close()
        self.until(lambda: self.status().startswith("serving 1 service, "))
        status = self.machine.read(f"/proc/{pid}/status")
        uid, _ = self.machine.run("stat", "--format=%u %U", f"/proc/{pid}").split()
        self.assertEqual(self.machine.run("id", "--user", "txdirector").strip(), uid)
        self.assertEqual(re.findall(r"Cap(?:Eff|Amb):\s+0*(\w+)", status), ["400", "400"])  # CAP_NET_BIND_SERVICE
        self.assertIn("NoNewPrivs:\t1", status)
        [limit] = re.findall(r"Max open files\s+(\d+)", self.machine.read(f"/proc/{pid}/limits"))
        if may_raise_limits():
            self.assertEqual(limit, "1048576")
        self.assertEqual(self.machine.run("stat", "--format=%U %a", "/var/lib/txdirector/state", "/run/txdirector/control"),
                         "txdirector 600\ntxdirector 660\n")
        self.assertIn("lb1", self.machine.run("directorctl", "status"))

    def test_virtual_address(self) -> None:
        """With the drop-in for virtual addresses it takes one, which it could not without; the rest stays forbidden."""
        self.machine.run(script="ip link add vip0 type veth peer name vip1; ip link set vip0 up; ip link set vip1 up")
        self.addCleanup(self.machine.run, "ip", "link", "delete", "vip0")
        vips = f'[node]\nvips.interface = "vip0"\nvips.addresses = ["{VIP}/24"]\n'
        self.machine.write("/etc/txdirector/director.toml", DIRECTOR.replace("[node]\n", vips))
        self.drop_in("txdirector", (ROOT / "deploy/systemd/txdirector.service.d/vips.conf").read_text())
        pid = self.begin()
        self.until(lambda: VIP in self.machine.run("ip", "address", "show", "dev", "vip0"))
        self.assertIn("CapEff:\t0000008000003400", self.machine.read(f"/proc/{pid}/status"))
        self.machine.run("systemctl", "stop", "txdirector")
        self.assertNotIn(VIP, self.machine.run("ip", "address", "show", "dev", "vip0"))

    def test_reload(self) -> None:
        """The same process serves on, whatever it reads; the status says what was wrong with it."""
        pid = self.begin()
        self.machine.write("/etc/txdirector/director.toml", DIRECTOR.replace("[node]\n", "[node]\nlog.level = 'debug'\n"))
        self.machine.run("systemctl", "reload", "txdirector")
        self.until(lambda: "node.log.level was reloaded from /etc/txdirector/director.toml" in self.journal())
        self.machine.write("/etc/txdirector/director.toml", "[rubbish")
        self.machine.run("systemctl", "reload", "txdirector")
        self.until(lambda: "nothing was reloaded: " in self.status())
        self.until(lambda: self.machine.show("txdirector", "ActiveState", "MainPID") == ["active", str(pid)])
        self.machine.write("/etc/txdirector/director.toml", DIRECTOR)
        self.machine.run("systemctl", "reload", "txdirector")
        self.until(lambda: self.status().endswith("in rotation"))
        self.client()

    def test_watchdog(self) -> None:
        """A process that hangs is ended and another started: one that is frozen, and one of which a single thread hangs."""
        self.drop_in("txdirector", PATIENCE)
        pid = self.begin()
        restarts = self.restarts()
        os.kill(self.machine.outside(pid), signal.SIGSTOP)
        self.until(lambda: self.restarted("txdirector", pid, restarts))
        self.assertRegex(self.journal(), "(?s)txdirector.service: Watchdog timeout.*Fatal Python error: Aborted.*in run")
        if native_missing():
            raise SkipTest(f"needs the native relay: {native_missing()}")
        said = "systemd's watchdog is not fed: a thread of the native relay has not turned for "
        for _ in range(TRIES):
            if said not in self.journal():
                self.hang_a_relay()
        self.assertIn(said, self.journal())

    def hang_a_relay(self) -> None:
        """Stop a thread of it, until another process serves."""
        pid, restarts = int(self.machine.show("txdirector", "MainPID")[0]), self.restarts()
        hanging = threads(self.machine.outside(pid))["relay-0"]
        with stopped(hanging):
            self.until(lambda: died(hanging))
        self.until(lambda: self.restarted("txdirector", pid, restarts))
        self.client()

    def test_stop(self) -> None:
        """`systemctl stop` waits for clients, longer than systemd itself would, and nobody new is let in."""
        self.drop_in("txdirector", "[Service]\nTimeoutStopSec=1s\n")
        backend = self.listening(("127.0.0.1", 8000))
        self.begin()
        client = self.client()
        host, _ = backend.accept()
        self.machine.run("systemctl", "stop", "--no-block", "txdirector")
        self.until(lambda: self.status() == "SIGTERM: waiting for 1 connections")
        asked = time.monotonic()
        while time.monotonic() < asked + 2:  # seconds that systemd would not have given it
            client.sendall(b"ping")
            self.assertEqual(host.recv(4), b"ping")
            time.sleep(0.2)
        self.assertEqual(self.machine.show("txdirector", "ActiveState"), ["deactivating"])
        self.assertRaises(ConnectionRefusedError, self.client)
        client.close()
        host.close()
        self.until(lambda: self.machine.show("txdirector", "ActiveState", "Result") == ["inactive", "success"])

    def test_error_in_the_file(self) -> None:
        """It is told, and not tried again and again."""
        self.machine.write("/etc/txdirector/director.toml", DIRECTOR.replace("kind", "knid"))
        self.assertFalse(self.machine.succeeds("systemctl", "start", "txdirector"))
        self.assertEqual(self.machine.show("txdirector", "ActiveState", "SubState", "ExecMainStatus"), ["failed", "failed", "2"])
        self.assertIn("did you mean", self.journal())

    def test_a_cluster_of_init(self) -> None:
        """What `director init` wrote is run by both units, as printed in its guide: the agent is heard over TLS."""
        machine = self.machine
        machine.write("/etc/txdirector/agent.toml", "")
        machine.run("director", "init", "/etc/txdirector/main", "--director", "lb1=127.0.0.1", "--host", "app1=127.0.0.1:8000")
        [commands] = re.findall(r"```sh\n(install .*?)```", INIT_GUIDE.read_text(), flags=re.S)
        self.addCleanup(machine.run, script="rm -r /etc/txdirector/main /etc/systemd/system/*.service.d/cluster.conf; "
                                            "systemctl daemon-reload")
        self.addCleanup(machine.write, "/etc/txdirector/agent.toml", AGENT)
        machine.run(script=commands)
        for unit in ("txdirector", "director-agent"):
            self.assertEqual(machine.show(unit, "ActiveState"), ["active"])
        self.until(lambda: self.status("director-agent") == "reporting for web/main/app1; 1 of 1 directors listen", "director-agent")
        machine.run("test", "-e", "/etc/txdirector/main/directors/lb1/state")
        machine.run("runuser", "-u", "txdirector", "--", "director", "check", "/etc/txdirector/main/directors/lb1/director.toml")

    # --- the machine around it

    def test_networkd(self) -> None:
        """systemd-networkd takes a virtual address away when it configures its interface; with the drop-in it leaves it."""
        machine, vip = self.machine, "10.98.0.100"
        require("dbus-daemon", "dbus")
        machine.write("/etc/systemd/network/inside.network", "[Match]\nName=net0\n[Network]\nAddress=10.98.0.1/24\n"
                                                             "LinkLocalAddressing=no\nIPv6AcceptRA=no\n")
        machine.run(script="ip link add net0 type veth peer name net1; ip link set net1 up; systemctl start dbus systemd-networkd")
        self.addCleanup(machine.run, script="systemctl stop systemd-networkd.socket systemd-networkd; ip link delete net0")

        def configured(times: int) -> bool:
            """Whether it has been, so often."""
            return (self.journal("systemd-networkd").count("onfiguring with ") >= times
                    and machine.succeeds("grep", "-rq", "ADMIN_STATE=configured", "/run/systemd/netif/links"))

        def left_by(*command: str) -> set[str]:
            """The addresses after it was told that, which were two."""
            before = self.journal("systemd-networkd").count("onfiguring with ")
            machine.run("ip", "address", "replace", f"{vip}/24", "dev", "net0")
            machine.run("networkctl", *command)
            self.until(lambda: configured(before + 1), "systemd-networkd")
            return set(re.findall(r"inet ([\d.]+)/", machine.run("ip", "address", "show", "dev", "net0")))

        self.until(lambda: configured(1), "systemd-networkd")
        self.assertEqual(left_by("reconfigure", "net0"), {"10.98.0.1"})
        machine.run("install", "-D", "-m", "644", "-t", "/etc/systemd/network/inside.network.d",
                    "deploy/systemd/network/keep-addresses.conf")
        self.assertEqual(left_by("reload"), {"10.98.0.1", vip})
        self.assertEqual(left_by("reconfigure", "net0"), {"10.98.0.1", vip})

    def test_kernel_settings(self) -> None:
        """The kernel takes what sysctl.d says, and `director check` then finds nothing too low."""
        machine = self.machine
        machine.run(script="echo 32768 33791 >/proc/sys/net/ipv4/ip_local_port_range; echo 128 >/proc/sys/net/core/somaxconn")
        many = DIRECTOR.replace("timeouts", "limits.max_connections = 9000\ntimeouts")
        machine.write("/etc/txdirector/director.toml", many)

        def found() -> list[str]:
            warnings = machine.do("director", "check", "/etc/txdirector/director.toml").stderr.splitlines()
            return [name for name in ("net.core.somaxconn", "net.ipv4.ip_local_port_range") for line in warnings if f"{name} is" in line]

        self.assertEqual(found(), ["net.core.somaxconn", "net.ipv4.ip_local_port_range"])
        machine.run(script="install -D -m 644 -t /etc/sysctl.d deploy/systemd/sysctl.d/50-txdirector.conf; "
                           "/lib/systemd/systemd-sysctl /etc/sysctl.d/50-txdirector.conf")
        self.assertEqual(machine.run(script="cd /proc/sys/net; cat core/somaxconn ipv4/ip_local_port_range").split(),
                         ["4096", "10240", "65535"])
        self.assertEqual(found(), [])

    # --- the agent's

    def test_agent(self) -> None:
        """It is ready at once, reports from within its cage, and leaves when it is stopped."""
        self.begin()
        pid = self.begin("director-agent")
        self.until(lambda: self.status("director-agent") == "reporting for web/main/app1; 1 of 1 directors listen", "director-agent")
        self.assertIn("CapEff:\t0000000000000000", self.machine.read(f"/proc/{pid}/status"))
        self.machine.run("systemctl", "stop", "--no-block", "director-agent")
        self.until(lambda: self.status("director-agent") == "leaving for web/main/app1; 1 of 1 directors listen", "director-agent")
        self.until(lambda: self.machine.show("director-agent", "ActiveState", "Result") == ["inactive", "success"], "director-agent")

    def test_agent_watchdog(self) -> None:
        """One that hangs is ended and another started, which reports again."""
        self.drop_in("director-agent", PATIENCE)
        self.begin()
        pid = self.begin("director-agent")
        restarts = self.restarts("director-agent")
        os.kill(self.machine.outside(pid), signal.SIGSTOP)
        self.until(lambda: self.restarted("director-agent", pid, restarts), "director-agent")
        self.until(lambda: "1 of 1 directors listen" in self.status("director-agent"), "director-agent")
