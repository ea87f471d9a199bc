"""Upgrade after upgrade under load: `UPGRADES` of them (`make soak`: 200), half by each relay.

Half of them are to a release that tells of hosts and of sticky clients in another form, a tenth to one that crashes, dies,
fails or hangs. `UPGRADE_PER_S` clients connect each second, one transfers without end, 100 are idle, and Prometheus looks.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from itertools import cycle

from director.relay.choice import native_missing
from tests.integration.test_upgrade import UpgradeTestCase
from tests.integration.upgrade_kit import Load, Releases, Stage, counters, until

UPGRADES = int(os.environ.get("UPGRADES", "20"))
PER_S = float(os.environ.get("UPGRADE_PER_S", "60"))
#: A tenth of the upgrades is to one of these in turn; the last one takes as long as the director's patience.
BROKEN = ("dies", "crashes", "fails", "hangs") if UPGRADES > 100 else ("dies", "crashes", "fails")
IDLE = 100


class Scrapes:
    """Looks at the metrics all the time; `fell` are those that did, or that were not to be had."""

    def __init__(self, stage: Stage) -> None:
        self.fell: Counter[str] = Counter()
        self.count = 0
        self._stage = stage
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        last: dict[str, float] = {}
        while not self._over.wait(0.25):
            try:
                now = counters(self._stage.metrics())
            except OSError as error:
                self.fell[f"{type(error).__name__}: {error}"] += 1
                continue
            self.fell.update(name for name, value in last.items() if now.get(name, -1.0) < value)
            last = now
            self.count += 1

    def end(self) -> None:
        self._over.set()
        self._thread.join()


class PythonRelayTests(UpgradeTestCase):
    relay = "python"

    def test_soak(self) -> None:
        releases = Releases(self.directory, "this", "next", *BROKEN)
        config = self.config(more="[services.web.sticky]\nmode = 'table'\n")
        stage = Stage(self.directory, config, env=releases.env)
        self.addCleanup(stage.end)
        scrapes = Scrapes(stage)
        self.addCleanup(scrapes.end)
        load = self.load(per_s=PER_S, long_bytes=4_000_000)
        broken, running, done = cycle(BROKEN), "this", Counter[str]()
        for number in range(UPGRADES // 2):
            idle = Load(self.port, per_s=0.001, idle=IDLE)
            if number % 10 == 3:
                name = next(broken)
                releases.install(name)
                stage.fails()
                done[name] += 1
            else:
                running = running if number % 2 else {"this": "next", "next": "this"}[running]
                releases.install(running)
                stage.upgrade()
                done[running] += 1
            self.assertLessEqual(len(stage.alive()), 2)
            served = load.done
            idle.end()
            self.assertEqual(idle.faults, {}, number)
            stage.alone()
            until(lambda served=served: load.done > served + PER_S / 10)
            self.assertEqual((load.faults, scrapes.fell), ({}, {}), number)
        load.end()
        scrapes.end()
        self.assertEqual((load.faults, scrapes.fell), ({}, {}))
        print(f"{dict(done)}; {load.done} clients, {load.transfers} transfers, {scrapes.count} scrapes")


class NativeRelayTests(PythonRelayTests):
    relay = "native"
    if native_missing():
        skip = native_missing()
