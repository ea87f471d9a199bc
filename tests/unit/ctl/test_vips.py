"""``directorctl vips``: what it asks of a director, and when it does not."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from director.ctl.vips import vips

VIP = {"address": "10.0.0.100", "owner": "lb2", "since": 0.0, "term": 7, "able": ["lb1", "lb2"], "pinned": None, "moves": 0}


class Recorder:
    """A client that is answered at once."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def _answer(self, *call: Any, **body: Any) -> Any:
        self.calls.append((*call, body))
        return [VIP] if call[1:] in (("vips",), ("vips", "rebalance")) else VIP

    def get(self, *path: str, **query: Any) -> Any:
        return self._answer("GET", *path, **query)

    def post(self, *path: str, **body: Any) -> Any:
        return self._answer("POST", *path, **body)

    def put(self, *path: str, **body: Any) -> Any:
        return self._answer("PUT", *path, **body)

    def delete(self, *path: str, **body: Any) -> Any:
        return self._answer("DELETE", *path, **body)


class VipsTests(SynchronousTestCase):
    def call(self, *words: str) -> tuple[int, str, list[tuple[Any, ...]]]:
        client = Recorder()
        done = CliRunner().invoke(vips, words, obj=client)
        return done.exit_code, done.output, client.calls

    def test_asked(self) -> None:
        """Each is one call, and shows the addresses as they are then."""
        for words, call in (
            (("list",), ("GET", "vips", {})),
            (("move", "10.0.0.100", "lb2", "--yes"), ("POST", "vips", "10.0.0.100", "move", {"director": "lb2"})),
            (("pin", "10.0.0.100", "lb2"), ("PUT", "vips", "10.0.0.100", "pin", {"director": "lb2"})),
            (("unpin", "10.0.0.100"), ("DELETE", "vips", "10.0.0.100", "pin", {})),
            (("rebalance", "--yes"), ("POST", "vips", "rebalance", {})),
        ):
            code, told, calls = self.call(*words)
            self.assertEqual((code, calls), (0, [call]), told)
            self.assertIn("10.0.0.100", told)
            self.assertIn("lb1 lb2", told)
            self.assertIn('"term": 7', self.call(*words, "--json")[1])

    def test_not_unasked(self) -> None:
        """What ends connections is asked for, where somebody can be."""
        for words in (("move", "10.0.0.100", "lb2"), ("rebalance",)):
            code, told, calls = self.call(*words)
            self.assertEqual((code, calls), (2, []))
            self.assertIn("--yes", told)
