"""`director.config.kernel`: what is let in beside what the kernel's settings leave room for."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from director.config import kernel
from director.config.files import checked
from director.config.kernel import Kernel

TEN = (1000, 1009)
HOSTS = {"a": "10.0.0.1:80", "b": "10.0.0.2:80"}


class KernelTests(SynchronousTestCase):
    def said(self, here: Kernel, *, most: int = 0, descriptors: float = math.inf, node: dict[str, Any] | None = None,
             **group: Any) -> list[tuple[str, str]]:
        web = {"listen": ["127.0.0.1:0"], "groups": {"main": {"hosts": HOSTS, **group}}, "limits": {"max_connections": most}}
        configuration = checked({"node": node or {}, "services": {"web": web}})
        return [(each.place, each.message) for each in kernel.warnings(configuration, here, descriptors=descriptors)]

    def test_ports(self) -> None:
        """As many connections as there are ports, for each host and source address."""
        self.assertEqual(self.said(Kernel(TEN), most=20), [])
        [(place, message)] = self.said(Kernel(TEN), most=21)
        self.assertEqual(place, "services.web.limits.max_connections")
        self.assertEqual(message, "net.ipv4.ip_local_port_range is 1000 1009: that is 20 connections to the hosts of group 'main', "
                                  "and 21 clients are let in")
        self.assertEqual(self.said(Kernel(TEN), most=40, source=["10.0.0.8", "10.0.0.9"]), [])

    def test_ports_that_no_number_is_true_of(self) -> None:
        """Hosts that register, UNIX sockets, services without a maximum, and where it cannot be told."""
        self.assertEqual(self.said(Kernel(TEN), most=21, registration={"mode": "auto"}), [])
        self.assertEqual(self.said(Kernel(TEN), most=21, hosts={"a": "unix:/run/a"}), [])
        self.assertEqual(self.said(Kernel(TEN)), [])
        self.assertEqual(self.said(Kernel(None), most=21), [])
        self.assertEqual(self.said(Kernel(TEN), most=21, node={"roles": ["manage"]}), [])
        etcd = {"store": "etcd:", "etcd": {"endpoints": ["127.0.0.1:1"]}}
        self.assertEqual(self.said(Kernel(TEN), most=21, node=etcd), [])

    def test_only_groups_that_get_clients(self) -> None:
        """The enabled one, or those of a split."""
        groups = {"blue": {"hosts": HOSTS}, "green": {"hosts": {"c": "10.0.0.3:80"}}}
        for more, named in (({}, []), ({"enable": "green"}, ["green"]), ({"split": {"blue": 1, "green": 1}}, ["green"])):
            web = {"groups": groups, "limits": {"max_connections": 20}, **more}
            found = [each.message for each in kernel.warnings(checked({"services": {"web": web}}), Kernel(TEN), descriptors=math.inf)]
            self.assertEqual([name for name in ("blue", "green") for message in found if repr(name) in message], named)

    def test_firewall(self) -> None:
        """Two entries of its table for each client that may come: of those let in, no more than there are descriptors for."""
        self.assertEqual(self.said(Kernel(None, 200), most=100), [])
        [(place, message)] = self.said(Kernel(None, 200), most=101)
        self.assertEqual(place, "services")
        self.assertIn("net.netfilter.nf_conntrack_max is 200: ", message)
        self.assertIn("101 clients may come", message)
        [(_, message)] = self.said(Kernel(None, 200), descriptors=3000)
        self.assertRegex(message, r"\d+ clients may come")
        self.assertEqual(self.said(Kernel(None, 200)), [], "nobody knows how many")
        self.assertEqual(self.said(Kernel(None), most=101), [], "it tracks none")

    def test_here(self) -> None:
        """What this machine's files say; those that are missing or odd say nothing."""
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("_PORTS", "_TRACKED", "_TRACKED_MOST"):
            self.patch(kernel, name, directory / name)
        self.assertEqual(Kernel.here(), Kernel(None))
        (directory / "_PORTS").write_text("32768\t60999\n")
        (directory / "_TRACKED_MOST").write_text("262144\n")
        self.assertEqual(Kernel.here(), Kernel((32768, 60999)))
        (directory / "_TRACKED").write_text("7\n")
        self.assertEqual(Kernel.here(), Kernel((32768, 60999), 262144))
        (directory / "_TRACKED").write_text("0\n")
        self.assertEqual(Kernel.here().tracked_most, 0, "no rule asks for it")
        (directory / "_PORTS").write_text("nonsense\n")
        self.assertIsNone(Kernel.here().ports)
