"""The dashboards: the code makes them, and every query of every panel has data from a real Prometheus and a real pair."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from agent.config import AgentConfig
from agent.service import LoadReporter
from deploy.dashboards.__main__ import files
from director.admin.operation import Caller, Role
from director.service import DirectorService
from tests.etcd_server import EtcdCluster, free_port
from tests.integration.kit import closed_port, reactor, service, until
from tests.integration.pki import Authority
from tests.integration.test_admin_endpoints import addresses
from tests.integration.test_metrics_reference import documented
from tests.integration.test_prometheus import ScrapeCase
from tests.prometheus_server import SHIPPED, Prometheus
from tests.unit.admin.small_director import HASHER

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


class CodeTests(SynchronousTestCase):
    def test_made_by_the_code(self) -> None:
        """The files are what `make dashboards` writes."""
        made = files()
        self.assertEqual(sorted(made), sorted(path.name for path in (GRAFANA / "dashboards").iterdir()))
        for name, text in made.items():
            self.assertEqual((GRAFANA / "dashboards" / name).read_text(), text, f"{name}: make dashboards")

    def test_every_metric_is_documented(self) -> None:
        """No query asks for what there is not: neither the reference nor the recording rules know it."""
        known = set(documented()) | set(re.findall(r"record: (\S+)", (SHIPPED / "rules/recording.yml").read_text()))
        for name, dashboard in DASHBOARDS.items():
            for title, expression in queries(dashboard):
                for metric in re.findall(r"(?<![:\w])(?:\w+:)?txdirector_\w+(?::\w+)?", expression):
                    self.assertIn(re.sub(r"_(bucket|sum|count)$", "", metric) if metric not in known else metric, known, (name, title))


class DataTests(ScrapeCase):
    async def pair(self, **hosts: str) -> list[DirectorService]:
        """Two directors that share an etcd and are linked; each with agents' and admin ports."""
        etcd = EtcdCluster()
        self.addCleanup(etcd.stop)
        await deferToThread(etcd.start)
        authority = Authority(self.folder)
        certificate, key = authority.issue("127.0.0.1", days=60)
        secret = self.folder / "secret"
        secret.write_text("x" * 40)
        secret.chmod(0o600)
        found = []
        for name in ("d1", "d2"):
            peers = f"127.0.0.1:{free_port()}"
            found.append(await self.director({"node": {
                "name": name, "store": "etcd:", "etcd": {"endpoints": list(etcd.endpoints)},
                "peers": {"listen": peers, "secret_file": str(secret)},
                "admin": {"endpoints": [{"listen": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}}],
                          "users": {"prometheus": {"password": HASHER.hash("scraping"), "role": "readonly"}}},
                "agents": {"listen": ["127.0.0.1:0"], "identities": {"app": {
                    "hosts": ["*/*/*"], "token_sha256": hashlib.sha256(b"token").hexdigest()}}},
                "hooks": {"h": {"command": ["/bin/true"]}},
            }}))
        first, second = found
        await until(lambda: all(any(peer.connected for peer in each.operations.picture().peers) for each in found), "a link")
        spec = service(hosts)["services"]["web"]
        await first.control.call(Caller("ada", Role.FULL), "new_service", {"service": "web", "spec": spec})
        await until(lambda: all(each.node.listeners.addresses("web") for each in found), "both to serve")
        self.prometheus = Prometheus(self.folder, targets=[addresses(each)[0] for each in found], ca=authority.path,
                                     password="scraping")
        self.addCleanup(self.prometheus.stop)
        await deferToThread(self.prometheus.start)
        await deferToThread(self.prometheus.wait_for, 'sum(up{job="txdirector"}) == 2')
        return [first, second]

    async def test_every_query_has_data(self) -> None:
        """With an agent that reports to both, a host that does not answer, and clients; the variables have values too."""
        site = await self.backend("a")
        directors = await self.pair(a=site.address, b=f"127.0.0.1:{closed_port()}")
        prometheus = self.prometheus
        reporter = LoadReporter(
            AgentConfig(name="app", directors=tuple(str(each.agents.ports[0].address) for each in directors),
                        hosts=("web/main/a",), token="token", leave_deadline_s=0.0),
            reactor=reactor,
        )
        reporter.startService()
        self.addCleanup(reporter.stopService)
        reporter.report(in_flight=1.0, latency_s=0.01, utilisation=0.5)
        for _ in range(20):  # so that there are rates and errors to report
            with reporter.track():
                pass
        for director in directors:
            for _ in range(3):
                self.assertEqual(await self.served_by(director), "a")
        for director in directors:
            count = director.registry.get_sample_value
            await until(lambda count=count: count("txdirector_agent_reports_total"), "a report")
            await until(lambda count=count: count("txdirector_host_probes_total", {
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
