"""What somebody may try at the REST interface: paths, headers, methods, roles. No sockets."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from director.admin.control import OPERATIONS
from tests.unit.admin.small_director import USERS, Admin, basic

HOST = "/api/v1/services/web/groups/blue/hosts/app1"


class AttackCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.admin = Admin()
        self.ask = self.admin.ask


class PathTests(AttackCase):
    def test_no_way_around(self) -> None:
        """Dots, doubled slashes and encoded separators lead nowhere: a name is one segment, and made of few letters."""
        for path in ("/api/v1/services/../status", "/api/v1//status", "/api/v1/services/web%2Fgroups%2Fblue/spec",
                     "/api/v1/services/%2e%2e/spec", "/api/v1/services/web%00/spec", "/api/v1/services/web%0d%0aX: y/spec",
                     "/api/v1/users/..", "/api/v1/services/" + "a" * 64 + "/spec", "/api/v1/services/w\u00eb/spec"):
            for method in ("GET", "PUT", "DELETE"):
                self.assertIn(self.ask(method, path, {}).status, (400, 404, 405), (method, path))
        self.assertEqual(self.admin.director.specs, Admin().director.specs)

    def test_answers_are_no_pages(self) -> None:
        """What a path or a value says comes back as JSON, and no browser takes it for anything else."""
        for answer in (self.ask("GET", "/api/v1/services/%3Cscript%3Ealert(1)%3C/script%3E"),
                       self.ask("GET", "/api/v1/%3Cscript%3E"),
                       self.ask("PUT", f"{HOST}/state", {"state": "<script>alert(1)</script>"})):
            self.assertEqual(answer.headers["Content-Type"], "application/json")
            self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
            self.assertIn("default-src 'none'", answer.headers["Content-Security-Policy"])


class HeaderTests(AttackCase):
    def test_no_header_grows_out_of_a_name(self) -> None:
        """A line break in what was asked does not become one among the headers of the answer."""
        wire = self.admin.exchange(
            b"GET /api/v1/services/web%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: "
            + basic("ada:engine").encode() + b"\r\n\r\n"
        )
        self.assertNotIn(b"set-cookie", wire.partition(b"\r\n\r\n")[0].lower())

    def test_methods_are_not_overridden(self) -> None:
        """A GET stays one, whatever other servers' headers and parameters say."""
        for headers in ({"X-HTTP-Method-Override": "DELETE"}, {"X-Method-Override": "DELETE"}):
            self.assertEqual(self.ask("GET", HOST, headers=headers).status, 200)
        self.assertEqual(self.ask("GET", f"{HOST}?_method=DELETE").status, 400)
        self.assertIn("app1", self.admin.director.specs["web"].spec.groups["blue"].hosts)

    def test_nobody_is_taken_at_their_word(self) -> None:
        """Headers that proxies set for other servers make nobody an operator, nor somebody else's address theirs."""
        for headers in ({"X-Forwarded-User": "ada"}, {"Remote-User": "ada"}, {"X-Forwarded-For": "127.0.0.1"},
                        {"Authorization": "Bearer ada"}, {"Authorization": "Basic " + "A" * 5000},
                        {"Authorization": basic("ada:engine").replace("Basic", "Negotiate")},
                        {"Cookie": "txdirector_7401=ada"}):
            self.assertEqual(self.ask("DELETE", HOST, user=None, headers=headers).status, 401, headers)
        self.ask("PUT", f"{HOST}/weight", {"weight": 2}, headers={"X-Forwarded-For": "127.0.0.7"}, peer="192.0.2.1")
        self.assertEqual(self.admin.audited[-1].caller.origin, "192.0.2.1")


class RoleTests(AttackCase):
    def test_nobody_promotes_themselves(self) -> None:
        """Who may look can't make themselves, or a friend, one who may change."""
        for user in ("bob", "mallory"):
            answer = self.ask("PUT", f"/api/v1/users/{user}", {"password": "difference", "role": "full"}, user="bob:looking")
            self.assertEqual(answer.status, 403)
        self.assertEqual(self.admin.director.accounts, USERS)

    def test_the_role_is_not_a_parameter(self) -> None:
        """No operation takes the caller's name or role from the request."""
        for field in ("role", "who", "caller", "origin"):
            answer = self.ask("PUT", f"{HOST}/weight", {"weight": 2, field: "full"}, user="ada:engine")
            self.assertEqual(answer.status, 400, field)
            answer = self.ask("PUT", f"{HOST}/weight", {"weight": 2, field: "full"}, user="bob:looking")
            self.assertEqual(answer.status, 403, field)

    def test_a_removed_user_is_out_at_once(self) -> None:
        """The password that was just verified is worth nothing once its user is gone, or has another role."""
        self.assertEqual(self.ask("GET", "/api/v1/status", user="bob:looking").status, 200)
        self.ask("DELETE", "/api/v1/users/bob")
        self.assertEqual(self.ask("GET", "/api/v1/status", user="bob:looking").status, 401)


class SecretTests(AttackCase):
    def test_passwords_go_nowhere(self) -> None:
        """A password, right or wrong, given rightly or wrongly, is in no answer, no audit and no listing; nor is a
        hash."""
        secret = "correct horse battery"
        bodies = ({"password": secret, "role": "full"}, {"passwrd": secret, "role": "full"}, {"password": [secret]},
                  {"password": {secret: secret}}, {"password": secret, "role": "king"})
        seen = ""
        for body in bodies:
            seen += self.ask("PUT", "/api/v1/users/cyd", body).body.decode()
        for path in ("users", "configuration/boot", "configuration/boot?format=toml", "audit", "status"):
            seen += self.ask("GET", f"/api/v1/{path}").body.decode()
        seen += repr(self.admin.audited)
        self.assertIn("cyd", seen)
        for word in (secret, "argon2"):
            self.assertNotIn(word, seen)


class DocumentTests(AttackCase):
    def test_served_to_who_may_look(self) -> None:
        """The OpenAPI document is for users, is JSON of version 3.1, and can only be read."""
        answer = self.ask("GET", "/api/v1/openapi.json", user="bob:looking")
        self.assertEqual((answer.status, answer.json["openapi"]), (200, "3.1.0"))
        self.assertEqual(self.ask("GET", "/api/v1/openapi.json", user=None).status, 401)
        self.assertEqual(self.ask("POST", "/api/v1/openapi.json", {}).status, 405)
        text = json.dumps(answer.json)
        for name in OPERATIONS:
            self.assertIn(f"Operation `{name}`", text)
