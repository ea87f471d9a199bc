"""Every operation × every transport × every role, made of the control interface's own table: an operation that a
transport forgets, or that somebody may do who must not, fails here without anybody having thought of it."""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from director.admin.control import OPERATIONS, Caller, Control, Role
from director.admin.rest import ROUTES
from director.admin.ui.acts import ACTS
from director.engine.errors import Forbidden
from tests.unit.admin.small_director import Admin
from tests.unit.admin.test_control import GOOD
from tests.unit.admin.test_rest import path_of
from tests.unit.admin.ui.test_forms import NO_FORM, form_of
from tests.unit.admin.visit import Visitor

DONE, FORBIDDEN, STRANGER = "done", "forbidden", "stranger"

#: Name and password, by who they are.
CALLERS: Mapping[str, str | None] = {
    "full": "ada:engine", "readonly": "bob:looking", "wrong password": "ada:looking", "unknown": "eve:engine",
    "nobody": None,
}

_BY_STATUS = {200: DONE, 403: FORBIDDEN, 401: STRANGER}


def expected(operation: str, caller: str) -> str:
    if caller not in ("full", "readonly"):
        return STRANGER
    return FORBIDDEN if caller == "readonly" and OPERATIONS[operation].role is Role.FULL else DONE


def by_rest(admin: Admin, operation: str, user: str | None) -> Iterator[str]:
    """Each way that there is to an operation."""
    for route in ROUTES:
        if route.operation == operation:
            path, others = path_of(route)
            for method in route.methods:
                if method in ("GET", "HEAD"):
                    query = "&".join(f"{name}={value}" for name, value in others.items())
                    answer = admin.ask(method, f"{path}?{query}", user=user)
                else:
                    answer = admin.ask(method, path, others, user=user)
                yield _BY_STATUS.get(answer.status, str(answer.status))


def by_xmlrpc(admin: Admin, operation: str, user: str | None) -> Iterator[str]:
    body = xmlrpc.client.dumps((GOOD[operation],), operation, allow_none=True).encode()
    answer = admin.ask("POST", "/RPC2", body, user=user, headers={"Content-Type": "text/xml"})
    if answer.status != 200:
        yield _BY_STATUS.get(answer.status, str(answer.status))
        return
    try:
        xmlrpc.client.loads(answer.body)
    except xmlrpc.client.Fault as fault:
        yield _BY_STATUS.get(fault.faultCode, str(fault))
    else:
        yield DONE


def by_form(admin: Admin, operation: str, user: str | None) -> Iterator[str]:
    """A stranger is sent to sign in, whatever they bring along."""
    visitor = Visitor(admin)
    if user is not None:
        visitor.sign_in(*user.split(":"))
    csrf = visitor.page("/").forms.get("/sign-out", {}).get("csrf", "")
    answer = visitor.post(f"/do/{operation}", form_of(operation) | {"csrf": csrf})
    if answer.status == 303:
        yield STRANGER if answer.headers["Location"].startswith("/sign-in") else DONE
    else:
        yield _BY_STATUS.get(answer.status, str(answer.status))


Transport = Callable[[Admin, str, str | None], Iterator[str]]

#: Each with the operations that it has.
TRANSPORTS: Mapping[str, tuple[Transport, frozenset[str]]] = {
    "REST": (by_rest, frozenset(OPERATIONS)),
    "XML-RPC": (by_xmlrpc, frozenset(OPERATIONS)),
    "forms": (by_form, frozenset(name for name, each in OPERATIONS.items() if each.changes) - NO_FORM),
}


def state(admin: Admin) -> Any:
    """All that an operation can change."""
    director = admin.director
    return (dict(director.hosts), dict(director.specs), dict(director.accounts), set(director.clients),
            list(director.did))


class MatrixTests(SynchronousTestCase):
    def test_rows(self) -> None:
        """Every operation has arguments that succeed, a way by REST, and, if it changes anything, a form."""
        self.assertEqual(set(GOOD), set(OPERATIONS))
        self.assertEqual({route.operation for route in ROUTES}, set(OPERATIONS))
        self.assertEqual(set(ACTS), TRANSPORTS["forms"][1])

    def test_interface(self) -> None:
        """The control interface itself asks for the role, whatever the transport has done."""
        for name, operation in OPERATIONS.items():
            for role in Role:
                admin = Admin()
                answer = Control(admin.director, audit=admin.audited.append).call(Caller("x", role), name, GOOD[name])
                if operation.role is Role.FULL and role is Role.READONLY:
                    self.failureResultOf(answer, Forbidden)
                else:
                    self.successResultOf(answer)

    def check(self, transport: str) -> None:
        """An operation is done for whoever may, once and with its entry in the audit; for others nothing changes, and
        the attempt of one who signed in is in the audit too."""
        perform, names = TRANSPORTS[transport]
        admin = Admin()
        for name in sorted(names):
            for caller, user in CALLERS.items():
                admin.clock.advance(600)  # wrong passwords have worn the throttle
                admin.director.__init__()  # type: ignore[misc]  # as it was: some things can be done only once
                before = state(admin)
                outcomes = perform(admin, name, user)
                while True:
                    admin.audited.clear()
                    outcome = next(outcomes, None)
                    if outcome is None:
                        break
                    row = (transport, name, caller)
                    self.assertEqual((*row, outcome), (*row, expected(name, caller)))
                    entries = [(entry.operation, entry.outcome.partition(":")[0]) for entry in admin.audited]
                    if not OPERATIONS[name].changes or outcome is STRANGER:
                        self.assertEqual(entries, [], row)
                    else:
                        self.assertEqual(entries, [(name, "ok" if outcome is DONE else "Forbidden")], row)
                    if outcome is not DONE or not OPERATIONS[name].changes:
                        self.assertEqual(state(admin), before, row)
                    admin.director.__init__()  # type: ignore[misc]

    def test_rest(self) -> None:
        """By REST, on every route and with every method."""
        self.check("REST")

    def test_xmlrpc(self) -> None:
        """By XML-RPC."""
        self.check("XML-RPC")

    def test_forms(self) -> None:
        """By the forms of the pages."""
        self.check("forms")
