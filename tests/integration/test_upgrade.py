"""A director's process replaced by the next one, while clients are connected and connect."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from director.relay.choice import native_missing
from tests.etcd_server import free_port
from tests.integration.upgrade_kit import Backend, Load, Stage, counters, until

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

    def config(self, drain_s: float = 30.0, more: str = "", store: str = "") -> str:
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

    def test_deadline(self) -> None:
        """A client that stays is cut at the service's drain_s; until then no further upgrade begins."""
        stage = self.stage(self.config(drain_s=3.0))
        load = self.load(per_s=20.0)
        client = load.connect()
        self.addCleanup(client.close)
        load.echo(client)
        stage.upgrade()
        self.assertIn("never more than two", stage.fails())
        load.echo(client)
        client.settimeout(30.0)
        with self.assertRaises(ConnectionResetError):
            client.recv(1)
        stage.alone()
        stage.upgrade()
        load.end()
        self.assertEqual(load.faults, {})


class NativeRelayTests(PythonRelayTests):
    relay = "native"
    if native_missing():
        skip = native_missing()
