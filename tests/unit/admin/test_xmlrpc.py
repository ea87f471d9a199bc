"""XML-RPC in bytes: every operation, faults, and hostile XML. No sockets."""

from __future__ import annotations

import xmlrpc.client
from typing import Any
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, HostRef
from director.admin.control import OPERATIONS
from director.admin.intake import MAX_BODY_BYTES
from director.admin.xmlrpc import MAX_DEPTH, PIECES_A_TURN, UNREADABLE, Unreadable, read_call, write_answer
from tests.unit.admin.small_director import Admin, Answer
from tests.unit.admin.test_control import GOOD

APP1 = HostRef("web", "blue", "app1")

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


class XmlRpcCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.admin = Admin()

    def post(self, body: bytes, *, user: str | None = "ada:engine", **headers: str) -> Answer:
        sent = {"Content-Type": "text/xml"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.admin.ask("POST", "/RPC2", body, user=user, headers=sent)

    def call(self, method: str, *parameters: Any, user: str = "ada:engine") -> Any:
        """The result; raises `xmlrpc.client.Fault`."""
        body = xmlrpc.client.dumps(parameters, method, allow_none=True).encode()
        answer = self.post(body, user=user)
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "text/xml; charset=utf-8"))
        return loaded(answer.body)

    def fault(self, method: str, *parameters: Any, user: str = "ada:engine") -> xmlrpc.client.Fault:
        """The fault; it changed nothing."""
        before = self.admin.director.picture()
        fault = self.assertRaises(xmlrpc.client.Fault, self.call, method, *parameters, user=user)
        self.assertEqual(self.admin.director.picture(), before)
        return fault


def loaded(body: bytes) -> Any:
    (result,), _ = xmlrpc.client.loads(body, use_builtin_types=True)
    return result


class CallTests(XmlRpcCase):
    def test_every_operation_by_name_and_by_place(self) -> None:
        """Each operation takes one struct, or its parameters in the declared order, with the same answer."""
        for name, arguments in GOOD.items():
            self.admin = Admin()
            by_name = self.call(name, arguments) if arguments else self.call(name)
            self.admin = Admin()  # some things can be done only once
            self.assertEqual(self.call(name, *arguments.values()), by_name, name)
            self.assertIsInstance(by_name, dict | list)

    def test_roles(self) -> None:
        """Who may only look gets the fault 403 for each change, and its audit entry."""
        for name, arguments in GOOD.items():
            if OPERATIONS[name].changes:
                self.assertEqual(self.fault(name, arguments, user="bob:looking").faultCode, 403)
                self.assertEqual(self.admin.audited[-1].operation, name)
            else:
                self.call(name, arguments, user="bob:looking")

    def test_text(self) -> None:
        """An answer that is text is a string."""
        self.assertIn("[services.web", self.call("config_running", "toml"))

    def test_strangers(self) -> None:
        """Without a user, or with a wrong password, nothing is read: HTTP's own 401."""
        for user in (None, "ada:wrong", "eve:engine"):
            answer = self.post(b"garbage", user=user)
            self.assertEqual(answer.status, 401)
            self.assertIn("Basic", answer.headers["WWW-Authenticate"])

    def test_an_order_and_its_answer(self) -> None:
        """A change takes effect and answers the host as it is then; absent values are nil."""
        host = self.call("order", "web", "blue", "app1", "drain", "new kernel")
        self.assertIs(self.admin.director.hosts[APP1].admin, AdminState.DRAIN)
        self.assertEqual((host["admin"], host["orders"][0]["why"], host["check"]["at"]), ("drain", "new kernel", None))

    def test_introspection(self) -> None:
        """All methods are listed, each with its parameters, its defaults and its role."""
        names = self.call("system.listMethods", user="bob:looking")
        self.assertEqual(set(names), {*OPERATIONS, "system.listMethods", "system.methodHelp"})
        for name in OPERATIONS:
            self.assertIn(OPERATIONS[name].summary, self.call("system.methodHelp", name))
        self.assertTrue(self.call("system.methodHelp", "order").startswith(
            "order(service, group, host, state, why='', deadline_s=nil"
        ))

    def test_faults(self) -> None:
        """The codes of refusals are REST's statuses."""
        self.assertEqual(self.fault("launch").faultCode, 404)
        self.assertEqual(self.fault("system.methodHelp", "launch").faultCode, 404)
        self.assertEqual(self.fault("service", "gopher").faultCode, 404)
        self.assertEqual(self.fault("totals", 1).faultCode, 400)
        self.assertEqual(self.fault("system.listMethods", 1).faultCode, 400)
        for weight in (-1, float("nan"), float("inf"), "2", True, None, {"x": 1}, b"2"):
            fault = self.fault("weight", {"service": "web", "group": "blue", "host": "app1", "weight": weight})
            self.assertEqual(fault.faultCode, 400, weight)
            self.assertIn("weight", fault.faultString)
        self.call("order", "web", "blue", "app1", "down")
        self.assertEqual(self.fault("retry", "web", "blue", "app1").faultCode, 409)
        self.admin.director.available = False
        fault = self.fault("weight", "web", "blue", "app1", 2)
        self.assertEqual((fault.faultCode, "nothing was changed" in fault.faultString), (503, True))

    def test_a_bug_of_ours(self) -> None:
        """An unexpected exception is logged and is a fault that tells nothing of it."""
        self.admin.director.hosts[APP1] = None  # type: ignore[assignment]
        fault = self.assertRaises(xmlrpc.client.Fault, self.call, "status")
        self.assertEqual((fault.faultCode, "NoneType" in fault.faultString), (500, False))
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_large_answers_let_others_in(self) -> None:
        """A picture of many hosts is written in more than one turn of the reactor, and is whole."""
        one = self.admin.director.hosts[APP1]
        for number in range(200):
            self.admin.director.hosts[HostRef("web", "blue", f"h{number}")] = one
        turns = []
        call_later = self.admin.clock.callLater
        self.admin.clock.callLater = lambda delay, *rest, **more: (  # type: ignore[method-assign]
            turns.append(delay) or call_later(delay, *rest, **more)  # type: ignore[func-returns-value]
        )
        self.assertEqual(len(self.call("hosts")), 203)
        self.assertGreaterEqual(turns.count(0), 200 // PIECES_A_TURN)


class HostileTests(XmlRpcCase):
    def unreadable(self, body: bytes) -> str:
        fault = self.assertRaises(xmlrpc.client.Fault, loaded, self.post(body).body)
        self.assertEqual(fault.faultCode, UNREADABLE)
        return str(fault.faultString)

    def test_entities(self) -> None:
        """No document type, inner or outer, is even looked at: no bombs, no files, no requests."""
        call = "<methodCall><methodName>%s</methodName></methodCall>"
        laughs = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
        for declared in (f"<!DOCTYPE x [<!ENTITY a0 'ha'>{laughs}]>", "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>",
                         "<!DOCTYPE x [<!ENTITY a9 SYSTEM 'file:///etc/hostname'>]>", "<!DOCTYPE methodCall>",
                         "<!DOCTYPE x [<!ENTITY % p SYSTEM 'http://127.0.0.1:1/'> %p;]>"):
            self.assertIn("document type", self.unreadable((declared + call % "&a9;").encode()))
        self.assertIn("not well-formed", self.unreadable((call % "&a9;").encode()))

    def test_malformed(self) -> None:
        """What is no call gets one code and a reason."""
        for body in (b"", b"\x00", b"<", b"<methodCall/>", b"<methodResponse/>", b"<methodCall><methodName/></methodCall>",
                     b"<methodCall><params><param><value><int>x</int></value></param></params></methodCall>",
                     b"<methodCall><methodName>status</methodName><fault><value/></fault></methodCall>",
                     b"<methodCall><methodName>status</methodName><params><param><value><struct><member><value>1</value>"
                     b"</member></struct></value></param></params></methodCall>",
                     b"<methodCall><methodName>status</methodName><params><param><value><int>" + b"9" * 9999
                     + b"</int></value></param></params></methodCall>"):
            self.unreadable(body)

    def test_depth(self) -> None:
        """Nesting is bounded."""
        self.assertIn("deep", self.unreadable(b"<methodCall>" + b"<value><array><data>" * MAX_DEPTH))

    def test_infinite(self) -> None:
        """A time without an end is refused in words, and stored nowhere."""
        for text in ("inf", "nan", "1e300"):
            body = xmlrpc.client.dumps((GOOD["order"] | {"state": "drain", "deadline_s": float(text)},), "order").encode()
            answer = self.post(body)
            self.assertIn(b"<int>400</int>", answer.body)
            self.assertIn(b"deadline_s: expected a number", answer.body)

    def test_size(self) -> None:
        """A body beyond the admin's bound is refused by HTTP, as everywhere."""
        self.assertEqual(self.post(b" " * (MAX_BODY_BYTES + 1)).status, 413)

    def test_other_sites_and_methods(self) -> None:
        """Only a POST of XML is a call: what another site's page can send is not."""
        body = xmlrpc.client.dumps(tuple(GOOD["retry"].values()), "retry").encode()
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            self.assertEqual(self.post(body, Content_Type=kind).status, 400)
        self.assertEqual(self.post(body, Sec_Fetch_Site="cross-site").status, 400)
        self.assertEqual(self.admin.audited, [])
        answer = self.admin.ask("GET", "/RPC2")
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "POST"))

    @settings(max_examples=150)
    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """Bytes, bent calls and wrong values give faults with a known code: no 500, nothing logged."""
        tags = ["methodCall", "methodName", "params", "param", "value", "struct", "member", "name", "array", "data",
                "int", "i8", "boolean", "double", "nil", "base64", "dateTime.iso8601", "string", "fault", "bigdecimal"]
        bent = st.lists(st.sampled_from([f"<{tag}>" for tag in tags] + [f"</{tag}>" for tag in tags]) | st.text(max_size=4))
        elements = st.recursive(
            st.text(st.characters(codec="utf-8", exclude_characters="<&", exclude_categories=("Cc",)), max_size=9),
            lambda inner: st.tuples(st.sampled_from(tags), st.lists(inner, max_size=4).map("".join)).map(
                lambda pair: f"<{pair[0]}>{pair[1]}</{pair[0]}>"
            ),
        )
        body = data.draw(
            st.binary()
            | bent.map(lambda parts: ("<methodCall>" + "".join(parts)).encode("utf-8", "replace"))
            | elements.map(lambda inner: (
                f"<methodCall><methodName>order</methodName><params>{inner}</params></methodCall>").encode())
            | elements.map(lambda inner: (
                f"<methodCall><methodName>weight</methodName><params><param><value><struct><member><name>weight</name>"
                f"<value>{inner}</value></member></struct></value></param></params></methodCall>").encode())
        )
        answer = Admin({}).ask("POST", "/RPC2", body, user=None, headers={"Content-Type": "text/xml"})
        self.assertEqual(answer.status, 200)
        fault = self.assertRaises(xmlrpc.client.Fault, loaded, answer.body)
        self.assertIn(fault.faultCode, (UNREADABLE, 400, 404))
        self.assertEqual(self.flushLoggedErrors(), [])


class WritingTests(SynchronousTestCase):
    @given(values)
    def test_every_value_is_xml_that_reads_back(self, value: Any) -> None:
        """Whatever an answer holds, the XML is well-formed, and all that XML can say comes back equal."""
        text = "".join(write_answer(value))
        ElementTree.fromstring(text.encode())
        self.assertEqual(loaded(text.encode()), _sayable(value))

    def test_calls_of_the_standard_client(self) -> None:
        """What `xmlrpc.client` writes is read as it was meant."""
        body = xmlrpc.client.dumps(("a", 1, 2.5, True, None, [1, {"x": "<&>"}]), "order", allow_none=True)
        self.assertEqual(read_call(body.encode()), ("order", ("a", 1, 2.5, True, None, [1, {"x": "<&>"}])))
        self.assertRaises(Unreadable, read_call, body.encode().rstrip()[:-1])


def _sayable(value: Any) -> Any:
    """What is left of a value in XML: no infinities, no forbidden characters."""
    if isinstance(value, dict):
        return {_sayable(name): _sayable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_sayable(each) for each in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, str):
        return "".join(each if _is_char(ord(each)) else "\ufffd" for each in value)
    return value


def _is_char(code: int) -> bool:
    """The production Char of XML 1.0."""
    return code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code > 0xFFFF
