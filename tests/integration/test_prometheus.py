"""The shipped Prometheus files: its own tool takes them, a real one scrapes a real director with them."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.kit import DirectorTestCase, service, until
from tests.integration.pki import Authority
from tests.integration.test_admin_endpoints import USERS_DATA, addresses
from tests.prometheus_server import SHIPPED, Prometheus, promtool, require_prometheus
from tests.unit.admin.small_director import HASHER

ROOT = Path(__file__).parents[2]
ALERTS = re.findall(r"- alert: (\w+)", (SHIPPED / "rules/alerts.yml").read_text())
#: What expressions ask for.
METRIC = re.compile(r"(?<![:\w])(?:txdirector|process|python)_\w+")


def family(name: str) -> str:
    """As OpenMetrics calls it."""
    return re.sub(r"_(bucket|total|info)$", "", name)


def rules() -> list[str]:
    return [str(path) for path in sorted((SHIPPED / "rules").glob("*.yml"))]


class FilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_prometheus()

    def test_config(self) -> None:
        """The configuration, whose secrets are the reader's, and the rules that it names."""
        self.assertIn("SUCCESS", promtool("check", "config", "--syntax-only", str(SHIPPED / "prometheus.yml")))
        self.assertEqual(len(rules()), promtool("check", "rules", *rules()).count("SUCCESS"))

    def test_rules(self) -> None:
        """Series that are well raise no alert; series that are ill raise every one."""
        promtool("test", "rules", str(SHIPPED / "rules_test.yml"))
        told = re.findall(r'alertname="(\w+)"', (SHIPPED / "rules_test.yml").read_text())
        self.assertEqual(told, ALERTS)


class RunbookTests(SynchronousTestCase):
    def test_every_alert_has_a_section(self) -> None:
        """And says which; no section is left of an alert that is gone."""
        page = (ROOT / "docs/operations/alerts.md").read_text()
        self.assertEqual(sorted(re.findall(r"^### (\w+)$", page, flags=re.M)), sorted(ALERTS))
        urls = re.findall(r"runbook_url: \S+/docs/operations/alerts.md#(\w+)", (SHIPPED / "rules/alerts.yml").read_text())
        self.assertEqual(urls, [name.lower() for name in ALERTS])


class ScrapeCase(DirectorTestCase):
    timeout = 120

    def setUp(self) -> None:
        require_prometheus()
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    async def scraped(self, **hosts: str) -> Prometheus:
        """A Prometheus that has scraped a director with clients, by TLS and with a password, twice at least.

        :param hosts: addresses of hosts beside ``a``, which answers.
        """
        authority = Authority(self.folder)
        certificate, key = authority.issue("127.0.0.1", days=60)
        site = await self.backend("a")
        data = service({"a": site.address, **hosts})
        users = {**USERS_DATA, "prometheus": {"password": HASHER.hash("scraping"), "role": "readonly"}}
        data["node"] = {
            "admin": {
                "endpoints": [{"listen": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}}], "users": users,
            },
            "agents": {"listen": ["127.0.0.1:0"], "identities": {"app": {
                "hosts": ["*/*/*"], "token_sha256": hashlib.sha256(b"token").hexdigest(),
            }}},
        }
        self.running = await self.director(data)
        prometheus = Prometheus(self.folder, targets=addresses(self.running), ca=authority.path, password="scraping")
        self.addCleanup(prometheus.stop)
        await deferToThread(prometheus.start)
        await deferToThread(prometheus.wait_for, 'up{job="txdirector"} == 1')
        for _ in range(3):
            self.assertEqual(await self.served_by(self.running), "a")
        await until(lambda: self.ended(self.running, "client_closed") >= 3, "three clients")
        await deferToThread(prometheus.wait_for, "service:txdirector_connections_accepted:rate5m > 0")
        return prometheus


class ScrapeTests(ScrapeCase):
    async def test_a_real_one_scrapes_a_real_director(self) -> None:
        """Every rule is without fault, every metric that one names is exposed, and no alert is about to be raised."""
        prometheus = await self.scraped()
        self.assertIn("SUCCESS", promtool("check", "config", str(prometheus.config)))
        exposed: dict[str, Any] = await deferToThread(prometheus.ask, "metadata")
        groups = (await deferToThread(prometheus.ask, "rules"))["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        self.assertEqual([each["name"] for each in found if each["type"] == "alerting"], ALERTS)
        for rule in found:
            self.assertEqual(rule.get("lastError", ""), "", rule["name"])
            await deferToThread(prometheus.query, rule["query"])
            for name in METRIC.findall(rule["query"]):
                self.assertIn(family(name), exposed, rule["name"])
        # On a busy machine a scrape may be late; and queues overflow of whatever else runs in this network namespace.
        await deferToThread(prometheus.wait_for, 'absent(ALERTS{alertname!="TxdirectorHandshakesDropped"})')
        self.assertEqual(len(await deferToThread(prometheus.query, "txdirector_build_info")), 1)
