"""A service's own load, read of a machine's files: cgroups of version 2 and 1, and none."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from agent.own import OwnLoad
from agent.utilisation import Own
from tests.unit.agent.machine_tree import V1_MOUNTS, V2_MOUNT, Machine

WEB = "system.slice/web.service"
V1 = "9:memory:/box/web\n3:cpuset:/\n2:cpuacct:/box/web\n1:cpu:/box/web\n0::/\n"


class OwnCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine = Machine(Path(tempfile.mkdtemp()))
        self.clock = Clock()
        self.machine.listen(80, inode=901)
        self.machine.cpus((0, 0), (0, 0))

    def own(self, port: int | None = 80, **settings: Any) -> OwnLoad:
        return OwnLoad(port, monotonic=self.clock.seconds, root=str(self.machine.root), **settings)

    def second(self, own: OwnLoad, idle: int = 90) -> Own | None:
        """One second in which each CPU was idle for *idle* ticks."""
        self.clock.advance(1)
        at = round(self.clock.seconds())
        self.machine.cpus((idle * at, 100 * at), (idle * at, 100 * at))
        return own.sample()

    def assert_own(self, found: Own | None, source: str, utilisation: float, cpu: float, throttled: float | None = None,
                   memory: float | None = None) -> None:
        assert found is not None
        self.assertEqual(found.source, source)
        self.assertAlmostEqual(found.utilisation, utilisation, places=2)
        self.assertAlmostEqual(found.cpu, cpu, places=2)
        self.assertEqual((found.throttled, found.memory), (throttled, memory))


class Version2(OwnCase):
    def setUp(self) -> None:
        super().setUp()
        self.machine.write("proc/self/mountinfo", V2_MOUNT)
        self.machine.process(50, parent=1, ticks=0, sockets=[901], cgroups=f"0::/{WEB}\n")
        self.machine.cgroup("", cpu__stat="usage_usec 1")
        self.use(usec=5_000_000, periods=10, throttled=1)

    def use(self, usec: int, periods: int = 0, throttled: int = 0, quota: str = "20000 100000") -> None:
        self.machine.cgroup(
            WEB, cgroup__type="domain", cpu__max=quota, memory__max=1000, memory__current=700,
            memory__stat="anon 500\ninactive_file 200", cpu__stat=f"usage_usec {usec}\nuser_usec 1\nnr_periods {periods}\n"
            f"nr_throttled {throttled}\nthrottled_usec 5", **{"cpuset__cpus.effective": "0-1"})
        self.machine.cgroup("system.slice", cgroup__type="domain", cpu__max="max 100000", memory__max="max",
                            cpu__stat="usage_usec 9")

    def test_throttled(self) -> None:
        """At its quota: 1, on an idle machine; with the memory that cannot be dropped, and the periods."""
        own = self.own()
        self.assertIsNone(own.sample())
        self.use(usec=5_200_000, periods=20, throttled=10)
        self.assert_own(self.second(own), "cgroup", 1.0, 1.0, throttled=0.9, memory=0.5)

    def test_a_parents_quota(self) -> None:
        """The slice's quota is tighter, and a sibling has most of it."""
        def slice_used(usec: int) -> None:
            self.machine.cgroup("system.slice", cpu__max="50000 100000", cpu__stat=f"usage_usec {usec}\nnr_periods 0")

        own = self.own()
        self.use(usec=0, quota="max 100000")
        slice_used(0)
        own.sample()
        self.use(usec=100_000, quota="max 100000")
        slice_used(400_000)
        self.assert_own(self.second(own), "cgroup", 0.5, 0.2, throttled=0.0, memory=0.5)

    def test_named(self) -> None:
        """A cgroup that is named needs no owner of a port, and takes its CPUs from the cpuset."""
        self.machine.end(50)
        for port in (80, None):
            own = self.own(port, cgroup=f"/{WEB}")
            self.use(usec=0)
            own.sample()
            self.use(usec=100_000)
            self.assert_own(self.second(own), "cgroup", 0.5, 0.5, throttled=0.0, memory=0.5)
        self.assertEqual(own._read()[0].allowed, {0, 1})  # type: ignore[index]

    def test_no_such_cgroup(self) -> None:
        """Nothing is invented: unknown."""
        own = self.own(None, cgroup="/nowhere")
        own.sample()
        self.assertIsNone(self.second(own))

    def test_the_top_is_nobodys_own(self) -> None:
        """A service in the machine's own cgroup is measured by its processes."""
        self.machine.process(50, parent=1, ticks=100, sockets=[901], cgroups="0::/\n")
        own = self.own()
        own.sample()
        self.machine.process(50, parent=1, ticks=150, sockets=[901], cgroups="0::/\n")
        self.assert_own(self.second(own, idle=50), "process", 1 / 3, 0.25)

    def test_by_processes_when_asked(self) -> None:
        """Their time, against the cgroup's limit."""
        own = self.own(processes=True)
        own.sample()
        self.machine.process(50, parent=1, ticks=10, sockets=[901], cgroups=f"0::/{WEB}\n")
        self.assert_own(self.second(own), "process", 0.5, 0.5, throttled=0.0, memory=0.5)

    def test_another_service_begins_anew(self) -> None:
        """A service that moved to another cgroup, or restarted, is not compared with the former; nor is what went back."""
        own = self.own()
        own.sample()
        self.machine.cgroup("other", cgroup__type="domain", cpu__stat="usage_usec 77")
        self.machine.process(50, parent=1, ticks=0, sockets=[901], cgroups="0::/other\n")
        self.assertIsNone(self.second(own))
        self.assertIsNotNone(self.second(own))
        self.machine.cgroup("other", cpu__stat="usage_usec 0")
        self.assertIsNone(self.second(own))

    def test_garbage_is_unknown(self) -> None:
        """A file that is not what the kernel writes, and one that nobody may read: no figure, no exception."""
        own = self.own()
        own.sample()
        self.assertIsNotNone(self.second(own))
        for name, text in (("cpu__stat", "what"), ("cpu__stat", "nr_periods 5"), ("cpu__stat", ""), ("cpu__max", "?"), ("memory__current", "")):
            with self.subTest(name):
                self.machine.cgroup(WEB, **{name: text})
                self.assertIsNone(self.second(own))
                self.use(usec=6_000_000)

    def test_short_intervals_are_measured_over_a_second(self) -> None:
        """Reports ten times a second: a quota's period that falls into one of them does not make it 100 %."""
        own = self.own()
        found = []
        for tenth in range(31):
            at = 10 * tenth
            self.machine.cpus((9 * tenth, at), (9 * tenth, at))
            self.use(usec=20_000 * (tenth // 2))  # half of the quota, in bursts
            found.append(own.sample())
            self.clock.advance(0.1)
        late = [each.utilisation for each in found[12:] if each is not None]
        self.assertEqual(len(late), 19)
        self.assertTrue(all(0.4 <= share <= 0.6 for share in late), late)


class Version1(OwnCase):
    def setUp(self) -> None:
        super().setUp()
        self.machine.write("proc/self/mountinfo", V1_MOUNTS)
        self.machine.process(50, parent=1, ticks=0, sockets=[901], cgroups=V1, allowed="1")
        for controller in ("cpu", "cpuacct", "cpuset", "memory"):
            self.machine.cgroup(controller, release_agent="")
        self.use(0)

    def use(self, nanoseconds: int, box: int = 0) -> None:
        self.machine.cgroup("cpu/box/web", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000,
                            cpu__stat="nr_periods 0\nnr_throttled 0\nthrottled_time 0")
        self.machine.cgroup("cpu/box", cpu__cfs_quota_us=40000, cpu__cfs_period_us=100000,
                            cpu__stat="nr_periods 8\nnr_throttled 0\nthrottled_time 0")
        self.machine.cgroup("cpuacct/box/web", cpuacct__usage=nanoseconds)
        self.machine.cgroup("cpuacct/box", cpuacct__usage=box)
        self.machine.cgroup("memory/box/web", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=5,
                            memory__stat="cache 1\ntotal_inactive_file 2")
        self.machine.cgroup("memory/box", memory__limit_in_bytes=1000, memory__usage_in_bytes=600,
                            memory__stat="cache 1\ninactive_file 7\ntotal_inactive_file 100")

    def test_a_parents_quota(self) -> None:
        """Quota and memory limit of the parent, shared with a sibling; only the CPU that its process may use."""
        own = self.own()
        own.sample()
        self.use(100_000_000, box=300_000_000)
        self.assert_own(self.second(own), "cgroup", 0.5, 0.25, throttled=0.0, memory=0.5)

    def test_controllers_apart(self) -> None:
        """In a cgroup for its quota but in none for its CPU time: its processes' time, against the quota."""
        self.machine.process(50, parent=1, ticks=0, sockets=[901], cgroups=V1.replace("cpuacct:/box/web", "cpuacct:/"))
        own = self.own()
        own.sample()
        self.machine.process(50, parent=1, ticks=20, sockets=[901], cgroups=V1.replace("cpuacct:/box/web", "cpuacct:/"))
        self.assert_own(self.second(own), "process", 0.5, 0.5, throttled=0.0, memory=0.5)


class Nothing(OwnCase):
    def test_nobody_listens(self) -> None:
        """Unknown, so that the machine's counts; and known as soon as there is somebody, cgroups or not."""
        own = self.own()
        self.assertIsNone(own.sample())
        self.assertIsNone(self.second(own))
        self.machine.process(50, parent=1, ticks=0, sockets=[901], cgroups="")
        self.assertIsNone(self.second(own))
        self.machine.process(50, parent=1, ticks=50, sockets=[901], cgroups="")
        self.assert_own(self.second(own, idle=0), "process", 1.0, 0.25)
