"""Changing things through forms: outcomes, refusals, roles, and requests that other sites forge."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, Host, HostRef
from director.admin.control import OPERATIONS
from director.admin.ui.acts import ACTS
from director.admin.ui.pages import route_of
from tests.unit.admin.small_director import Admin
from tests.unit.admin.test_control import GOOD
from tests.unit.admin.visit import Html, Visitor

APP1 = HostRef("web", "blue", "app1")
HOST = "/services/web/groups/blue/hosts/app1"


#: Where a form's fields are not the operation's parameters: what it sends.
FIELDS = {
    "new_service": {"service": "ftp", "listen": "127.0.0.1:21, [::1]:21"},
    "split_service": {"service": "web", "shares": "blue=95, green=5"},
    "change_scheduler": {"service": "web", "group": "green", "scheduler": "p2c", "parameters": "choices = 3"},
}
#: Changes that no form makes: they take whole documents, which are for the API and the command line.
NO_FORM = {"put_service"}


def form_of(operation: str) -> dict[str, str]:
    """What a form that succeeds sends."""
    return FIELDS.get(operation) or {name: str(value) for name, value in GOOD[operation].items()}


class FormCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.admin = Admin()
        self.ada = Visitor(self.admin)
        self.ada.sign_in()

    @property
    def app1(self) -> Any:
        return self.admin.director.hosts[APP1]

    def token(self, visitor: Visitor) -> str:
        return visitor.page("/").forms["/sign-out"]["csrf"]


class OutcomeTests(FormCase):
    def test_order(self) -> None:
        """A drain is ordered in the operator's name, with the reason; the host's page then shows it, and says so."""
        page = self.ada.page(HOST)
        answer = self.ada.send(page, "/do/order", state="drain", why="new kernel")
        self.assertEqual((answer.status, answer.headers["Location"]), (303, f"{HOST}?done=order"))
        self.assertEqual(self.app1.admin, AdminState.DRAIN)
        shown = self.ada.page(f"{HOST}?done=order").text
        self.assertIn("The order is in force.", shown)
        self.assertIn("by operator ada", shown)
        self.assertIn("new kernel", shown)
        (entry,) = self.admin.audited
        self.assertEqual((entry.caller.who, entry.caller.origin, entry.outcome), ("ada", "127.0.0.1", "ok"))

    def test_infinite(self) -> None:
        """A time without an end, or a parameter that TOML cannot hold, is refused in words."""
        for text in ("inf", "nan", "1e999"):
            page = self.ada.page(HOST)
            answer = self.ada.send(page, "/do/order", state="drain", deadline_s=text)
            self.assertEqual((answer.status, self.app1.admin), (400, AdminState.UP))
        for text in ("a = " + "9" * 5000, "a = " + "[" * 3000 + "]" * 3000, "a = "):
            fields = form_of("change_scheduler") | {"csrf": self.token(self.ada), "parameters": text}
            answer = self.ada.post("/do/change_scheduler", fields)
            self.assertEqual((answer.status, b"a line is expected" in answer.body), (400, True), text[:20])

    def test_every_act(self) -> None:
        """Each form that there is does its operation, once, and leads to a page of ours that tells so."""
        for operation, act in ACTS.items():
            admin = Admin()
            visitor = Visitor(admin)
            visitor.sign_in()
            answer = visitor.post(f"/do/{operation}", form_of(operation) | {"csrf": self.token(visitor)})
            self.assertEqual(answer.status, 303, (operation, answer.body))
            where, _, query = answer.headers["Location"].partition("?")
            self.assertEqual((query, route_of(where)[0].path), (f"done={operation}", route_of(act.page(form_of(operation)))[0].path))
            self.assertIn(act.done, visitor.page(f"/?done={operation}").text)
            self.assertEqual([(entry.operation, entry.outcome) for entry in admin.audited], [(operation, "ok")])

    def test_changes_have_forms(self) -> None:
        """Whatever the control interface can change has a form, but for what is listed; looking has none."""
        self.assertEqual(set(ACTS), {name for name, each in OPERATIONS.items() if each.changes} - NO_FORM)

    def test_hosts_are_added(self) -> None:
        """Empty fields have the operation's defaults, a ticked box is true."""
        page = self.ada.page("/services/web/groups/blue")
        self.ada.send(page, "/do/put_host", host="app9", address="127.0.0.1:8009", backup="true", max_connections="40")
        added = self.admin.director.specs["web"].spec.groups["blue"].hosts["app9"]
        self.assertEqual(added, Host(address="127.0.0.1:8009", weight=1.0, max_connections=40, backup=True))
        self.ada.send(page, "/do/put_host", host="app8", address="127.0.0.1:8008")
        self.assertEqual(self.admin.director.specs["web"].spec.groups["blue"].hosts["app8"], Host(address="127.0.0.1:8008"))

    def test_hosts_that_are_refused(self) -> None:
        """A host that can't be is refused on its group's page, with every field as it was filled in."""
        page = self.ada.page("/services/web/groups/blue")
        answer = self.ada.send(page, "/do/put_host", host="a b", address="x", weight="2", backup="true")
        shown = Html(answer.body)
        self.assertEqual((answer.status, shown.forms["/do/put_host"]["host"]), (400, "a b"))
        self.assertEqual(shown.forms["/do/put_host"]["weight"], "2")
        self.assertIn(("input", {"type": "checkbox", "name": "backup", "value": "true", "checked": ""}), shown.tags)
        self.assertEqual(len(self.admin.director.specs["web"].spec.groups["blue"].hosts), 2)

    def test_schedulers(self) -> None:
        """A scheduler is chosen from those there are; its parameters are read as a file's would be, and told when they
        can't."""
        page = self.ada.page("/services/web/groups/blue")
        self.assertEqual(self.ada.send(page, "/do/change_scheduler", scheduler="p2c", parameters="choices = 3").status, 303)
        changed = self.admin.director.specs["web"].spec.groups["blue"]
        self.assertEqual((changed.scheduler, changed.parameters), ("p2c", {"choices": 3}))
        answer = self.ada.send(page, "/do/change_scheduler", scheduler="p2c", parameters="choices: 3")
        self.assertEqual(answer.status, 400)
        self.assertIn("parameters: one 'name = value' a line is expected", Html(answer.body).text)
        self.assertIn("choices: 3", Html(answer.body).text)

    def test_split(self) -> None:
        """Shares that cannot be read are refused in words, with what was typed still there; none end the split."""
        page = self.ada.page("/services/web")
        for shares in ("blue", "blue=much", "blue=1 blue=2"):
            answer = self.ada.send(page, "/do/split_service", shares=shares)
            self.assertEqual(answer.status, 400, shares)
            self.assertIn(f'value="{shares}"', answer.body.decode())
        for shares, kept in (("blue=95, green=5", {"blue": 95.0, "green": 5.0}), ("", {})):
            self.assertEqual(self.ada.send(page, "/do/split_service", shares=shares).status, 303)
            self.assertEqual(self.admin.director.specs["web"].spec.split, kept)
            words = " ".join(f"{name}={share:g}" for name, share in kept.items())
            self.assertIn(f'name="shares" maxlength="1000" value="{words}"', self.ada.page("/services/web").source)

    def test_the_enabled_group_is_kept(self) -> None:
        """The enabled group is not emptied or deleted: 409 on its page."""
        page = self.ada.page("/services/web/groups/blue")
        for operation in ("del_all_hosts", "del_group"):
            answer = self.ada.send(page, f"/do/{operation}")
            self.assertEqual(answer.status, 409)
            self.assertIn("is the enabled group", Html(answer.body).text)

    def test_refused(self) -> None:
        """A value out of range is told on the same page, which keeps what was typed; nothing has changed."""
        page = self.ada.page(HOST)
        answer = self.ada.send(page, "/do/weight", weight="-3")
        shown = Html(answer.body)
        self.assertEqual(answer.status, 400)
        self.assertIn("Not done: weight:", shown.text)
        self.assertEqual(shown.forms["/do/weight"]["weight"], "-3")
        self.assertEqual(self.app1.weight, 1.0)
        self.assertNotIn("http-equiv", shown.source)

    def test_refused_by_the_state(self) -> None:
        """409 with the sentence of the control interface, 503 while the store is away, both on the host's page."""
        self.ada.send(self.ada.page(HOST), "/do/order", state="down")
        answer = self.ada.send(self.ada.page(HOST), "/do/retry")
        self.assertEqual(answer.status, 409)
        self.assertIn("is ordered down", Html(answer.body).text)
        self.admin.director.available = False
        answer = self.ada.send(self.ada.page(HOST), "/do/weight", weight="2")
        self.assertEqual(answer.status, 503)
        self.assertIn("nothing was changed", Html(answer.body).text)

    def test_a_host_that_left(self) -> None:
        """A form for a host that is gone is answered 404, in words."""
        page = self.ada.page(HOST)
        del self.admin.director.hosts[APP1]
        answer = self.ada.send(page, "/do/weight", weight="2")
        self.assertEqual(answer.status, 404)
        self.assertIn("no host is called 'app1'", Html(answer.body).text)

    def test_malformed(self) -> None:
        """What is no form, has a field twice, too many, or bytes that are no text, is refused and changes nothing."""
        csrf = self.token(self.ada)
        good = f"csrf={csrf}&service=web&group=blue&host=app1"
        for body, kind in ((f"{good}&weight=2&weight=3", ""), ("&".join(f"f{n}=1" for n in range(200)), ""),
                           (f"{good}&weight=%FF", ""), (f"{good}&weight=2&colour=red", ""), ("{}", "application/json"),
                           (f"{good}&weight=2", "text/plain"), (f"{good}&weight=2", "multipart/form-data")):
            headers = {"Content_Type": kind} if kind else {}
            answer = self.ada.post("/do/weight", body.encode(), **headers)
            self.assertIn(answer.status, (400, 403), body)
        self.assertEqual(self.app1.weight, 1.0)


class ForgeryTests(FormCase):
    def refused(self, visitor: Visitor, status: int = 403, **more: str) -> str:
        """Send the order to take a host out of use; it must not be obeyed."""
        fields = {name: value for name, value in more.items() if name == "csrf"}
        headers = {name: value for name, value in more.items() if name != "csrf"}
        answer = visitor.post("/do/order", form_of("order") | {"state": "down"} | fields, **headers)
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(self.app1.admin, AdminState.UP)
        self.assertEqual(self.admin.audited, [])
        return Html(answer.body).text

    def test_token(self) -> None:
        """Without the session's own token nothing happens: none, an empty one, another session's, a wrong one."""
        other = Visitor(self.admin)
        other.sign_in("ada", "engine")
        good = self.token(self.ada)
        self.refused(self.ada)
        for token in ("", "x", self.token(other), good[:-1], good + "x", "é"):
            self.assertIn("reload the page", self.refused(self.ada, csrf=token))

    def test_other_sites(self) -> None:
        """A form from another site, or from another port of this one, is refused even with the token."""
        token = self.token(self.ada)
        for headers in ({"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
                        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"},
                        {"Origin": "http://127.0.0.1:7401.evil.example"}):
            self.assertIn("other sites", self.refused(self.ada, csrf=token, **headers))
        answer = self.ada.post("/do/order", form_of("order") | {"csrf": token}, Origin="http://127.0.0.1:7401")
        self.assertEqual(answer.status, 303)

    def test_strangers(self) -> None:
        """Without a session a form leads to the sign-in; a password of the API's kind does not stand in for one."""
        self.refused(Visitor(self.admin), 303)
        self.refused(Visitor(self.admin), 303, Authorization="Basic YWRhOmVuZ2luZQ==")

    def test_readonly_users(self) -> None:
        """Who may only look is refused by the control interface, however well the form is made, and it is audited."""
        bob = Visitor(self.admin)
        bob.sign_in("bob", "looking")
        answer = bob.post("/do/order", form_of("order") | {"csrf": self.token(bob)})
        self.assertEqual(answer.status, 403)
        self.assertIn("readonly", Html(answer.body).text)
        self.assertEqual(self.app1.admin, AdminState.UP)
        self.assertIn("Forbidden", self.admin.audited[0].outcome)

    def test_no_change_by_get(self) -> None:
        """No address, however it is made up, changes anything when it is only looked at."""
        token = self.token(self.ada)
        for operation in ACTS:
            query = urlencode(form_of(operation) | {"csrf": token})
            self.assertEqual(self.ada.get(f"/do/{operation}?{query}").status, 404)
        self.ada.get(f"/sign-out?csrf={token}")
        self.assertEqual(self.ada.get("/").status, 200)
        self.assertEqual(self.admin.audited, [])

    def test_unknown_operations(self) -> None:
        """Only what has a form can be sent, whatever the control interface may have besides."""
        token = self.token(self.ada)
        for path in ("/do/status", "/do/", "/do/nothing", "/do", "/", "/do/order/", "/services/web"):
            self.assertEqual(self.ada.post(path, {"csrf": token}).status, 404, path)

    def test_the_cookie_does_not_open_the_api(self) -> None:
        """A session is good for pages only: the API wants its password, so that no page can be made to call it."""
        self.assertEqual(self.ada.get("/api/v1/status").status, 401)
        self.assertEqual(self.ada.get("/metrics").status, 401)
