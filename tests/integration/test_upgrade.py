"""A director's process replaced by the next one, while clients are connected and connect."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from director.relay.choice import native_missing
from tests.etcd_server import free_port
from tests.integration.upgrade_kit import DEADLINE_S, Backend, Load, Stage, counters, until

SERVICE = """
[node]
store = "{store}"
[services.web]
listen = ["127.0.0.1:{port}"]
relay = "{relay}"
timeouts.drain_s = {drain_s}
[services.web.groups.blue.hosts]
app1 = "{host}"
"""


class UpgradeTestCase(SynchronousTestCase):
    relay = "python"

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.backend = Backend()
        self.addCleanup(self.backend.close)
        self.port = free_port()

    def config(self, drain_s: float = 600.0, more: str = "", store: str = "") -> str:
        store = store or f"file:{self.directory}/store"
        return SERVICE.format(store=store, port=self.port, host=self.backend.address, drain_s=drain_s,
                              relay=self.relay) + more

    def stage(self, config: str) -> Stage:
        stage = Stage(self.directory, config)
        self.addCleanup(stage.end)
        return stage

    def load(self, *, per_s: float = 100.0, idle: int = 0, long_bytes: int = 0) -> Load:
        load = Load(self.port, per_s=per_s, idle=idle, long_bytes=long_bytes)
        self.addCleanup(load.end)
        return load


class PythonRelayTests(UpgradeTestCase):
    def test_nobody_notices(self) -> None:
        """Under short connections, a long transfer and idle clients: nobody is refused, cut or given other bytes; the old
        process ends with its last client; counters never fall."""
        stage = self.stage(self.config())
        load = self.load(idle=20, long_bytes=20_000_000)
        until(lambda: load.done > 50)
        before = counters(stage.metrics())
        done = load.done
        stage.upgrade()
        self.assertEqual(len(stage.alive()), 2)
        after = counters(stage.metrics())
        self.assertEqual([name for name, value in before.items() if after.get(name, -1.0) < value], [])
        until(lambda: load.done > done + 100)
        self.assertGreater(stage.json("status")["previous_connections"], 0)
        load.end()
        self.assertEqual(load.faults, {})
        self.assertGreater(load.transfers, 0)
        stage.alone()
        last = counters(stage.metrics())
        self.assertEqual([name for name, value in after.items() if last.get(name, -1.0) < value], [])
        accepted = last['txdirector_connections_accepted_total{service="web"}']
        self.assertEqual(accepted, load.done + load.transfers + 20)
        ended = sum(value for name, value in last.items() if name.startswith("txdirector_connections_ended_total"))
        self.assertEqual(ended, accepted)

    def test_bad_file(self) -> None:
        """With errors in the file the old process serves on, and the reason is told in a sentence."""
        stage = self.stage(self.config())
        good = stage.file.read_text()
        stage.file.write_text(good.replace("drain_s", "drain_seconds"))
        why = stage.fails()
        self.assertIn("drain_seconds", why)
        self.assertIn("the process that was there serves on", why)
        self.assertEqual(why.count("\n"), 1)
        load = self.load()
        until(lambda: load.done > 20)
        stage.file.write_text(good)
        stage.upgrade()
        load.end()
        self.assertEqual(load.faults, {})
        stage.alone()

    def test_two_processes(self) -> None:
        """While a client of the old process is there no further upgrade begins; it is listed among the new one's, and can be
        cut."""
        stage = self.stage(self.config())
        load = self.load(per_s=20.0)
        client = load.connect()
        self.addCleanup(client.close)
        load.echo(client)
        stage.upgrade()
        self.assertIn("never more than two", stage.fails())
        load.echo(client)
        other = load.connect()
        self.addCleanup(other.close)
        load.echo(other)
        names = ["{}:{}".format(*each.getsockname()) for each in (client, other)]
        listed = {each["client"]: each["previous"] for each in stage.json("connections", "web")["connections"]}
        self.assertEqual([listed.get(name) for name in names], [True, False])
        self.assertEqual(stage.ctl("cut", "web", names[0]).returncode, 0)
        with self.assertRaises(ConnectionResetError):
            client.recv(1)
        stage.alone()
        load.echo(other)
        load.end()
        self.assertEqual(load.faults, {})


class StateTests(UpgradeTestCase):
    """What the next process knows."""

    def agent(self, port: int) -> Path:
        log = self.directory / "agent.log"
        with log.open("ab") as out:
            agent = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "--director", f"127.0.0.1:{port}", "--host", "web/blue/app1", "--interval",
                 "0.2"], stderr=out)
        self.addCleanup(agent.wait)
        self.addCleanup(agent.kill)
        return log

    def host(self, stage: Stage, name: str = "app1") -> Any:
        [service] = stage.json("status")["services"]
        return next(each for group in service["groups"] for each in group["hosts"] if each["name"] == name)

    def test_agents(self) -> None:
        """An agent leaves the old process once the new one has welcomed it: its host is never down."""
        port = free_port()
        stage = self.stage(self.config(more=f"[node.agents]\nlisten = ['127.0.0.1:{port}']\n"))
        log = self.agent(port)
        until(lambda: self.host(stage)["agent_connected"])
        load = self.load(per_s=50.0, idle=1)
        for _ in range(2):
            stage.upgrade()
            until(lambda: self.host(stage)["agent_connected"])
            load.end()
            self.assertEqual(load.faults, {})
            stage.alone()
            load = self.load(per_s=50.0, idle=1)
        load.end()
        self.assertNotIn("down", [each["after"] for each in self.host(stage)["history"]])
        self.assertEqual(log.read_text().count("is another process now"), 2)

    def test_reload(self) -> None:
        """What cannot be taken in place is taken by a new process, and that is told; by SIGHUP, too."""
        stage = self.stage(self.config())
        load = self.load(per_s=20.0, idle=1)
        text = stage.file.read_text()
        stage.file.write_text(text.replace("[node]", "[node]\npanic_fraction = 0.6"))
        answer = stage.json("reload")
        self.assertEqual((answer["upgraded"], answer["restart"]), (["node.panic_fraction"], []))
        stage.knows(answer["pid"])
        load.end()
        stage.alone()
        self.assertEqual(stage.json("reload"), {"reloaded": [], "restart": []})
        stage.file.write_text(text)
        os.kill(answer["pid"], signal.SIGHUP)
        until(lambda: stage.text.count("this process has taken over") == 2)
        stage.knows(int(re.findall(r"upgrading: process (\d+) starts", stage.text)[-1]))
        stage.alone()
        self.assertEqual(load.faults, {})

    def test_systemd(self) -> None:
        """The old process says who the main one is, and then only that one speaks: ready, fed, stopping."""
        at = str(self.directory / "notify")
        systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(systemd.close)
        systemd.bind(at)
        heard: queue.Queue[str] = queue.Queue()

        def listen() -> None:  # all the time, as systemd does: the kernel keeps ten datagrams
            with contextlib.suppress(OSError):
                while data := systemd.recv(4096):
                    heard.put(data.decode())

        threading.Thread(target=listen, daemon=True).start()
        stage = Stage(self.directory, self.config(), env={"NOTIFY_SOCKET": at, "WATCHDOG_USEC": "3000000"})
        self.addCleanup(stage.end)

        def hear(what: str) -> str:
            while True:
                said = heard.get(timeout=DEADLINE_S)
                if what in said:
                    return said

        self.assertIn(f"MAINPID={stage.process.pid}", hear("READY=1"))
        pid = stage.upgrade()
        self.assertEqual(hear("MAINPID="), f"MAINPID={pid}")
        self.assertIn(f"MAINPID={pid}", hear("READY=1"))
        stage.alone()
        for _ in range(3):
            hear("WATCHDOG=1")
        os.kill(pid, signal.SIGTERM)
        hear("STOPPING=1")
        until(lambda: stage.alive() == [])

    def test_down_stays_down(self) -> None:
        """A host that is down gets no client of the next process, a local order and a sticky client stay, at any number of
        processes."""
        dead = free_port()
        stage = self.stage(self.config(more=f'app2 = "127.0.0.1:{dead}"\n[services.web.sticky]\nmode = "table"\n'))
        until(lambda: self.host(stage, "app2")["state"] == "down")
        load = self.load()
        until(lambda: load.done > 50)
        for _ in range(2):
            stage.upgrade()
            self.assertEqual(self.host(stage, "app2")["state"], "down")
            self.assertGreater(stage.json("status")["services"][0]["sticky_entries"], 0)
            stage.alone()
        load.end()
        self.assertEqual(load.faults, {})
        history = [each["after"] for each in self.host(stage, "app2")["history"]]
        self.assertEqual(history.count("down"), 1)
        failures = [value for name, value in stage.metrics().items()
                    if name.startswith("txdirector_host_connect_failures_total") and "app2" in name]
        self.assertEqual(self.host(stage, "app2")["connect_failures"], 0)
        self.assertLessEqual(sum(failures), 3)


class NativeRelayTests(PythonRelayTests):
    relay = "native"
    if native_missing():
        skip = native_missing()
