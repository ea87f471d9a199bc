"""History in words: what changed, and when, though etcd keeps no times."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.model import AdminState, AuditEntry, Group, Host, HostRef, Leader, Limits, Order, Service
from cluster.store import PastWrite
from director.operations.past import MAX_DIFFERENCES, told

KEYS = Keys("c")
WEB = KEYS.service("web")


def service(hosts: dict[str, float], **more: Any) -> Service:
    made = {name: Host(address=f"10.0.0.{number + 1}:80", weight=weight) for number, (name, weight) in enumerate(hosts.items())}
    return Service(groups={"main": Group(hosts=made)}, **more)


def audit(at: float, name: str, *, refused: bool = False) -> tuple[str, AuditEntry]:
    return KEYS.audit(round(at * 1e6)), AuditEntry(at=at, who="ada", origin="", director="d1", operation="put_host",
                                                   arguments={"service": name}, outcome="ok", refused=refused)


def order(host: str, at: float) -> tuple[str, Order]:
    return KEYS.admin(HostRef("web", "main", host), "operator"), Order(state=AdminState.DRAIN, who="ada", at=at)


def past(*written: tuple[str, object | None]) -> list[tuple[str, float | None]]:
    """What is told of services and leaders, the oldest first; each of *written* in a revision of its own."""
    changes = [PastWrite(key, value if value is None or isinstance(value, bytes) else msgspec.json.encode(value), revision, None)
               for revision, (key, value) in enumerate(written, 1)]
    found = told(changes[::-1], KEYS, None, 100)
    return [(each.what, each.at) for each in found[::-1] if each.key in (WEB, KEYS.leader())]


class WhatTests(SynchronousTestCase):
    def test_differences(self) -> None:
        """A service's change says what is different: hosts that came and went, fields before and after."""
        whats = [what for what, _ in past(
            (WEB, service({"a": 1.0})), (WEB, service({"a": 2.0, "b": 1.0})),
            (WEB, service({"a": 2.0}, limits=Limits(max_connections=9))), (WEB, service({"a": 2.0}, limits=Limits(max_connections=9))),
            (WEB, None), (WEB, service({})), (WEB, b"{"), (WEB, service({})))]
        self.assertEqual(whats, [
            "service web changed",
            "service web: groups.main.hosts.a.weight changed: 1.0 → 2.0; groups.main.hosts.b added: 10.0.0.2:80",
            "service web: groups.main.hosts.b removed: 10.0.0.2:80; limits.max_connections changed: 0 → 9",
            "service web written as it was", "service web deleted", "service web added", "written", "written"])

    def test_many(self) -> None:
        """Of many differences the first are told, and how many more there are."""
        [_, (what, _)] = past((WEB, service({})), (WEB, service({f"h{number}": 1.0 for number in range(20)})))
        self.assertEqual(what.count(" added: "), MAX_DIFFERENCES)
        self.assertTrue(what.endswith(f"; and {20 - MAX_DIFFERENCES} more"), what)


class WhenTests(SynchronousTestCase):
    def test_audit(self) -> None:
        """The time of a service's change is that of its entry in the audit, not of another service's, nor a refused one."""
        [(_, at)] = past((WEB, service({})), audit(50.0, "other"), audit(60.0, "web", refused=True), audit(70.0, "web"))
        self.assertEqual(at, 70.0)

    def test_between(self) -> None:
        """Else that of what is known right after, where what is known before is near; else it is not known."""
        for last, when in ((110.0, 110.0), (4000.0, None)):
            [(_, at)] = past(order("a", 100.0), (KEYS.leader(), None), order("b", last))
            self.assertEqual(at, when)
        self.assertEqual([at for _, at in past((WEB, service({})), (KEYS.leader(), None))], [None, None])

    def test_leader(self) -> None:
        """A leader says since when it leads."""
        self.assertEqual(past((KEYS.leader(), Leader(name="d1", boot_id="1", since=5.0))), [("director d1 leads", 5.0)])
