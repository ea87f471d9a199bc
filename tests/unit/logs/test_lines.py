"""`director.logs.lines`: lines for people, objects for machines, one event each."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Reason
from director.logs.lines import json_line, text_line

AT = 1769860800.1234  # 2026-01-31T12:00:00.1234Z


def event(text: str = "{a} listens", level: LogLevel = LogLevel.info, **fields: Any) -> dict[str, Any]:
    return {
        "log_time": AT,
        "log_level": level,
        "log_namespace": "director.engine.node",
        "log_format": text,
        "a": "web",
    } | fields


class FormatTests(SynchronousTestCase):
    def test_text(self) -> None:
        """Time in UTC, level, namespace, message."""
        self.assertEqual(text_line(event()), "2026-01-31T12:00:00.123Z info  [director.engine.node] web listens")

    def test_no_forged_lines(self) -> None:
        """Line ends, escapes and other controls in a message are shown, not obeyed."""
        for control in ("\n", "\r", "\x1b", "\x85", "\u2028", "\0"):
            line = text_line(event(a=f"x{control}y"))
            self.assertNotIn(control, line)
            self.assertEqual(len(line.splitlines()), 1)
        self.assertIn(r"x\x0ay", text_line(event(a="x\ny")))

    def test_traceback(self) -> None:
        """A failure's traceback follows indented in text and is a field in JSON."""
        try:
            raise ValueError("bad\nthing")
        except ValueError:
            failure = Failure()
        first, *rest = text_line(event(log_failure=failure)).splitlines()
        self.assertTrue(first.endswith("web listens"))
        self.assertTrue(rest and all(line.startswith("    ") for line in rest))
        self.assertIn("ValueError: bad\nthing", json.loads(json_line(event(log_failure=failure)))["traceback"])

    def test_json(self) -> None:
        """An object on one line, with the event's own fields, odd ones as text."""
        line = json_line(event(reason=Reason.NO_HOST, count=3, what=object, word="a\nb"))
        self.assertEqual(len(line.splitlines()), 1)
        found = json.loads(line)
        self.assertEqual(found["time"], "2026-01-31T12:00:00.123Z")
        self.assertEqual(
            (found["level"], found["namespace"], found["message"]), ("info", "director.engine.node", "web listens")
        )
        self.assertEqual((found["reason"], found["count"], found["what"]), ("no_host", 3, "<class 'object'>"))

    def test_odd_text(self) -> None:
        """What is no Unicode text, or no key of an object, is still a line."""
        for odd in ("\udcff", {("a",): "\ud800"}, float("nan")):
            self.assertEqual(json.loads(json_line(event(odd=odd)))["message"], "web listens")

    def test_unformattable(self) -> None:
        """An event that cannot be formatted is a line that says so, not an exception."""
        self.assertEqual(len(text_line(event("{missing}")).splitlines()), 1)
        self.assertEqual(len(json_line(event("{missing}")).splitlines()), 1)
