"""What the kernel says of cgroups and CPUs, read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from agent.cgroups import (
    Place,
    Ticks,
    counters,
    cpu_ticks,
    cpus,
    memberships,
    memory_limit,
    mounts,
    place,
    quota_v1,
    quota_v2,
)

V1 = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/4f /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = "29 23 0:26 / /sys/fs/cg\\040roup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


class Places(SynchronousTestCase):
    def test_version_2(self) -> None:
        """One hierarchy has every controller; the folders go from the cgroup's own to the top."""
        cgroups = memberships("0::/system.slice/web.service\n")
        folders = ("/sys/fs/cg roup/system.slice/web.service", "/sys/fs/cg roup/system.slice", "/sys/fs/cg roup")
        for controller in ("cpu", "memory"):
            self.assertEqual(place(controller, mounts(V2), cgroups), Place(True, folders))

    def test_version_1(self) -> None:
        """A controller is where it is mounted; a mount may show a part of its hierarchy, as in a container."""
        cgroups = memberships("4:memory:/docker/4f/app\n1:cpu,cpuacct:/web\n0::/other\n")
        self.assertEqual(place("cpuacct", mounts(V1), cgroups),
                         Place(False, ("/sys/fs/cgroup/cpu,cpuacct/web", "/sys/fs/cgroup/cpu,cpuacct")))
        self.assertEqual(place("memory", mounts(V1), cgroups),
                         Place(False, ("/sys/fs/cgroup/memory/app", "/sys/fs/cgroup/memory")))
        self.assertEqual(place("cpuset", mounts(V1), cgroups),
                         Place(True, ("/sys/fs/cgroup/unified/other", "/sys/fs/cgroup/unified")))

    def test_out_of_sight(self) -> None:
        """Another namespace's cgroup, one above the mount's, and no mount at all: None."""
        self.assertIsNone(place("cpu", mounts(V2), {"": "/../web"}))
        self.assertIsNone(place("memory", mounts(V1), {"memory": "/docker/4fff"}))
        self.assertIsNone(place("cpu", [], {"": "/web"}))
        self.assertIsNone(place("cpu", mounts(V1), {}))


class Values(SynchronousTestCase):
    def test_quotas(self) -> None:
        """Cores; none without a limit."""
        self.assertEqual([quota_v2("20000 100000\n"), quota_v2("max 100000\n")], [0.2, None])
        self.assertEqual([quota_v1("150000\n", "100000\n"), quota_v1("-1\n", "100000\n")], [1.5, None])

    def test_memory(self) -> None:
        """Bytes; none without a limit, which version 1 writes as a number."""
        self.assertEqual([memory_limit(text) for text in ("max\n", "9223372036854771712\n", "1048576\n")],
                         [None, None, 1048576])

    def test_cpus(self) -> None:
        """Ranges and single ones; an empty list is empty."""
        self.assertEqual(cpus("0-2,7\n"), {0, 1, 2, 7})
        self.assertEqual(cpus("\n"), set())

    def test_ticks(self) -> None:
        """Waiting for a disk is idle; stolen time is not; guests are not counted twice; the sum of all CPUs is no CPU."""
        self.assertEqual(cpu_ticks("cpu  9 9 9 9 9\ncpu0 10 1 5 100 20 1 2 3 4 0\ncpu2 1 1 1 1 1\nintr 5 0\n"),
                         {0: Ticks(120, 142), 2: Ticks(2, 5)})

    def test_counters(self) -> None:
        self.assertEqual(counters("usage_usec 5\nnr_periods 7\n"), {"usage_usec": 5, "nr_periods": 7})

    def test_garbage(self) -> None:
        """What the kernel does not write is refused, never read as some value."""
        for parse, text in (
            (mounts, "1 2 3 - cgroup"), (memberships, "0:/x"), (memberships, "x:cpu:/"), (memberships, "1:cpu:x"),
            (quota_v2, "1"), (quota_v2, "0 100000"), (quota_v2, "-5 100000"), (quota_v2, "5 0"), (memory_limit, "lots"),
            (counters, "a b c"), (counters, "a"), (cpus, "0-"), (cpus, "5-3"), (cpus, "-1"), (cpus, "0-99999999"),
            (cpu_ticks, "cpu0 1"), (cpu_ticks, "cpux 1 2 3 4 5"),
        ):
            with self.subTest(text):
                self.assertRaises(ValueError, parse, text)

    @given(st.text(alphabet="cpu0123456789 -,:/\nmax\\", max_size=60))
    def test_any_text(self, text: str) -> None:
        """Nothing but ValueError, whatever comes."""
        for parse in (mounts, memberships, quota_v2, memory_limit, counters, cpus, cpu_ticks):
            try:
                parse(text)
            except ValueError:
                continue
