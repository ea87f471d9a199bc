"""Whether new clients should come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from director.operations.readiness import why_not_ready


class ReadinessTests(SynchronousTestCase):
    def why(self, *, stopping: bool = False, balances: bool = True, **node: Any) -> str:
        errors = node.pop("errors", {})
        made: Any = SimpleNamespace(**{"running": True, "frontends": {"web": None}, **node},
                                    listeners=SimpleNamespace(errors=errors))
        return why_not_ready(made, stopping=stopping, balances=balances)

    def test_reasons(self) -> None:
        """Each, and none."""
        self.assertEqual(self.why(), "")
        self.assertEqual(self.why(stopping=True), "it stops")
        self.assertEqual(self.why(running=False), "it starts")
        self.assertEqual(self.why(balances=False), "it does not balance")
        self.assertEqual(self.why(frontends={}), "it has no service")
        errors = {("web", "10.0.0.1:80"): None, ("ftp", "10.0.0.1:21"): None}
        self.assertEqual(self.why(errors=errors), "it cannot listen at 10.0.0.1:21, 10.0.0.1:80")
