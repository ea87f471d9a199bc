"""Every HTTP door, asked whatever comes to mind: no answer is ever a 500, and the log has no traceback."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from director.admin.rest import ROUTES
from director.admin.ui.acts import ACTS
from director.admin.ui.pages import PAGES
from tests.unit.admin.small_director import Admin, basic

#: Requests of the one test; each costs some milliseconds.
EXAMPLES = 400

LONG = "9" * 5000
#: What breaks parsers of addresses, numbers, times and names.
ODD = ["", "0", "-1", "inf", "-inf", "nan", "1e999", LONG, "//[", "//%5B", "http://[", "\u0661", "\ud7ff", "%", "%ff", "\x7f",
       "[" * 5000, "a = " + LONG, "a = " + "[" * 2000 + "]" * 2000, "a." * 2000 + "a = 1", "null", "{}", "a/b", "..", "\n"]
NAMES = ["service", "group", "host", "client", "limit", "format", "page", "next", "scope", "state", "why", "deadline_s",
         "weight", "spec", "parameters", "scheduler", "csrf", "name", "password", "role", "listen", "address", "live", "done"]
PLACES = {"service": "web", "group": "blue", "host": "app1", "client": "192.0.2.7:4711", "user": "bob"}
PATHS = sorted({"/", "/sign-in", "/sign-out", "/events", "/static/x", "/metrics", "/running.txt", "/RPC2", "/api/v1/openapi.json",
                *(f"/api/v1/{route.path}" for route in ROUTES), *(f"/{page.path}" for page in PAGES),
                *(f"/do/{act}" for act in ACTS)})
HEADERS = ["Authorization", "Cookie", "Origin", "Host", "Content-Type", "Accept", "Accept-Encoding", "If-Match", "If-None-Match",
           "Sec-Fetch-Site", "Expect", "Content-Length", "Transfer-Encoding", "Connection"]
TYPES = ["application/json", "text/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]

odd = st.sampled_from(ODD) | st.text(max_size=20)
raw = odd.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=20)
quoted = raw.map(lambda value: "".join(f"%{byte:02x}" for byte in value[:3000]))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request: mostly well-formed, with something odd in its path, query, headers or body."""
    path = draw(st.sampled_from(PATHS))
    places = {name: draw(quoted) if draw(st.integers(0, 3)) == 0 else value for name, value in PLACES.items()}
    path = re.sub(r"{(\w+)}", lambda found: places.get(found[1], "x"), path)
    pairs = draw(st.dictionaries(st.sampled_from(NAMES), quoted, max_size=4))
    query = "&".join(f"{name}={value}" for name, value in pairs.items())
    headers: dict[str, bytes] = {"Host": b"127.0.0.1:7401", "Authorization": basic("ada:engine").encode(),
                                 "Content-Type": draw(st.sampled_from(TYPES)).encode()}
    body = draw(st.sampled_from([query.encode(), b"{}", b"<methodCall/>"]) | raw | _json() | _xml())[:60_000]
    headers["Content-Length"] = str(len(body)).encode()
    headers |= _clean(draw(st.dictionaries(st.sampled_from(HEADERS), raw, max_size=2)))
    method = draw(st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"]))
    head = f"{method} {path}?{query}"[:12_000].encode("latin-1", "replace") + b" HTTP/1.1\r\n"
    return head + b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in headers.items()) + b"\r\n" + body


def _json() -> st.SearchStrategy[bytes]:
    """A JSON object with something odd in it, or something like one."""
    values = st.sampled_from([b"1e999", LONG.encode(), b'"\xff"', b'"\\ud800"', b"[" * 3000, b"null", b"NaN", b"-0", b'"inf"'])
    return st.tuples(st.sampled_from(NAMES), values).map(lambda pair: b'{"%s": %s}' % (pair[0].encode(), pair[1]))


def _xml() -> st.SearchStrategy[bytes]:
    """A call by XML-RPC with odd values."""
    values = st.sampled_from([b"<double>inf</double>", b"<double>nan</double>", b"<int>%s</int>" % LONG.encode(), b"<nil/>",
                              b"<base64>?</base64>", b"<dateTime.iso8601>x</dateTime.iso8601>", b"<string>\xff</string>"])
    names = st.sampled_from([b"order", b"weight", b"hosts", b"put_service", b"change_scheduler", b"system.methodHelp", b"audit"])
    return st.tuples(names, st.lists(values, max_size=6)).map(lambda pair: b"<methodCall><methodName>%s</methodName><params>%s</params></methodCall>" % (
        pair[0], b"".join(b"<param><value>%s</value></param>" % value for value in pair[1])))


def _clean(headers: Mapping[str, bytes]) -> dict[str, bytes]:
    """Without what would end a header: the head stays one."""
    return {name: re.sub(rb"[\r\n\x00]", b"", value)[:6000] for name, value in headers.items()}


class DoorsTests(SynchronousTestCase):
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests(), st.booleans())
    def test_never_500(self, wire: bytes, known: bool) -> None:
        """Whatever path, query, headers and body: a fact, a refusal, or a closed connection; never an accident."""
        admin = self.known if known else self.open
        answer = admin.exchange(wire)
        status = answer.split(b" ", 2)[1] if answer else b"none"
        if not (status == b"503" and wire.split(b" ", 2)[1].startswith(b"/events?")):  # a browser has three live pages
            self.assertNotEqual(status[:1], b"5", wire)
        self.assertEqual((self.failures, self.flushLoggedErrors()), ([], []), wire)

    def setUp(self) -> None:
        self.known, self.open = Admin(), Admin({})
        self.failures: list[object] = []

        def observe(event: Mapping[str, object]) -> None:
            if event.get("log_failure") is not None:
                self.failures.append(event["log_failure"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def test_known_accidents(self) -> None:
        """What was once answered with a 500."""
        host = b"/api/v1/services/web/groups/blue/hosts/app1/state"
        for path, header, body in (
            (b"/sign-in?next=//%5B", b"", b""), (b"/services/web/groups/blue?page=" + LONG.encode(), b"", b""),
            (b"/", b"Authorization: \xff\r\n", b""), (host, b"Authorization: \xff\r\n", b"{}"),
            (b"/sign-out", b"Origin: http://[\r\nContent-Type: application/x-www-form-urlencoded\r\n", b"a=b"),
            (host, b"Content-Type: application/json\r\n", b'{"why": "\xff"}'),
            (host, b"Content-Type: multipart/form-data; boundary=x\r\n", b"--x\r\n"),
        ):
            for method in (b"GET", b"POST", b"PUT"):
                wire = b"%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s" % (
                    method, path, header, len(body), body)
                for admin in (self.known, self.open):
                    self.assertLess(int(admin.exchange(wire).split(b" ", 2)[1]), 500, wire)
