"""``vip_on_isolation = "keep"``: who has the VIP while etcd is away."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from director.core.promises import PROMISE_S
from tests.chaos.kit import ChaosTestCase, failed, longest_gap, until


class KeepTests(ChaosTestCase):
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"node": 'vip_on_isolation = "keep"'})

    def test_etcd_away(self) -> None:
        """etcd is away for longer than any promise: the owner keeps the VIP throughout, clients see no gap, and when
        etcd is back it leads on."""
        (etcd,) = self.cluster.etcd
        holder = self.cluster.await_vip()
        clients = self.cluster.clients(50)
        etcd.kill()
        until(lambda: not any(each.status()["store_available"] for each in self.cluster.directors), "etcd is away")
        served = holder.metric("txdirector_connections_ended_total")
        until(lambda: holder.metric("txdirector_connections_ended_total") > served + 50 * 2 * PROMISE_S, "kept for long",
              deadline_s=60)
        self.assertTrue(holder.holds_vip())
        etcd.start()
        until(lambda: all(each.status()["store_available"] for each in self.cluster.directors), "etcd is back")
        until(lambda: holder.status()["leader"] == holder.name, "it leads on")
        seen = clients.stop()
        self.assertEqual(failed(seen), [])
        self.assertLess(longest_gap(seen), 2.0)

    def test_etcd_and_the_other_away(self) -> None:
        """When the owner hears the other no more while etcd is away, it gives the VIP up."""
        (etcd,) = self.cluster.etcd
        holder = self.cluster.await_vip()
        other = self.other(holder)
        etcd.kill()
        until(lambda: not any(each.status()["store_available"] for each in self.cluster.directors), "etcd is away")
        holder.machine.cut(other.machine)
        until(lambda: not holder.holds_vip(), "given up")
        holder.machine.heal(other.machine)
        etcd.start()
        self.cluster.await_vip()

    def test_only_the_owner_cut_off(self) -> None:
        """An owner that alone loses etcd gets no promise: the other leads as fast as ever."""
        holder = self.cluster.await_vip()
        holder.machine.cut(*(each.machine for each in self.cluster.etcd))
        self.await_takeover(self.other(holder))
        until(lambda: not holder.holds_vip(), "the first one's address is gone")
        holder.machine.heal(*(each.machine for each in self.cluster.etcd))
