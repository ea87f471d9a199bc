"""Pictures of services, groups and hosts: what an operator reads is what the inventory knows, in POSIX time."""

from __future__ import annotations

from typing import Any

from cluster.model import AdminState, HostState, Limits, LoadReport, Service, Sticky
from director.core.pictures import picture_services
from director.core.snapshot import CheckPicture, HostPicture, TransitionPicture
from tests.unit.core.inventory_kit import InventoryTestCase, group, order

#: What is POSIX time when the monotonic clock says 0.
EPOCH = 1e9


class PictureTestCase(InventoryTestCase):
    def pictured(self, **listening: tuple[str, ...]) -> Any:
        return picture_services(self.inventory, self.now, EPOCH, lambda name: listening.get(name, ()))[0]

    def host(self, name: str) -> HostPicture:
        return next(host for part in self.pictured().groups for host in part.hosts if host.name == name)


class HostTests(PictureTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.web("a", "b")

    def test_nothing_known(self) -> None:
        """Of a host that is new there is no report, no check and no history."""
        host = self.host("a")
        self.assertEqual((host.agent_connected, host.heartbeat_age_s, host.report, host.report_age_s, host.history),
                         (False, None, None, None, ()))
        self.assertEqual((host.check.at, host.check.ok, host.check.detail, host.check.duration_s), (None, None, "", None))
        self.assertEqual((host.state, host.admin, host.in_rotation, host.since), (HostState.UP, AdminState.UP, True, EPOCH + 100))

    def test_reported(self) -> None:
        """A report with its age, and whether the agent is there now."""
        self.now = 101.0
        self.report("a", utilisation=0.5)
        self.now = 108.0
        host = self.host("a")
        self.assertEqual((host.report, host.report_age_s, host.heartbeat_age_s, host.agent_connected),
                         (LoadReport(utilisation=0.5), 7.0, 7.0, False))
        self.inventory.agent_connected(self.entry("a").ref, "agent", "boot", self.now)
        self.assertTrue(self.host("a").agent_connected)

    def test_checked(self) -> None:
        """The last check, the next one and what came of them, each at its time."""
        self.now = 101.0
        self.inventory.probe_result(self.entry("a"), True, "connected", 0.25, self.now)
        self.now = 102.0
        self.inventory.probe_result(self.entry("b"), False, "refused", 0.5, self.now)
        self.now = 108.0
        self.assertEqual(self.host("a").check, CheckPicture(EPOCH + 101, True, "connected", 0.25, EPOCH + 103))
        host = self.host("b")
        self.assertEqual(host.check, CheckPicture(EPOCH + 102, False, "refused", 0.5, EPOCH + 103))
        self.assertEqual(host.history, (
            TransitionPicture(EPOCH + 102, HostState.UP, HostState.SUSPECT, "a check failed: refused"),
        ))
        self.assertEqual(host.since, EPOCH + 102)


    def test_share(self) -> None:
        """Of its group's new connections; of one host that is asked for, too; none of who takes none."""
        self.assertEqual((self.host("a").share, self.host("b").share), (0.5, 0.5))
        one = picture_services(self.inventory, self.now, EPOCH, lambda name: (), host="a")[0].groups[0].hosts
        self.assertEqual([each.share for each in one], [0.5])
        self.inventory.set_order(self.entry("b").ref, "operator", order(AdminState.DRAIN), self.now)
        self.assertEqual((self.host("a").share, self.host("b").share), (1.0, 0.0))


class ServiceTests(PictureTestCase):
    def test_two_groups(self) -> None:
        """The enabled one and the other; addresses as bound, else as configured; limits and stickiness as configured."""
        self.apply(Service(groups={"blue": group("a"), "red": group("b", scheduler="random")}, enable="red",
                           listen=(":80",), limits=Limits(max_connections=7, queue=3)))
        service = self.pictured()
        self.assertEqual((service.name, service.listen, service.enabled, service.max_connections, service.queue, service.sticky),
                         ("web", (":80",), "red", 7, 3, "off"))
        self.assertEqual([(part.name, part.enabled, part.scheduler, part.available) for part in service.groups],
                         [("blue", False, "leastconns", 1), ("red", True, "random", 1)])
        self.assertEqual(self.pictured(web=("0.0.0.0:80",)).listen, ("0.0.0.0:80",))
        self.apply(Service(groups={"blue": group("a"), "red": group("b")}, enable="blue"))
        self.assertEqual([(part.name, part.enabled) for part in self.pictured().groups], [("blue", True), ("red", False)])

    def test_sticky(self) -> None:
        """How clients stick, where they do."""
        self.web("a", sticky=Sticky(mode="table"))
        self.assertEqual(self.pictured().sticky, "table")

    def test_connections(self) -> None:
        """Open ones and waiting ones, of the service, the group and the host."""
        self.web("a", limits=Limits(max_connections=1, queue=5))
        self.arrive()
        self.arrive()
        service = self.pictured()
        [part] = service.groups
        [host] = part.hosts
        self.assertEqual((service.connections, service.queued, part.in_flight, host.in_flight, host.picks), (1, 1, 1, 1, 1))
