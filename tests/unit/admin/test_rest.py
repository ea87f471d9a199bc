"""REST in bytes: routes, statuses, headers, and hostile requests. No sockets."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, Configuration, Hook, HostRef, Node
from director.admin.configuration import redacted
from director.admin.control import OPERATIONS
from director.admin.intake import MAX_BODY_BYTES
from director.admin.pages import SAMPLES, _text
from director.admin.rest import ROUTES, Route
from director.config.files import parse
from director.metrics.counters import Metrics
from director.metrics.gauges import SnapshotCollector
from tests.unit.admin.small_director import USERS, Admin, basic
from tests.unit.admin.test_control import GOOD

APP1 = HostRef("web", "blue", "app1")
HOST = "/api/v1/services/web/groups/blue/hosts/app1"


def path_of(route: Route) -> tuple[str, dict[str, object]]:
    """The route's path with `GOOD` arguments filled in, and those that are left for query or body."""
    values: dict[str, object] = {"service": "web", "group": "blue", "host": "app1"} | GOOD[route.operation]
    path = "/api/v1/" + route.path.format(**values)
    return path, {name: value for name, value in GOOD[route.operation].items() if f"{{{name}}}" not in route.path}


class RestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.admin = Admin()
        self.ask = self.admin.ask


class MethodTests(RestCase):
    """At every route; who may what: `test_matrix`."""

    def test_reads_change_nothing(self) -> None:
        """No GET performs an operation that changes."""
        for route in ROUTES:
            if "GET" in route.methods:
                self.assertFalse(OPERATIONS[route.operation].changes)

    def test_wrong_methods(self) -> None:
        """405 names what is allowed, at every path."""
        for route in ROUTES:
            path, _ = path_of(route)
            answer = self.ask("PATCH", path)
            self.assertEqual(answer.status, 405)
            self.assertEqual(set(answer.headers["Allow"].split(", ")) >= set(route.methods), True)
            self.assertIn("error", answer.json)


class AnswerTests(RestCase):
    def test_status(self) -> None:
        """The whole picture as JSON."""
        answer = self.ask("GET", "/api/v1/status", user="bob:looking")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        self.assertEqual([service["name"] for service in answer.json["services"]], ["web", "mail"])
        self.assertEqual(answer.json["services"][0]["groups"][0]["hosts"][0]["report"]["utilisation"], 0.25)

    def test_headers_everywhere(self) -> None:
        """Answers of every kind are not cached, not sniffed and not framed."""
        for path, user in (("/", None), ("/nowhere", None), ("/metrics", "ada:engine"), ("/api/v1/status", None),
                           ("/api/v1/status", "ada:engine"), ("/api", "ada:engine")):
            headers = self.ask("GET", path, user=user).headers
            self.assertEqual(headers["Cache-Control"], "no-store")
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(headers["X-Frame-Options"], "DENY")
            self.assertNotIn("Twisted", headers["Server"])

    def test_head(self) -> None:
        """HEAD is GET without the body."""
        answer = self.ask("HEAD", "/api/v1/services")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertGreater(int(answer.headers["Content-Length"]), 100)

    def test_changes(self) -> None:
        """Orders and weights take effect and answer the host as it is then."""
        answer = self.ask("PUT", f"{HOST}/state", {"state": "drain", "why": "new kernel"})
        self.assertEqual((answer.status, answer.json["admin"]), (200, "drain"))
        self.assertEqual(answer.json["orders"][0]["who"], "ada")
        self.assertIs(self.admin.director.hosts[APP1].admin, AdminState.DRAIN)
        self.assertEqual(self.ask("POST", f"{HOST}/weight", {"weight": 0}).json["weight"], 0)
        self.assertEqual(self.ask("POST", f"{HOST}/retry").status, 200)
        self.assertEqual(self.admin.audited[0].caller.origin, "127.0.0.1")

    def test_filters(self) -> None:
        """Hosts of one service by query."""
        answer = self.ask("GET", "/api/v1/hosts?service=mail")
        self.assertEqual([host["name"] for host in answer.json], ["mx"])

    def test_explain(self) -> None:
        """Who would serve a client, by query."""
        answer = self.ask("GET", "/api/v1/services/web/explain?client=192.0.2.7")
        self.assertEqual((answer.status, answer.json["host"]), (200, "app1"))
        self.assertEqual(len(answer.json["candidates"]), 2)

    def test_unknown_names_are_404_in_json(self) -> None:
        """What does not exist is said in JSON, whatever it is."""
        for path in ("/api/v1/services/gopher", "/api/v1/services/web/groups/red",
                     "/api/v1/services/web/groups/blue/hosts/app9", "/api/v1/nothing", "/api/v2/status", "/api",
                     "/api/", "/api/v1/services/", "/api/v1/services/%FF"):
            answer = self.ask("GET", path)
            self.assertEqual((answer.status, list(answer.json)), (404, ["error"]), path)

    def test_configuration_as_toml(self) -> None:
        """What runs and what the file said, as TOML that a director takes; secrets are struck out."""
        running = self.ask("GET", "/api/v1/configuration/running?format=toml")
        self.assertEqual(running.headers["Content-Type"], "application/toml; charset=utf-8")
        self.assertEqual(parse(running.body.decode()).services["web"], self.admin.director.specs["web"].spec)
        boot = self.ask("GET", "/api/v1/configuration/boot?format=toml", user="bob:looking")
        self.assertIn('password = "redacted"', boot.body.decode())
        self.assertNotIn("argon2", boot.body.decode() + self.ask("GET", "/api/v1/configuration/boot").body.decode())

    def test_urls_of_hooks_are_struck_out(self) -> None:
        """But for where they lead: who knows one of a chat's can write there."""
        url = "https://chat.example:8443/hooks/T0/s3cret?x=1"
        shown = redacted(Configuration(node=Node(hooks={"a": Hook(url=url), "b": Hook(command=("/x",))})))
        self.assertEqual((shown.node.hooks["a"].url, shown.node.hooks["b"].command), ("https://chat.example:8443/redacted", ("/x",)))

    def test_conflict_and_store_away(self) -> None:
        """409 for what the state forbids, 503 while the store is away."""
        self.ask("PUT", f"{HOST}/state", {"state": "down"})
        self.assertEqual(self.ask("POST", f"{HOST}/retry").status, 409)
        self.admin.director.available = False
        answer = self.ask("PUT", f"{HOST}/weight", {"weight": 2})
        self.assertEqual(answer.status, 503)
        self.assertIn("nothing was changed", answer.json["error"])

    def test_a_bug_of_ours_is_500_in_json(self) -> None:
        """An unexpected exception is logged and tells the client nothing about itself."""
        self.admin.director.hosts[APP1] = None  # type: ignore[assignment]
        answer = self.ask("GET", "/api/v1/status")
        self.assertEqual(answer.status, 500)
        self.assertNotIn("NoneType", answer.json["error"])
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class ConditionTests(RestCase):
    """Changes that are made for what somebody saw."""

    def test_etag(self) -> None:
        """A specification comes with its revision, and goes back whole on the condition that it is still that one."""
        seen = self.ask("GET", "/api/v1/services/web/spec", user="bob:looking")
        self.assertEqual((seen.headers["ETag"], seen.json["revision"]), ('"5"', 5))
        put = self.ask("PUT", "/api/v1/services/web", {"spec": seen.json["spec"]}, headers={"If-Match": '"5"'})
        self.assertEqual((put.status, put.headers["ETag"], put.json), (200, '"9"', {"revision": 9}))
        self.assertEqual(self.ask("PUT", "/api/v1/services/web", seen.json).status, 409)
        self.assertEqual(self.ask("PUT", "/api/v1/services/web", {"spec": {}}, headers={"If-Match": '"5"'}).status, 412)
        self.assertEqual(len(self.admin.director.specs["web"].spec.groups), 2)

    def test_none_yet(self) -> None:
        """If-None-Match: * makes a service and replaces none."""
        new = {"If-None-Match": "*"}
        self.assertEqual(self.ask("PUT", "/api/v1/services/web", {"spec": {}}, headers=new).status, 412)
        self.assertEqual(self.ask("PUT", "/api/v1/services/ftp", {"spec": {}}, headers=new).status, 200)

    def test_odd_conditions(self) -> None:
        """A condition that we could not keep is refused, never ignored."""
        for headers in ({"If-Match": "5"}, {"If-Match": 'W/"5"'}, {"If-Match": '"5", "6"'}, {"If-Match": "*"},
                        {"If-None-Match": '"5"'}, {"If-Match": '"5"', "If-None-Match": "*"}):
            answer = self.ask("PUT", "/api/v1/services/web", {"spec": {}}, headers=headers)
            self.assertEqual(answer.status, 400, headers)
        answer = self.ask("PUT", f"{HOST}/weight", {"weight": 1}, headers={"If-Match": '"5"'})
        self.assertEqual(answer.status, 400)
        self.assertEqual(self.admin.director.specs["web"].revision, 5)

    def test_delete(self) -> None:
        """DELETE takes its condition the same way and needs no body; another site's is refused."""
        host = "/api/v1/services/web/groups/green/hosts/app3"
        self.assertEqual(self.ask("DELETE", host, headers={"Sec-Fetch-Site": "cross-site"}).status, 400)
        self.assertEqual(self.ask("DELETE", host, headers={"If-Match": '"4"'}).status, 412)
        self.assertEqual(self.ask("DELETE", host, headers={"If-Match": '"5"'}).json, {"revision": 9})


class BadRequestTests(RestCase):
    def bad(self, method: str, path: str, body: object = None, *, status: int = 400, **more: str) -> str:
        before = self.admin.director.picture()
        answer = self.ask(method, path, body, headers=more)
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(self.admin.director.picture(), before)
        return answer.body.decode()

    def test_malformed_bodies(self) -> None:
        """A body that is no JSON object is refused and says where it broke."""
        self.assertIn("byte 11", self.bad("PUT", f"{HOST}/weight", b'{"weight": oops}'))
        for body in (b"[]", b"1", b'{"weight": 1', b"\xff", b"{]", b'{"weight": NaN}', b"[" * 60000, b'{"a":' * 10000):
            self.bad("PUT", f"{HOST}/weight", body)

    def test_places(self) -> None:
        """The refusal carries the place of what is wrong."""
        for body, place in (({"weight": -1}, '"weight"'), ({"weight": 1, "colour": 2}, "colour"), ({}, "weight"),
                            ({"weight": 1, "host": "app2"}, '"host"')):
            self.assertIn(place, self.bad("PUT", f"{HOST}/weight", body))

    def test_queries(self) -> None:
        """Parameters twice, unknown, or given by the path too are refused; a change takes none from the query."""
        self.bad("GET", "/api/v1/hosts?service=web&service=mail")
        self.bad("GET", "/api/v1/status?verbose=1")
        self.bad("GET", "/api/v1/services/web?service=mail")
        self.bad("PUT", f"{HOST}/weight?weight=3", {})

    def test_other_sites(self) -> None:
        """A form that another site's page submits with the operator's password changes nothing."""
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            self.bad("POST", f"{HOST}/retry", **{"Content-Type": kind})
        self.bad("POST", f"{HOST}/retry", **{"Sec-Fetch-Site": "cross-site"})

    def test_too_large(self) -> None:
        """A body beyond the bound is answered at once, its length declared or not, and the connection closed."""
        head = (f"PUT {HOST}/weight HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {basic('ada:engine')}\r\n"
                "Content-Type: application/json\r\n")
        chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        for wire in (f"{head}Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode(),
                     f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * (MAX_BODY_BYTES // 0x8000 + 1)):
            self.assertTrue(self.admin.exchange(wire).startswith(b"HTTP/1.1 413 "))

    def test_a_client_that_leaves(self) -> None:
        """A client gone before its answer is no error."""
        self.assertEqual(self.admin.exchange(b"GET /metrics HTTP/1.0\r\n"), b"")
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(max_examples=30)
    @given(
        st.sampled_from(["GET", "PUT", "POST", "HEAD", "PATCH", "BREW"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60),
        st.binary(max_size=60),
    )
    def test_never_500(self, method: str, path: str, body: bytes) -> None:
        """Whatever is asked, the answer is a refusal or a fact, never an accident."""
        admin = Admin({})
        for prefix in ("/", "/api/v1/", "/api/v1/services/web/", f"{HOST}/"):
            wire = (f"{method} {prefix}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n").encode() + body
            status = admin.exchange(wire).split(b" ", 2)[1]
            self.assertNotEqual(status[:1], b"5", wire)


def names_of(body: bytes) -> list[bytes]:
    """The lines of an exposition without their values, which go on counting."""
    return [line if line.startswith(b"#") else line.rpartition(b" ")[0] for line in body.splitlines()]


class MetricsTests(RestCase):
    def setUp(self) -> None:
        super().setUp()
        Metrics(self.admin.registry).service("web").accepted += 1
        self.admin.registry.register(SnapshotCollector(self.admin.director.picture, dict))

    def test_left(self) -> None:
        """A scrape whose client leaves is worked on no longer."""
        made: list[int] = []

        class Many(Collector):
            def collect(self) -> Iterator[Metric]:
                for number in range(1000):
                    made.append(number)
                    yield GaugeMetricFamily(f"many_{number}", "One of many.", value=1.0)

        self.admin.registry.register(Many())
        wire = f"GET /metrics HTTP/1.0\r\nAuthorization: {basic('ada:engine')}\r\n\r\n".encode()
        for leaves in (False, True):
            made.clear()
            self.admin.connect(wire, finishing=False)
            if leaves:
                self.admin.channel.connectionLost(Failure(ConnectionDone()))
            self.admin.clock.advance(0)
            self.assertEqual(len(made) == 1000, not leaves, len(made))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_exposition(self) -> None:
        """Counters and gauges in one text that Prometheus' own parser reads, each family with HELP, once."""
        answer = self.ask("GET", "/metrics", user="bob:looking")
        self.assertTrue(answer.headers["Content-Type"].startswith("text/plain"))
        families = list(text_string_to_metric_families(answer.body.decode()))
        names = [family.name for family in families]
        self.assertEqual(len(names), len(set(names)))
        self.assertIn("txdirector_connections_accepted", names)
        self.assertIn("txdirector_host_state", names)
        for family in families:
            self.assertTrue(family.documentation, family.name)

    def test_in_pieces(self) -> None:
        """A family is formatted in pieces, and reads as in one: each sample once, in order, under one head."""
        registry = CollectorRegistry()
        gauge = Gauge("many", "A gauge.", ("n",), registry=registry)
        for n in range(3 * SAMPLES + 1):
            gauge.labels(str(n)).set(n)
        Histogram("some", "A histogram.", registry=registry).observe(1)
        Gauge("none", "Without a series.", ("n",), registry=registry)
        whole = [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
        in_pieces = b"".join(piece for family in registry.collect() for piece in _text(family, generate_latest))
        self.assertEqual(in_pieces.decode().splitlines(), whole)
        whole = [line for line in openmetrics.generate_latest(registry).decode().splitlines() if "_created" not in line]
        in_pieces = b"".join(piece for family in registry.collect() for piece in _text(family, openmetrics.generate_latest))
        self.assertEqual([*in_pieces.decode().splitlines(), "# EOF"], whole)

    def test_openmetrics(self) -> None:
        """Who asks for OpenMetrics is answered in it, to the end mark, as its own parser reads it; others in plain text."""
        answer = self.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
        self.assertTrue(answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0"))
        self.assertTrue(answer.body.endswith(b"\n# EOF\n"))
        families = [family.name for family in parse_openmetrics(answer.body.decode())]
        self.assertIn("txdirector_connections_accepted", families)
        for version in ("9.x", "2.0.0"):
            answer = self.ask("GET", "/metrics", headers={"Accept": f"application/openmetrics-text;version={version}"})
            self.assertIn("version=1.0.0", answer.headers["Content-Type"])
        for accept in ("", "*/*", "text/html", "text/plain;version=x"):
            answer = self.ask("GET", "/metrics", headers={"Accept": accept})
            self.assertTrue(answer.headers["Content-Type"].startswith("text/plain"), accept)
            self.assertNotIn(b"# EOF", answer.body)

    def test_gzip(self) -> None:
        """Who takes gzip has it, the same text; who does not, or by weight 0, has it plain."""
        for accept in ("", "application/openmetrics-text"):
            plain = self.ask("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip;q=0.0, br"})
            self.assertNotIn("Content-Encoding", plain.headers)
            for encodings in ("gzip", "br, GZIP;q=0.5", "deflate,gzip , br"):
                packed = self.ask("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": encodings})
                self.assertEqual((packed.headers["Content-Encoding"], packed.headers["Vary"]), ("gzip", "Accept, Accept-Encoding"))
                self.assertEqual(names_of(gzip.decompress(packed.body)), names_of(plain.body))
                self.assertLess(len(packed.body), len(plain.body) / 5)

    def test_needs_a_caller(self) -> None:
        """Metrics tell names and loads: they need a user, and can only be read."""
        self.assertEqual(self.ask("GET", "/metrics", user=None).status, 401)
        answer = self.ask("POST", "/metrics")
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET, HEAD"))


class OpenTests(SynchronousTestCase):
    """Without users."""

    def setUp(self) -> None:
        self.admin = Admin({})

    def test_this_machine_has_the_full_role(self) -> None:
        """On loopback everyone may do everything."""
        self.assertEqual(self.admin.ask("PUT", f"{HOST}/weight", {"weight": 2}, user=None).status, 200)
        self.assertEqual(self.admin.audited[0].caller.who, "local")

    def test_nobody_else(self) -> None:
        """Another machine, or a name that a web page rebound to loopback, gets nothing."""
        self.assertEqual(self.admin.ask("GET", "/api/v1/status", user=None, peer="192.0.2.1").status, 403)
        answer = self.admin.ask("GET", "/api/v1/status", user=None, headers={"Host": "evil.example:7401"})
        self.assertEqual(answer.status, 403)
        self.assertEqual(self.admin.ask("GET", "/", user=None, peer="192.0.2.1").status, 403)

    def test_users_close_it(self) -> None:
        """As soon as there is a user, loopback alone opens nothing."""
        self.assertEqual(Admin(USERS).ask("GET", "/api/v1/status", user=None).status, 401)
