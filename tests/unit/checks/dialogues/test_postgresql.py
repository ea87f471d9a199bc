"""PostgreSQL: who answers, and what it is."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Probe, ProbeTLS
from director.checks.dialogues import ProbeFailed
from director.checks.dialogues.postgresql import PostgreSQL
from tests.unit.checks.dialogues.kit import both_ways


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def ask(number: int, rest: bytes = b"") -> bytes:
    return message(b"R", struct.pack("!I", number) + rest)


def error(code: bytes, text: bytes) -> bytes:
    return message(b"E", b"SFATAL\0C" + code + b"\0M" + text + b"\0\0")


OK = ask(0)
READY = message(b"S", b"server_version\x0015.1\0") + message(b"K", b"12345678") + message(b"Z", b"I")
CLEAR, MD5, SCRAM = ask(3), ask(5, b"salt"), ask(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")


def row(value: bytes) -> bytes:
    return (message(b"T", b"\0\1pg_is_in_recovery\0" + bytes(18)) + message(b"D", b"\0\1" + struct.pack("!I", len(value)) + value)
            + message(b"C", b"SELECT 1\0") + message(b"Z", b"I"))


def postgresql(role: str = "any", password: str | None = None, **more: Any) -> PostgreSQL:
    return PostgreSQL(Probe(kind="postgresql", role=role, **more), password, lambda: "nonce")  # type: ignore[arg-type]


class PostgreSQLTests(SynchronousTestCase):
    def test_whoever_answers(self) -> None:
        """Without a role: lets us in, asks for a password, or does not know us; but not while it starts."""
        for said, wanted in (
            (OK + READY, "passed: ready"), (CLEAR, "passed: asks for a password"), (SCRAM, "passed: asks for a password"),
            (error(b"3D000", b"no database"), "passed: answers (3D000)"), (error(b"53300", b"too many"), "passed: answers (53300)"),
            (error(b"57P03", b"starting up"), "failed: 57P03 starting up"), (OK + READY[:-1], "waits"), (b"", "waits"),
            (b"HTTP/1.1 400 Bad Request", "failed: not PostgreSQL"), (b"R\xff\xff\xff\xff", "failed: not PostgreSQL"),
            (b"R\0\0\0\3", "failed: not PostgreSQL"), (ask(0)[:4] + b"\4", "failed: asks for an authentication of kind 4294967295"),
        ):
            password = "x" if b"kind" in wanted.encode() else None
            self.assertEqual(both_ways(lambda: postgresql(password=password), said), wanted, said)  # noqa: B023

    def test_roles(self) -> None:
        for role, said, wanted in (
            ("primary", OK + READY + row(b"f"), "passed: primary"), ("primary", OK + READY + row(b"t"), "failed: it is a replica"),
            ("replica", OK + READY + row(b"t"), "passed: replica"), ("replica", OK + READY + row(b"f"), "failed: it is a primary"),
            ("primary", OK + READY + message(b"Z", b"I"), "failed: it does not say whether it is the primary"),
            ("primary", OK + READY + error(b"42883", b"no function"), "failed: 42883 no function"),
            ("primary", CLEAR, "failed: asks for a password, and the probe has none"),
            ("primary", error(b"28000", b"who?"), "failed: 28000 who?"),
        ):
            self.assertEqual(both_ways(lambda: postgresql(role), said), wanted, said)  # noqa: B023

    def test_asks(self) -> None:
        """By the user's database unless another is said, and takes its leave."""
        dialogue = postgresql("primary", user="ann")
        begun = dialogue.begin()
        self.assertEqual(begun, struct.pack("!II", len(begun), 196608)
                         + b"user\0ann\0database\0ann\0application_name\0txdirector-probe\0\0")
        self.assertIn(b"user\0postgres\0database\0db\0", postgresql(database="db").begin())
        self.assertEqual(dialogue.heard(OK + READY), message(b"Q", b"SELECT pg_catalog.pg_is_in_recovery()\0"))
        self.assertIsNone(dialogue.heard(row(b"f")))
        self.assertEqual(dialogue.farewell, b"X\0\0\0\4")

    def test_passwords(self) -> None:
        """Hashed as asked for; in clear to a verified host only."""
        self.assertEqual(postgresql(user="u", password="p").heard(MD5), message(b"p", b"md5c827f95590aef08f2d04ac5e8d94d9c3\0"))
        self.assertRaises(ProbeFailed, postgresql(password="p").heard, CLEAR)
        self.assertRaises(ProbeFailed, postgresql(password="p", tls=ProbeTLS(verify=False)).heard, CLEAR)
        self.assertEqual(postgresql(password="p", tls=ProbeTLS()).heard(CLEAR), message(b"p", b"p\0"))
        dialogue = postgresql(password="p")
        first = b"n,,n=,r=nonce"
        self.assertEqual(dialogue.heard(SCRAM), message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first))
        answer = dialogue.heard(ask(11, b"r=nonceX,s=AAAA,i=4096"))
        assert answer is not None
        self.assertTrue(answer[5:].startswith(b"c=biws,r=nonceX,p="))
        self.assertRaises(ProbeFailed, dialogue.heard, ask(12, b"v=AAAA"))
        self.assertRaises(ProbeFailed, postgresql(password="p").heard, ask(11, b"r=nonceX,s=AAAA,i=4096"))
        self.assertRaises(ProbeFailed, postgresql(password="p").heard, ask(10, b"OTHER\0\0"))
        self.assertEqual(both_ways(lambda: postgresql(password="p"), error(b"28P01", b"wrong")), "failed: 28P01 wrong")

    def test_endless(self) -> None:
        """So many messages, and no more."""
        self.assertRaises(ProbeFailed, postgresql().heard, OK + message(b"N", b"x") * 1000)

    @given(st.lists(st.sampled_from([OK, READY, CLEAR, SCRAM, MD5, row(b"t"), b"R", b"\0\0\0\x08", b"E\0\0\0\4"])).map(b"".join)
           | st.binary(max_size=40))
    def test_garbage(self, said: bytes) -> None:
        """Parses, waits, or is no PostgreSQL; however it comes."""
        for role in ("any", "replica"):
            both_ways(lambda: postgresql(role), said)  # noqa: B023
        both_ways(lambda: postgresql("any", "password"), said)
