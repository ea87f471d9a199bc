"""The control interface: roles, arguments, refusals and the audit, for every declared operation."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import StoreUnavailable
from cluster.model import AdminState, HostRef, HostState
from director.admin.control import OPERATIONS, Audit, Caller, Control, Role
from director.core.snapshot import DirectorPicture, TransitionPicture
from director.engine.errors import Conflict, Forbidden, Invalid, NotFound
from tests.unit.admin.small_director import SmallDirector, host_picture

HOST = {"service": "web", "group": "blue", "host": "app1"}
GREEN = {"service": "web", "group": "green"}
#: Arguments that succeed, for every operation: one without a row here fails `MatrixTests`.
GOOD: dict[str, dict[str, object]] = {
    "status": {},
    "totals": {},
    "services": {},
    "service": {"service": "web"},
    "groups": {"service": "web"},
    "group": {"service": "web", "group": "blue"},
    "hosts": {},
    "host": HOST,
    "explain": {"service": "web", "client": "192.0.2.1"},
    "order": HOST | {"state": "drain", "why": "new kernel"},
    "weight": HOST | {"weight": 2.5},
    "approve": HOST,
    "retry": HOST,
    "audit": {"limit": 10},
    "users": {},
    "put_user": {"user": "cyd", "password": "difference", "role": "full"},
    "del_user": {"user": "bob"},
    "bad_hosts": {},
    "cluster": {},
    "vips": {},
    "move_vip": {"address": "10.0.0.100", "director": "two"},
    "pin_vip": {"address": "10.0.0.100", "director": "two"},
    "unpin_vip": {"address": "10.0.0.100"},
    "rebalance_vips": {},
    "history": {"service": "web", "group": "blue", "host": "app1", "limit": 10},
    "connections": {"service": "web", "limit": 10},
    "kill_connection": {"service": "web", "client": "192.0.2.7:4711"},
    "reopen_logs": {},
    "reload": {},
    "upgrade": {},
    "shutdown": {},
    "config_running": {},
    "config_boot": {},
    "spec": {"service": "web"},
    "put_service": {"service": "web", "spec": {"listen": ["127.0.0.1:8000"]}},
    "new_service": {"service": "ftp", "spec": {"listen": ["127.0.0.1:21"]}},
    "del_service": {"service": "mail"},
    "new_group": {"service": "mail", "group": "red"},
    "del_group": GREEN,
    "enable_group": GREEN,
    "split_service": {"service": "web", "shares": {"blue": 95, "green": 5}},
    "change_scheduler": GREEN | {"scheduler": "p2c", "parameters": {"choices": 3}},
    "put_host": HOST | {"address": "127.0.0.1:8009"},
    "del_host": HOST,
    "del_all_hosts": GREEN,
}
ADA = Caller("ada", Role.FULL, "192.0.2.9")
BOB = Caller("bob", Role.READONLY, "192.0.2.8")


class ControlCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.director = SmallDirector()
        self.audited: list[Audit] = []
        self.control = Control(self.director, audit=self.audited.append)

    def call(self, name: str, caller: Caller = ADA, *, text: bool = False, **arguments: object) -> Any:
        return self.successResultOf(self.control.call(caller, name, arguments, text=text))

    def refused(self, kind: type[Exception], name: str, caller: Caller = ADA, *, text: bool = False,
                **arguments: object) -> str:
        return str(self.failureResultOf(self.control.call(caller, name, arguments, text=text), kind).value)


class MatrixTests(ControlCase):
    """Every operation × every role."""

    def test_every_operation_has_a_row(self) -> None:
        """A new operation must be added to the matrix, and describes itself in a sentence."""
        self.assertEqual(set(GOOD), set(OPERATIONS))
        for operation in OPERATIONS.values():
            self.assertTrue(operation.summary.endswith("."), operation.name)

    def test_full_may_do_everything(self) -> None:
        """The role full is allowed every operation."""
        for name, arguments in GOOD.items():
            self.setUp()
            self.call(name, **arguments)

    def test_readonly_may_look_only(self) -> None:
        """The role readonly sees everything and changes nothing."""
        for name, arguments in GOOD.items():
            before = self.director.picture()
            if OPERATIONS[name].changes:
                self.assertIn("readonly", self.refused(Forbidden, name, BOB, **arguments))
            else:
                self.call(name, BOB, **arguments)
            self.assertEqual(self.director.picture(), before)

    def test_only_changes_are_audited(self) -> None:
        """Each attempted change leaves exactly one entry, done or refused; looking leaves none."""
        for name, arguments in GOOD.items():
            for caller, outcome in ((ADA, "ok"), (BOB, "Forbidden")):
                self.setUp()
                self.control.call(caller, name, arguments).addErrback(lambda failure: failure.trap(Forbidden))
                if OPERATIONS[name].changes:
                    (entry,) = self.audited
                    self.assertEqual((entry.caller, entry.operation), (caller, name))
                    self.assertTrue(entry.outcome.startswith(outcome), entry.outcome)
                else:
                    self.assertEqual(self.audited, [])

    def test_unknown_arguments_are_refused_everywhere(self) -> None:
        """No operation ignores an argument that it does not know."""
        for name, arguments in GOOD.items():
            self.assertIn("colour", self.refused(Invalid, name, **arguments, colour="red"))

    def test_in_words(self) -> None:
        """What a parameter must be is said as people say it."""
        for changes, said in (
            ({"weight": "heavy"}, "weight: expected a number from 0 to 1000000"),
            ({"weight": 1, "host": "a b"}, "host: expected a name: 1 to 63 letters, digits, dots, underscores or hyphens"),
        ):
            self.assertEqual(self.refused(Invalid, "weight", text=True, **HOST | changes), said)
        self.assertEqual(self.refused(Invalid, "order", **HOST | {"state": "sideways"}),
                         'state: expected one of "up", "drain", "down"')
        self.assertEqual(self.refused(Invalid, "order", **HOST | {"state": "down", "why": "x" * 501}),
                         "why: expected a string of at most 500 characters")

    def test_missing_arguments_are_refused_everywhere(self) -> None:
        """An operation that needs arguments says which one is missing."""
        for name, operation in OPERATIONS.items():
            if not any(field.required for field in msgspec.structs.fields(operation.parameters)):
                continue
            self.assertIn("missing", self.refused(Invalid, name))


class LookingTests(ControlCase):
    def test_hosts_narrow_down(self) -> None:
        """Hosts are listed for all services, for one, or for one group."""
        names = [[host.name for host in self.call("hosts", **arguments)]
                 for arguments in ({}, {"service": "web"}, {"service": "mail", "group": "all"})]
        self.assertEqual(names, [["app1", "app2", "mx"], ["app1", "app2"], ["mx"]])

    def test_hosts_in_pages(self) -> None:
        """Pages follow each other by name, without gap or repetition, whoever has left meanwhile."""
        every = sorted((host.service, host.group, host.name) for host in self.call("hosts"))
        for limit in (1, 2, 3, 4):
            found: list[tuple[str, str, str]] = []
            after: dict[str, str] = {}
            while page := self.call("hosts", limit=limit, **after):
                self.assertLessEqual(len(page), limit)
                found += [(host.service, host.group, host.name) for host in page]
                self.assertLessEqual(len(found), len(every))
                after = {"after": "/".join(found[-1])}
            self.assertEqual(found, every)
        self.assertEqual([host.name for host in self.call("hosts", after="web/blue/app1a")], ["app2"])
        self.assertEqual([host.name for host in self.call("hosts", service="web", group="blue", limit=1)], ["app1"])
        self.assertEqual(self.call("hosts", service="mail", after="web/blue/app1"), ())

    def test_pages_that_cannot_be(self) -> None:
        """A page has a host or more, a thousand at most, and begins after something that could be a host."""
        for limit in (0, -1, 1001):
            self.assertIn("limit", self.refused(Invalid, "hosts", limit=limit))
        self.assertIn("after", self.refused(Invalid, "hosts", after="web"))
        self.assertIn("'gopher'", self.refused(NotFound, "hosts", service="gopher", limit=1))

    def test_services_in_pages(self) -> None:
        """Services, and the status, come by name in pages without gap or repetition; with a limit of none the status is
        the director alone. Without either they come whole, in the order that they are configured in."""
        self.assertEqual([each.name for each in self.call("services")], ["web", "mail"])
        self.assertEqual(self.call("status").services, self.call("services"))
        for ask in (lambda **page: self.call("services", **page), lambda **page: self.call("status", **page).services):
            for limit in (1, 2, 3):
                found: list[object] = []
                after: dict[str, str] = {}
                while page := ask(limit=limit, **after):
                    self.assertLessEqual(len(page), limit)
                    found += page
                    self.assertLessEqual(len(found), 2)
                    after = {"after": page[-1].name}
                self.assertEqual(found, sorted(self.call("services"), key=lambda each: each.name))
            self.assertEqual([each.name for each in ask(after="mailbox")], ["web"])
            self.assertEqual([each.name for each in ask(after="")], ["mail", "web"])
        bare = self.call("status", limit=0)
        self.assertEqual(bare, msgspec.structs.replace(self.call("status"), services=()))
        for name, limits in (("services", (0, -1, 101)), ("status", (-1, 101))):
            for limit in limits:
                self.assertIn("limit", self.refused(Invalid, name, limit=limit))

    def test_bad_hosts_in_pages(self) -> None:
        """Bad hosts come by name, in pages when asked; `total` counts all; `unused` are those that an order keeps out too,
        with all changes of state."""
        events = [TransitionPicture(at=float(at), before=HostState.UP, after=after, why="test")
                  for at, after in ((1, HostState.DOWN), (2, HostState.UP))]
        for name in ("mx", "app1"):
            ref = next(each for each in self.director.hosts if each.host == name)
            self.director.hosts[ref] = host_picture(ref, state=HostState.DOWN, in_rotation=False, history=tuple(events))
        ordered = HostRef("web", "blue", "app2")
        self.director.hosts[ordered] = host_picture(ordered, admin=AdminState.DOWN, in_rotation=False)

        def names(**asked: object) -> tuple[list[str], int]:
            found = self.call("bad_hosts", **asked)
            return [each.name for each in found.current], found.total

        self.assertEqual(names(), (["mx", "app1"], 2))
        self.assertEqual(names(unused=True), (["mx", "app1", "app2"], 3))
        self.assertEqual(names(limit=1), (["mx"], 2))
        self.assertEqual(names(limit=1, after="mail/all/mx"), (["app1"], 2))
        self.assertEqual(names(limit=9, after="web/blue/app1", unused=True), (["app2"], 3))
        self.assertEqual(names(after="web/blue/app1"), ([], 2))
        self.assertEqual([each.transition for each in self.call("bad_hosts").historic], [events[0]] * 2)
        self.assertEqual([each.transition.at for each in self.call("bad_hosts", unused=True).historic], [2, 2, 1, 1])
        self.assertIn("after", self.refused(Invalid, "bad_hosts", after="web"))
        self.assertIn("limit", self.refused(Invalid, "bad_hosts", limit=1001))

    def test_pages_look_at_nothing_else(self) -> None:
        """Whoever asks for a page, for totals or for bad hosts has no picture of everything made."""
        picture, asked = self.director.picture, []

        def noted(*names: str | None) -> DirectorPicture:
            asked.append(names[:1])
            return picture(*names)

        self.director.picture = noted  # type: ignore[method-assign]
        for name, arguments in (("status", {"limit": 1}), ("services", {"after": "mail"}), ("totals", {}), ("bad_hosts", {}),
                                ("bad_hosts", {"unused": True}), ("hosts", {"limit": 3})):
            self.call(name, **arguments)
            self.assertNotIn((), asked, name)
            self.assertNotIn((None,), asked, name)

    def test_group_without_service_is_refused(self) -> None:
        """A group's name alone says nothing."""
        self.assertIn("group", self.refused(Invalid, "hosts", group="blue"))

    def test_unknown_names(self) -> None:
        """What does not exist is named in the refusal."""
        self.assertIn("'gopher'", self.refused(NotFound, "service", service="gopher"))
        self.assertIn("'red'", self.refused(NotFound, "group", service="web", group="red"))
        self.assertIn("'app9'", self.refused(NotFound, "host", **(HOST | {"host": "app9"})))
        self.assertIn("'dance'", self.refused(NotFound, "dance"))
        self.assertIn("'gopher'", self.refused(NotFound, "explain", service="gopher", client="::1"))

    def test_explain_wants_an_address(self) -> None:
        """A client is an IP address, and is answered in its canonical spelling."""
        self.assertIn("client", self.refused(Invalid, "explain", service="web", client="example.org"))
        self.assertEqual(self.call("explain", service="web", client="2001:DB8:0::1").client, "2001:db8::1")


class ChangingTests(ControlCase):
    def test_order_answers_the_host_after_it(self) -> None:
        """An order names who gave it and why, and its answer shows it in force."""
        host = self.call("order", **HOST, state="down", why="disk")
        self.assertIs(host.admin, AdminState.DOWN)
        self.assertEqual((host.orders[0].who, host.orders[0].why), ("ada", "disk"))

    def test_weight_from_text(self) -> None:
        """A query or a form gives a weight as text."""
        self.assertEqual(self.call("weight", text=True, **HOST, weight="0.5").configured_weight, 0.5)

    def test_bad_values_change_nothing(self) -> None:
        """Values beyond their bounds are refused with their place, and nothing happens."""
        before = self.director.picture()
        for weight in (-1, 1e7, "heavy", None, float("nan"), float("inf")):
            self.assertIn("weight", self.refused(Invalid, "weight", **HOST, weight=weight))
        for weight in ("nan", "inf", "-1", "", "0x10"):
            self.assertIn("weight", self.refused(Invalid, "weight", text=True, **HOST, weight=weight))
        self.assertIn("state", self.refused(Invalid, "order", **HOST, state="sideways"))
        self.assertIn("why", self.refused(Invalid, "order", **HOST, state="down", why="x" * 501))
        self.assertIn("deadline_s", self.refused(Invalid, "order", **HOST, state="down", deadline_s=5))
        self.assertIn("host", self.refused(Invalid, "retry", **(HOST | {"host": "../etc"})))
        self.assertEqual(self.director.picture(), before)

    def test_unknown_host_is_not_changed(self) -> None:
        """Each change is refused for a host that does not exist."""
        nobody = HOST | {"host": "app9"}
        self.refused(NotFound, "order", **nobody, state="up")
        self.refused(NotFound, "weight", **nobody, weight=1)
        self.refused(NotFound, "retry", **nobody)

    def test_conflict_passes_through(self) -> None:
        """The director's own refusal reaches the caller and the audit."""
        self.call("order", **HOST, state="down")
        self.assertIn("ordered down", self.refused(Conflict, "retry", **HOST))
        self.assertIn("Conflict", self.audited[-1].outcome)

    def test_a_local_order_needs_no_store(self) -> None:
        """While the store is away an order for this director alone is taken, and audited as what it is."""
        self.director.available = False
        self.refused(StoreUnavailable, "order", **HOST, state="drain")
        host = self.call("order", **HOST, state="drain", local=True)
        self.assertEqual((host.admin, host.orders[0].by), (AdminState.DRAIN, "local"))
        self.assertEqual((self.audited[-1].outcome, self.audited[-1].arguments["local"]), ("ok", True))

    def test_store_away_is_no_refusal(self) -> None:
        """A change while the store is away fails as such, is audited, and changed nothing."""
        self.director.available = False
        self.refused(StoreUnavailable, "weight", **HOST, weight=3)
        self.assertIn("StoreUnavailable", self.audited[-1].outcome)
        self.assertEqual(self.director.hosts[HostRef(**HOST)].weight, 1.0)


class RecordedTests(ControlCase):
    """What the audit may show."""

    def test_large_and_unknown_arguments(self) -> None:
        """Of a large argument the size is kept, of one that the operation does not know not even the value: it may be
        a misspelt password."""
        self.call("put_service", service="web", spec={"listen": [f"127.0.0.1:{port}" for port in range(1, 500)]})
        self.assertRegex(str(self.audited[-1].arguments["spec"]), r"^\(\d+ bytes\)$")
        self.refused(Invalid, "weight", **HOST, weight=1, pasword="hunter2")
        self.assertNotIn("hunter2", repr(self.audited[-1]))

    def test_unencodable_arguments(self) -> None:
        """Whatever a transport can carry leaves an entry."""
        self.refused(Invalid, "weight", **HOST, weight={1: object()})
        self.assertEqual(self.audited[-1].arguments["weight"], "(unreadable)")
        for name in ("\ud800", "x" * 10_000):
            self.refused(Invalid, "weight", **HOST, weight=1, **{name: 1})
            msgspec.json.encode([dict(self.audited[-1].arguments), self.audited[-1].outcome])
            self.assertLess(len(repr(self.audited[-1])), 5000)
        self.control.call(ADA, "weight", {None: 1}).addErrback(lambda failure: failure.trap(Invalid))  # type: ignore[dict-item]
        self.assertEqual(self.audited[-1].arguments, {"None": "(unknown)"})
