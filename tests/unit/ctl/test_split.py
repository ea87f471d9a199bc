"""``directorctl split``: what it makes of its words before any director is asked."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from director.ctl.structure import split


class Recorder:
    """A client that is answered at once."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def put(self, *path: str, **arguments: Any) -> dict[str, Any]:
        self.calls.append((path, arguments))
        return {"revision": 7}


class SplitTests(SynchronousTestCase):
    def call(self, *words: str) -> tuple[int, str, list[tuple[tuple[str, ...], dict[str, Any]]]]:
        client = Recorder()
        done = CliRunner().invoke(split, words, obj=client)
        return done.exit_code, done.output, client.calls

    def test_shares(self) -> None:
        """Are sent as they are, and told as parts of the whole."""
        self.assertEqual(self.call("web", "blue=19", "green=1"), (
            0, "new clients of web: blue 95 %, green 5 %, revision 7\n",
            [(("services", "web", "split"), {"shares": {"blue": 19.0, "green": 1.0}})],
        ))

    def test_off(self) -> None:
        code, told, calls = self.call("web", "--off")
        self.assertEqual((code, told), (0, "new clients of web: all to the enabled group, revision 7\n"))
        self.assertEqual(calls, [(("services", "web", "split"), {"shares": {}})])

    def test_wrong_usage(self) -> None:
        """Nothing is asked of the director."""
        for words, message in (
            (("web",), "give shares, or --off"),
            (("web", "blue=1", "--off"), "give shares, or --off"),
            (("web", "blue"), "expected GROUP=SHARE"),
            (("web", "=1"), "expected GROUP=SHARE"),
            (("web", "blue=1", "blue=2"), "blue is given twice"),
            (("web", "green=much"), "'much' is not a valid"),
            (("web", "green=-1"), "-1.0 is not in the range"),
            (("web", "green=nan"), "not a finite number"),
        ):
            code, told, calls = self.call(*words)
            self.assertEqual((code, calls), (2, []), words)
            self.assertIn(message, told)
