"""The dashboards: every query of every panel has data from a real Prometheus that scrapes a real director."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from agent.config import AgentConfig
from agent.service import LoadReporter
from tests.integration.kit import closed_port, reactor, until
from tests.integration.test_prometheus import ScrapeCase

GRAFANA = Path(__file__).parents[2] / "deploy/grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
#: Grafana's own; enough for two scrapes.
RATE_INTERVAL = "1m"


def asked(text: str) -> str:
    """With every variable set to all, as Grafana asks then."""
    return re.sub(r"\$\w+", ".*", text.replace("$__rate_interval", RATE_INTERVAL))


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Panel and expression."""
    for panel in dashboard["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))


class FilesTests(SynchronousTestCase):
    def test_sound(self) -> None:
        """Ids are one panel's or dashboard's alone, panels do not overlap, each asks the chosen Prometheus, and variables that
        a query names exist."""
        self.assertEqual(len({each["uid"] for each in DASHBOARDS.values()}), len(DASHBOARDS))
        for name, dashboard in DASHBOARDS.items():
            variables = {each["name"] for each in dashboard["templating"]["list"]}
            taken: set[tuple[int, int]] = set()
            for panel in dashboard["panels"]:
                at = panel["gridPos"]
                place = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
                self.assertFalse(place & taken or at["x"] + at["w"] > 24, (name, panel["title"]))
                taken |= place
                for target in panel.get("targets", ()):
                    self.assertEqual(target["datasource"]["uid"], "${source}")
                    self.assertLessEqual(set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}, variables)
            ids = [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(set(ids)), len(ids), name)


class DataTests(ScrapeCase):
    async def test_every_query_has_data(self) -> None:
        """With an agent that reports, a host that does not answer, and clients; the variables have values too."""
        prometheus = await self.scraped(b=f"127.0.0.1:{closed_port()}")
        reporter = LoadReporter(
            AgentConfig(name="app", directors=(str(self.running.agents.ports[0].address),), hosts=("web/main/a",), token="token",
                        leave_deadline_s=0.0),
            reactor=reactor,
        )
        reporter.startService()
        self.addCleanup(reporter.stopService)
        count = self.running.registry.get_sample_value
        await until(lambda: count("txdirector_agent_reports_total"), "a report")
        await until(lambda: count("txdirector_host_probes_total", {
            "service": "web", "group": "main", "host": "b", "result": "failure"}), "a failed probe")
        for name, dashboard in DASHBOARDS.items():
            for title, expression in queries(dashboard):
                with self.subTest(dashboard=name, panel=title):
                    await deferToThread(prometheus.wait_for, asked(expression))
            for variable in dashboard["templating"]["list"]:
                if variable["type"] == "query":
                    wanted = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
                    assert wanted is not None, variable["name"]
                    (sample, *_) = await deferToThread(prometheus.wait_for, asked(wanted[1]))
                    self.assertIn(wanted[2], sample["metric"], variable["name"])
            for annotation in dashboard["annotations"]["list"]:
                await deferToThread(prometheus.query, asked(annotation["expr"]))
