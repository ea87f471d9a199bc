"""Redis: who answers, and what it is."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Probe
from director.checks.dialogues import ProbeFailed
from director.checks.dialogues.redis import MAX_ANSWER_BYTES, Redis, parse
from tests.unit.checks.dialogues.kit import both_ways

PRIMARY = b"*3\r\n$6\r\nmaster\r\n:3129659\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n9001\r\n$7\r\n3129242\r\n"
REPLICA = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:9000\r\n$9\r\nconnected\r\n:3167038\r\n"


def redis(role: str = "any", password: str | None = None, **more: Any) -> Redis:
    return Redis(Probe(kind="redis", role=role, **more), password)  # type: ignore[arg-type]


class RedisTests(SynchronousTestCase):
    def test_roles(self) -> None:
        for role, said, wanted in (
            ("any", b"+PONG\r\n", "passed: PONG"), ("any", b"-LOADING Redis is loading\r\n", "failed: LOADING Redis is loading"),
            ("any", b"+OK\r\n", "failed: PING was not answered with PONG"),
            ("primary", PRIMARY, "passed: primary"), ("primary", REPLICA, "failed: it is a replica"),
            ("replica", REPLICA, "passed: replica"), ("replica", PRIMARY, "failed: it is a primary"),
            ("replica", REPLICA.replace(b"$9\r\nconnected", b"$7\r\nconnect"), "failed: its link to its primary: connect"),
            ("replica", b"*1\r\n$5\r\nslave\r\n", "failed: its link to its primary: none"),
            ("primary", b"*2\r\n$8\r\nsentinel\r\n*0\r\n", "failed: it is a sentinel"),
            ("primary", b"*0\r\n", "failed: its answer to ROLE is none"), ("primary", b"$-1\r\n", "failed: its answer to ROLE is none"),
            ("any", b"-NOAUTH Authentication required.\r\n", "failed: NOAUTH Authentication required."),
            ("any", b"HTTP/1.1 400", "failed: not Redis"), ("any", b"", "waits"), ("primary", b"*3\r\n$6\r\nmaster\r", "waits"),
            ("replica", REPLICA[:-12], "waits"), ("primary", b"*1\r\n*1\r\n", "failed: not Redis"),
        ):
            self.assertEqual(both_ways(lambda: redis(role), said), wanted, said)  # noqa: B023

    def test_asks(self) -> None:
        """Signs in first, where there is a password, with a user's name if there is one."""
        self.assertEqual(redis().begin(), b"*1\r\n$4\r\nPING\r\n")
        dialogue = redis("primary", "pä", user="ann")
        self.assertEqual(dialogue.begin(), b"*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$3\r\np\xc3\xa4\r\n")
        self.assertEqual(dialogue.heard(b"+OK\r\n"), b"*1\r\n$4\r\nROLE\r\n")
        self.assertEqual(redis(password="x").begin(), b"*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n")
        self.assertEqual(both_ways(lambda: redis(password="x"), b"-WRONGPASS no\r\n"), "failed: WRONGPASS no")

    def test_limits(self) -> None:
        """Answers without an end, and numbers that are none."""
        self.assertRaises(ProbeFailed, redis().heard, b"+" + b"x" * MAX_ANSWER_BYTES + b"x")
        self.assertRaises(ProbeFailed, redis().heard, b"*99999999999999999999999\r\n")
        self.assertRaises(ProbeFailed, redis().heard, b"$99999999\r\n" + b"x" * MAX_ANSWER_BYTES)

    @given(st.lists(st.sampled_from([b"*2\r\n", b"$1\r\nx\r\n", b":1\r\n", b"+a\r\n", b"-b\r\n", b"$-1\r\n", b"\r", b"*", b"$5"])).map(b"".join)
           | st.binary(max_size=40))
    def test_garbage(self, said: bytes) -> None:
        """Parses, waits, or is no Redis; however it comes."""
        both_ways(redis, said)
        both_ways(lambda: redis("primary"), said)
        try:
            parsed = parse(said)
        except ProbeFailed:
            return
        if parsed is not None:
            self.assertLessEqual(parsed[1], len(said))
