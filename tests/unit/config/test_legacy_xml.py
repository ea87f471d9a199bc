"""Importing the ancestors' config.xml: what they meant, and a word about whatever cannot be carried over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import ConfigError
from cluster.model import AdminEndpoint, Group, Host, Service, Sticky
from director.config.files import dump_toml, parse
from director.config.legacy_xml import Imported, import_xml

#: As PythonDirector's own documentation describes a configuration.
PYTHON_DIRECTOR = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE pdconfig SYSTEM "pythondirector.dtd">
<pdconfig>
  <!-- the shop -->
  <service name="shop http">
    <listen ip=":8000"/>
    <listen ip="[::1]:8000"/>
    <group name="main" scheduler="leastconnsrr">
      <host name="two" ip="10.0.0.2:80"/>
      <host ip="backend.example:81"/>
    </group>
    <group name="upgrade" scheduler="roundrobin">
      <client name="five" ip="10.0.0.5:80"/>
    </group>
    <enable group="upgrade"/>
  </service>
  <admin listen="localhost:7001" refresh="10" secure="yes">
    <user name="anthony" password="iy910VlMkG1DE" access="full"/>
  </admin>
  <logging file="/var/log/pydir.log"/>
</pdconfig>
"""

#: As txLoadBalancer's does.
TX_LOAD_BALANCER = b"""<config>
  <note>two machines</note>
  <service name="web">
    <listen ip="127.0.0.1:8080"/>
    <group name="one" scheduler="weightr">
      <host name="a" ip="10.0.0.1:80" weight="5"/>
      <host name="b" ip="10.0.0.2:80"/>
    </group>
    <group name="two" scheduler="weightlc" enable="true"><host name="c" ip="10.0.0.3:80"/></group>
  </service>
  <admin>
    <web listen="*:7000" enable="true" secure="false"/>
    <ssh listen="localhost:2222" enable="true"/>
    <user name="admin" password="..xpoEyRReGzk" access="readonly"/>
  </admin>
  <manager><hostCheck interval="500" enable="true"/></manager>
  <control socket="/run/lb.sock"/>
</config>
"""


class DialectTests(SynchronousTestCase):
    def test_python_director(self) -> None:
        """Services, groups, hosts (named or not, by either name), the enabled group, admin and log are carried over."""
        configuration = import_xml(PYTHON_DIRECTOR).configuration
        self.assertEqual(configuration.services, {"shop-http": Service(
            listen=("0.0.0.0:8000", "[::1]:8000"), enable="upgrade",
            groups={
                "main": Group(scheduler="leastconns", hosts={
                    "two": Host(address="10.0.0.2:80"), "host.1": Host(address="backend.example:81"),
                }),
                "upgrade": Group(scheduler="roundrobin", hosts={"five": Host(address="10.0.0.5:80")}),
            },
        )})
        admin = configuration.node.admin
        self.assertEqual((admin.endpoints, admin.refresh_s), ((AdminEndpoint(listen="localhost:7001"),), 10.0))
        self.assertEqual(configuration.node.log.target, "/var/log/pydir.log")

    def test_tx_load_balancer(self) -> None:
        """Weights, the enabled group as an attribute, the web admin (on loopback) and the control socket are too."""
        configuration = import_xml(TX_LOAD_BALANCER).configuration
        self.assertEqual(configuration.services, {"web": Service(
            listen=("127.0.0.1:8080",), enable="two",
            groups={
                "one": Group(scheduler="weighted", hosts={
                    "a": Host(address="10.0.0.1:80", weight=5.0), "b": Host(address="10.0.0.2:80"),
                }),
                "two": Group(scheduler="weightedleastconns", hosts={"c": Host(address="10.0.0.3:80")}),
            },
        )})
        self.assertEqual(configuration.node.admin.endpoints, (AdminEndpoint(listen="127.0.0.1:7000"),))
        self.assertEqual(configuration.node.control_socket, "/run/lb.sock")

    def test_result_is_a_file(self) -> None:
        """What was read can be written as TOML and read again."""
        for text in (PYTHON_DIRECTOR, TX_LOAD_BALANCER):
            configuration = import_xml(text).configuration
            self.assertEqual(parse(dump_toml(configuration)), configuration)


class NoteTests(SynchronousTestCase):
    def notes(self, text: bytes) -> list[str]:
        return [f"{note.line}: {note.message}" for note in import_xml(text).notes]

    def test_python_director(self) -> None:
        """The renamed service, the certificate and the password that were left out are told, with lines and what to do;
        a hash is not repeated."""
        self.assertEqual(self.notes(PYTHON_DIRECTOR), [
            "5: <service> 'shop http' is no name here; called 'shop-http'",
            "17: was https; plain http now",
            "18: user 'anthony' with full access was left out: crypt is no password hash today",
        ])
        imported = import_xml(PYTHON_DIRECTOR, file="config.xml")
        self.assertIn("directorctl users add anthony --role full", str(imported.notes[-1]))
        self.assertTrue(str(imported.notes[0]).startswith("config.xml:5: services.shop-http: "))
        self.assertNotIn("iy910VlMkG1DE", repr(imported))

    def test_tx_load_balancer(self) -> None:
        """So are the endpoint that moved to loopback, the shell, and the manager's intervals."""
        self.assertEqual(self.notes(TX_LOAD_BALANCER), [
            "12: listened on 0.0.0.0:7000; on loopback now",
            "13: the shell at localhost:2222 was left out",
            "14: user 'admin' with readonly access was left out: crypt is no password hash today",
            "16: the manager's intervals (hostCheck 500, hostCheck true) were left out",
        ])

    def service(self, inner: bytes, more: bytes = b"") -> Imported:
        group = b'<group name="g" scheduler="random"><host name="h" ip="10.0.0.1:80"/></group>'
        return import_xml(b'<pdconfig><service name="s"><listen ip="127.0.0.1:80"/>' + group + inner + b"</service>"
                          + more + b"</pdconfig>")

    def messages(self, inner: bytes, more: bytes = b"") -> list[str]:
        return [note.message for note in self.service(inner, more).notes]

    def test_nothing_enabled(self) -> None:
        """Without an enabled group the first one answers, and that is told."""
        self.assertEqual(self.messages(b""), ["no group was enabled; the first one will be"])

    def test_two_enabled(self) -> None:
        """Of two enabled groups the last one counts, as it did, and that is told."""
        inner = b'<enable group="g"/><group name="h" scheduler="random" enable="yes"/>'
        imported = self.service(inner)
        self.assertEqual(imported.configuration.services["s"].enable, "g")
        self.assertEqual([note.message for note in imported.notes],
                         ["group 'h' was enabled too, but only one group can be"])

    def test_twice(self) -> None:
        """Of two groups of one name, of which only the second had counted, both are there."""
        imported = self.service(b'<group name="g" scheduler="rand"/><enable group="g"/>')
        self.assertEqual(list(imported.configuration.services["s"].groups), ["g", "g-2"])
        self.assertEqual(imported.configuration.services["s"].enable, "g-2")
        self.assertEqual([note.message for note in imported.notes], ["<group> 'g' is there twice; called 'g-2'"])

    def test_sticky(self) -> None:
        """The scheduler that made clients stick is the service's stickiness."""
        imported = self.service(b'<group name="k" scheduler="sticky"/><enable group="k"/>')
        self.assertEqual(imported.configuration.services["s"].sticky, Sticky())
        self.assertEqual(len(imported.notes), 1)

    def test_unknown(self) -> None:
        """Elements and attributes that neither ancestor had are told."""
        self.assertEqual(self.messages(b'<enable group="g" when="now"/>', b'<rpcserver ip="10.0.0.1:1"/>'), [
            "attribute 'when' of <enable> is unknown and was left out",
            "<rpcserver> within <pdconfig> is unknown and was left out",
        ])

    def test_turned_off(self) -> None:
        """A web admin that was off stays off; a relative control socket is left out; both are told."""
        more = b'<admin><web listen="*:7000" enable="false"/></admin><control socket="lb.sock"/>'
        imported = self.service(b'<enable group="g"/>', more)
        self.assertEqual(imported.configuration.node.admin.endpoints, ())
        self.assertIsNone(imported.configuration.node.control_socket)
        self.assertEqual(len(imported.notes), 2)


class RefusalTests(SynchronousTestCase):
    def refused(self, text: bytes) -> str:
        with self.assertRaises(ConfigError) as caught:
            import_xml(text, file="config.xml")
        return str(caught.exception)

    def test_every_error_with_its_line(self) -> None:
        """Everything that makes no configuration is told at once, at the lines of the XML."""
        told = self.refused(
            b'<pdconfig>\n<service name="s">\n<listen ip="nowhere"/>\n<group name="g" scheduler="leastcons">\n'
            b'<host name="h" ip="10.0.0.1"/>\n<host name="i" ip="10.0.0.2:80" weight="heavy"/>\n</group>\n'
            b'<enable group="other"/>\n</service>\n<admin listen="nowhere"/></pdconfig>'
        )
        for line in ("config.xml:3: services.s.listen[0]: 'nowhere': expected host:port",
                     "config.xml:4: services.s.groups.g.scheduler: unknown scheduler 'leastcons' (did you mean 'leastconns'?)",
                     "config.xml:5: services.s.groups.g.hosts.h.address: '10.0.0.1': expected host:port",
                     "config.xml:6: services.s.groups.g.hosts.i.weight: expected a number",
                     "config.xml:8: services.s.enable: there is no group 'other'",
                     "config.xml:10: node.admin.endpoints[0].listen: 'nowhere': expected host:port"):
            self.assertIn(line, told)

    def test_not_xml(self) -> None:
        """Text that is no XML, and XML that is no configuration, are one error with a line."""
        self.assertEqual(self.refused(b"<pdconfig>\n<service>"), "config.xml:2: not XML: no element found")
        self.assertIn("config.xml:1: expected <pdconfig> or <config>, got <html>", self.refused(b"<html/>"))

    def test_entities(self) -> None:
        """Entities are refused wherever they come from: no file is read and nothing is blown up."""
        inside = b'<!DOCTYPE pdconfig [<!ENTITY a "aaaa">]><pdconfig><service name="&a;"/></pdconfig>'
        outside = b'<!DOCTYPE pdconfig [<!ENTITY a SYSTEM "file:///etc/hostname">]><pdconfig>&a;</pdconfig>'
        parameter = b'<!DOCTYPE pdconfig [<!ENTITY % a SYSTEM "file:///etc/hostname"> %a;]><pdconfig/>'
        for text in (inside, outside, parameter):
            self.assertEqual(self.refused(text), "config.xml:1: entities are not taken")

    @given(st.binary(max_size=100) | st.text(alphabet='<>/="abc pdconfig', max_size=200).map(str.encode))
    def test_garbage(self, text: bytes) -> None:
        """Garbage is a ConfigError, never anything else."""
        try:
            import_xml(text)
        except ConfigError as error:
            self.assertTrue(error.problems)
