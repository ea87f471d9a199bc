"""A cluster for each test, cables to pull, and what clients must have seen."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from deploy.lab.cluster import VIP, Clients, Cluster, Director, all_up, etcd_program, until
from deploy.lab.net import why_not
from deploy.lab.vips import VipLog

#: The target: a dead leader's VIP answers elsewhere after the lease of 2 s and half a second of etcd; and some for noise.
TAKEOVER_S = 5.0
#: How much of a cluster's log to show when a test fails.
TAIL_LINES = 30

__all__ = ["TAKEOVER_S", "VIP", "ChaosTestCase", "Clients", "Director", "all_up", "answered", "failed", "longest_gap", "require_namespaces", "until"]


def failed(seen: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [attempt for attempt in seen if attempt["error"] is not None]


def answered(seen: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [attempt for attempt in seen if attempt["error"] is None]


def longest_gap(seen: Sequence[dict[str, Any]]) -> float:
    """Seconds between two successive answers, at most."""
    times = sorted(attempt["began"] + attempt["took"] for attempt in answered(seen))
    return max((later - earlier for earlier, later in pairwise(times)), default=float("inf"))


def require_namespaces() -> None:
    """And etcd. Without them a test is skipped, in CI it fails."""
    reason = why_not() or ("" if etcd_program() else "etcd is missing: apt-get install etcd-server")
    if reason:
        if os.environ.get("CI") == "true":
            raise AssertionError(reason)
        raise SkipTest(reason)


class ChaosTestCase(SynchronousTestCase):
    """Two directors, one etcd member unless a test needs three, four backends with agents.

    At the end of every test no two directors may have held the VIP at once.
    """

    etcd = 1
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})  #: of the cluster

    def setUp(self) -> None:
        require_namespaces()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cluster = Cluster(Path(directory.name), etcd=self.etcd, **self.options)
        self.addCleanup(self.cluster.close)
        self.vips = VipLog(VIP, [each.machine for each in self.cluster.directors])
        self.addCleanup(self.vips.close)
        self.addCleanup(lambda: self.assertEqual(self.vips.overlaps(), []))
        self.addCleanup(self._keep_tails)
        self.start_cluster()

    def start_cluster(self) -> None:
        self.cluster.start()

    def _keep_tails(self) -> None:
        """For the report of a failure (``conftest.py``)."""
        programs = (*self.cluster.directors, *self.cluster.etcd)
        self.tails = {each.name: "\n".join(each.log.splitlines()[-TAIL_LINES:]) for each in programs if each.process}

    # --- words for tests

    def other(self, director: Director) -> Director:
        """The one of the two that *director* is not."""
        (other,) = (each for each in self.cluster.directors if each is not director)
        return other

    def await_takeover(self, by: Director) -> None:
        until(by.holds_vip, f"{by.name} takes the VIP over", 20.0)

    def await_all_up(self, *directors: Director) -> None:
        for director in directors or self.cluster.directors:
            until(lambda director=director: all_up(director, len(self.cluster.backends)),
                  f"{director.name} sees every host up")

    def never_evicted(self, director: Director) -> None:
        """The director saw no host go down since it started."""
        down = [host for host, entry in director.hosts().items() if any(
            step["after"] == "down" for step in entry["history"])]
        self.assertEqual(down, [], f"{director.name} evicted hosts")
