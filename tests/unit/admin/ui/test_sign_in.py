"""Signing in and out: cookies, throttling, redirects, and admins without users."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from director.admin.auth import FREE_FAILURES
from director.admin.ui.sessions import IDLE_S
from tests.unit.admin.small_director import HASHER, USERS, Admin
from tests.unit.admin.visit import Html, Visitor


class SignInTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.users = dict(USERS)
        self.admin = Admin(self.users)
        self.visitor = Visitor(self.admin)

    def test_the_way_in(self) -> None:
        """A stranger is led to the sign-in and from there to the page they wanted."""
        answer = self.visitor.get("/services/web?live=off")
        self.assertEqual((answer.status, answer.headers["Location"]), (303, "/sign-in?next=%2Fservices%2Fweb%3Flive%3Doff"))
        page = self.visitor.page("/services/web?live=off")
        self.assertNotIn("blue", page.text)
        answer = self.visitor.send(page, "/sign-in", name="ada", password="engine")
        self.assertEqual((answer.status, answer.headers["Location"]), (303, "/services/web?live=off"))
        self.assertIn("blue", self.visitor.page("/services/web").text)

    def test_wrong_password(self) -> None:
        """It does not tell whether the name exists, keeps the name, and gives no cookie."""
        told = set()
        for name in ("ada", "eve"):
            answer = self.visitor.sign_in(name, "wrong")
            page = Html(answer.body)
            told.add((answer.status, page.text))
            self.assertEqual(page.forms["/sign-in"]["name"], name)
            self.assertNotIn("password", page.forms["/sign-in"].get("password", ""))
        self.assertEqual(len(told), 1)
        self.assertEqual((self.visitor.cookies, told.pop()[0]), ({}, 403))

    def test_throttled(self) -> None:
        """Guessing is slowed down like that of the API, by the same count, and says how long."""
        for _ in range(FREE_FAILURES):
            self.visitor.sign_in("ada", "wrong")
        answer = self.visitor.sign_in()
        self.assertEqual(answer.status, 429)
        self.assertGreater(int(answer.headers["Retry-After"]), 1)
        self.assertIn("wait", Html(answer.body).text)
        self.assertEqual(self.admin.ask("GET", "/api/v1/status", user="ada:engine").status, 429)

    def test_cookie(self) -> None:
        """Out of reach for scripts, other sites and plain http where there is https; named by port, so that two
        directors of one machine do not sign each other out."""
        cookie = self.visitor.sign_in().headers["Set-Cookie"].lower()
        self.assertTrue(cookie.startswith("txdirector_7401="), cookie)
        for flag in ("httponly", "samesite=strict", "path=/"):
            self.assertIn(flag, cookie)
        self.assertNotIn("secure", cookie)
        self.assertNotIn("domain", cookie)
        cookie = Visitor(self.admin, secure=True).sign_in().headers["Set-Cookie"]
        self.assertTrue(cookie.startswith("__Host-txdirector_7401="), cookie)
        self.assertIn("secure", cookie.lower())

    def test_fixation(self) -> None:
        """A session id that was planted before the sign-in is not the one afterwards, nor is an earlier session's."""
        self.visitor.cookies["txdirector_7401"] = "planted"
        self.visitor.sign_in()
        first = self.visitor.cookies["txdirector_7401"]
        self.assertNotEqual(first, "planted")
        self.visitor.sign_in()
        earlier = Visitor(self.admin)
        earlier.cookies["txdirector_7401"] = first
        self.assertEqual(earlier.get("/").status, 303)
        self.assertEqual(self.visitor.get("/").status, 200)

    def test_sign_out(self) -> None:
        """The session is over, for a copy of the cookie too."""
        self.visitor.sign_in()
        copy = Visitor(self.admin)
        copy.cookies = dict(self.visitor.cookies)
        answer = self.visitor.send(self.visitor.page("/"), "/sign-out")
        self.assertEqual((answer.status, self.visitor.cookies), (303, {}))
        self.assertEqual(copy.get("/").status, 303)

    def test_idle(self) -> None:
        """A session that nobody used for an hour is over."""
        self.visitor.sign_in()
        self.admin.clock.advance(IDLE_S - 1)
        self.assertEqual(self.visitor.get("/").status, 200)
        self.admin.clock.advance(IDLE_S)
        self.assertEqual(self.visitor.get("/").status, 303)

    def test_removed_users(self) -> None:
        """A user who is removed is out at the next request."""
        self.visitor.sign_in()
        del self.users["ada"]
        self.assertEqual(self.visitor.get("/").status, 303)
        self.users["ada"] = USERS["ada"]
        self.assertEqual(self.visitor.get("/").status, 303)

    def test_another_password(self) -> None:
        """A changed password ends the sessions that the old one began, and no other user's."""
        self.visitor.sign_in()
        other = Visitor(self.admin)
        other.sign_in("bob", "looking")
        self.users["ada"] = msgspec.structs.replace(USERS["ada"], password=HASHER.hash("engines"))
        self.assertEqual(self.visitor.get("/").status, 303)
        self.assertEqual(self.visitor.sign_in("ada", "engines").status, 303)
        self.assertEqual((self.visitor.get("/").status, other.get("/").status), (200, 200))

    def test_only_our_own_pages_follow(self) -> None:
        """The page after the sign-in is always one of ours."""
        for target in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "x",
                       "/\r\nSet-Cookie: a=b", "\\\\evil.example", "/%0d%0aX: y\n"):
            page = self.visitor.page("/sign-in")
            answer = self.visitor.send(page, "/sign-in", name="ada", password="engine", next=target)
            self.assertEqual(answer.headers["Location"], "/", target)
            self.assertNotIn("a=b", answer.headers.get_all("Set-Cookie") or ())

    def test_other_sites(self) -> None:
        """Another site can't sign a browser in, as whomever."""
        fields = {"name": "ada", "password": "engine", "next": "/"}
        answer = self.visitor.post("/sign-in", fields, Sec_Fetch_Site="cross-site")
        self.assertEqual((answer.status, self.visitor.cookies), (403, {}))


class OpenTests(SynchronousTestCase):
    """Without users."""

    def setUp(self) -> None:
        self.admin = Admin({})
        self.visitor = Visitor(self.admin)

    def test_this_machine(self) -> None:
        """On this machine there is nothing to sign in to; forms still need their token."""
        page = self.visitor.page("/services/web/groups/blue/hosts/app1")
        self.assertNotIn("/sign-out", page.forms)
        self.assertEqual(self.visitor.send(page, "/do/weight", weight="2").status, 303)
        self.assertEqual(self.visitor.send(page, "/do/weight", weight="3", csrf="x").status, 403)
        self.assertEqual(self.visitor.get("/sign-in").headers["Location"], "/")
        self.assertEqual(self.visitor.cookies, {})

    def test_nobody_else(self) -> None:
        """Another machine is refused, and so is a name that a web page rebound to loopback."""
        self.assertEqual(Visitor(self.admin, peer="192.0.2.1").get("/").status, 403)
        answer = self.visitor.get("/", Host="evil.example:7401")
        self.assertEqual(answer.status, 403)
        self.assertNotIn(b"app1", answer.body)
