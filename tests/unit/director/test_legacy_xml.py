"""The ancestors' configurations, of both dialects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import ConfigError
from director.legacy_xml import read

PYTHON_DIRECTOR = """<pdconfig>
  <service name="shop front">
    <listen ip="127.0.0.1:8000" />
    <group name="main" scheduler="leastconns">
      <client name="two" ip="127.0.0.1:8002" />
      <host ip="app:8003" />
    </group>
    <group name="upgrade" scheduler="roundrobin"/>
    <enable group="upgrade" />
  </service>
  <admin listen="localhost:7001">
    <user name="anna" password="iy910VlMkG1DE" access="full"/>
  </admin>
  <logging file="/var/log/pydir.log"/>
</pdconfig>
"""
TX_LOAD_BALANCER = """<?xml version="1.0"?>
<config>
  <service name="web">
    <listen ip="*:8080" />
    <listen ip=":8081" />
    <group name="one" scheduler="weightr"><host name="a" ip="10.0.0.1:80" weight="5"/></group>
    <group name="two" scheduler="leastc" enable="true"><host name="b" ip="10.0.0.2:80"/></group>
  </service>
  <admin>
    <web listen="*:7000" enable="true" secure="true" refresh="10" />
    <ssh listen="localhost:2222" enable="true" />
  </admin>
  <manager><hostCheck interval="500" enable="true"/></manager>
  <control socket="/tmp/.s"/>
</config>
"""


class DialectTests(SynchronousTestCase):
    def test_python_director(self) -> None:
        """The older dialect: `client`, `enable`, the admin's own address, a host without a name."""
        configuration, warnings = read(PYTHON_DIRECTOR)
        service = configuration.services["shop-front"]
        self.assertEqual(service.listen, ("127.0.0.1:8000",))
        self.assertEqual({name: host.address for name, host in service.groups["main"].hosts.items()},
                         {"two": "127.0.0.1:8002", "host.1": "app:8003"})
        self.assertEqual((service.groups["main"].scheduler, service.enabled_group), ("leastconns", "upgrade"))
        self.assertEqual(configuration.node.admin.endpoints[0].listen, "localhost:7001")
        self.assertEqual(configuration.node.log.target, "/var/log/pydir.log")
        told = {(each.line, each.place) for each in warnings}
        self.assertEqual(told, {(2, "service"), (12, "admin.user")})
        self.assertNotIn("iy910VlMkG1DE", " ".join(map(str, warnings)))

    def test_tx_load_balancer(self) -> None:
        """The younger one: weights, several listeners, `enable` on the group, the short names of schedulers."""
        configuration, warnings = read(TX_LOAD_BALANCER)
        service = configuration.services["web"]
        self.assertEqual(service.listen, ("0.0.0.0:8080", "0.0.0.0:8081"))
        self.assertEqual((service.groups["one"].hosts["a"].weight, service.enabled_group), (5.0, "two"))
        self.assertEqual((service.groups["one"].scheduler, service.groups["two"].scheduler), ("weightr", "leastc"))
        admin = configuration.node.admin
        self.assertEqual((admin.endpoints[0].listen, admin.refresh_s), ("127.0.0.1:7000", 10.0))
        self.assertEqual({each.place for each in warnings}, {"admin", "admin.ssh", "manager.hostCheck", "control"})


class ErrorTests(SynchronousTestCase):
    def errors(self, text: str) -> list[tuple[int | None, str]]:
        problems = self.assertRaises(ConfigError, read, text, file="old.xml").problems
        self.assertEqual({each.file for each in problems}, {"old.xml"})
        return [(each.line, each.message) for each in problems]

    def test_all_at_once(self) -> None:
        """Every error of the grammar, with its line."""
        text = """<pdconfig>
<service name="web">
<what/>
<group name="g"><host name="a" ip="1.2.3.4:80" weight="heavy"/><host name="a" ip="1.2.3.4:81"/><guest/></group>
</service>
<zoo/>
</pdconfig>"""
        self.assertEqual([line for line, _ in self.errors(text)], [3, 4, 4, 4, 6])

    def test_what_the_model_refuses(self) -> None:
        """An address or a scheduler that does not do is told as of any configuration."""
        text = '<config><service name="web"><group name="g" scheduler="psychic"><host name="a" ip="nowhere"/></group></service></config>'
        messages = " ".join(message for _, message in self.errors(text))
        self.assertIn("psychic", messages)
        self.assertIn("nowhere", messages)

    def test_entities(self) -> None:
        """Entities are refused before they can grow."""
        bomb = '<!DOCTYPE pdconfig [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><pdconfig>&b;</pdconfig>'
        self.assertIn("entities", self.errors(bomb)[0][1])

    def test_depth(self) -> None:
        """Deep nesting is refused."""
        self.assertIn("deep", self.errors("<config>" + "<a>" * 100_000)[0][1])

    @given(st.text(max_size=200) | st.text(alphabet='<>/="abc pdconfig', max_size=200))
    def test_garbage(self, text: str) -> None:
        """Garbage is a ConfigError, never anything else."""
        try:
            read(text)
        except ConfigError as error:
            self.assertTrue(error.problems)
