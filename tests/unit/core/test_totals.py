"""Sums, bad hosts and what happened: what pictures of all hosts would say, without making any."""

from __future__ import annotations

from msgspec.structs import replace

from cluster.model import AdminState, Host, HostState, Registered, Registration, Service
from director.core.pictures import picture_services
from director.core.snapshot import ServicePicture, totals_of
from director.core.totals import bad, happened, totals
from tests.unit.core.inventory_kit import InventoryTestCase, group, order, ref

EPOCH = 1000.0


class TotalsTests(InventoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.web("a", "b", "c")
        self.inventory.apply_service("mail", Service(groups={"all": group("mx", registration=Registration(mode="approve"))}),
                                     self.now)

    def pictures(self) -> tuple[ServicePicture, ...]:
        return picture_services(self.inventory, self.now, EPOCH, lambda name: ())

    def agree(self) -> None:
        hosts = [host for service in self.pictures() for each in service.groups for host in each.hosts]
        self.assertEqual(totals(self.inventory), totals_of(self.pictures()))
        for unused in (False, True):
            expected = [(host.service, host.group, host.name) for host in hosts
                        if (not host.in_rotation if unused else host.state is not HostState.UP)]
            self.assertEqual(list(bad(self.inventory, unused)), expected)
        for downs in (False, True):
            events = [((host.service, host.group, host.name), event) for host in hosts for event in host.history
                      if not downs or event.after is HostState.DOWN]
            events.sort(key=lambda pair: pair[1].at, reverse=True)
            for limit in (1, 2, 1000):
                self.assertEqual(happened(self.inventory, EPOCH, limit, downs=downs), events[:limit])

    def test_as_pictures_say(self) -> None:
        """They agree with the pictures of all hosts, whatever state these are in."""
        self.agree()
        self.now += 30.0
        self.arrive()
        self.take_down("a")
        self.agree()
        self.now += 1.0
        self.inventory.set_order(ref("b"), "operator", order(AdminState.DOWN), self.now)
        self.agree()
        self.assertEqual([each.host for each in bad(self.inventory, False)], ["a"])
        self.assertEqual([each.host for each in bad(self.inventory, True)], ["a", "b"])
        waiting = Registered(host=Host(address="10.1.1.1:80"), agent="n", boot_id="b", at=0.0, approved=False)
        self.inventory.set_registered(ref("n", "all")._replace(service="mail"), waiting, self.now)
        self.agree()
        (notable,) = totals(self.inventory).notable
        self.assertEqual((notable.service, notable.name, notable.waiting), ("mail", "all", 1))
        self.now += 1.0
        for name in ("b", "c"):
            self.take_down(name)
        self.agree()
        self.assertEqual((totals(self.inventory).hosts, totals(self.inventory).connections), (4, 1))

    def test_notable(self) -> None:
        """A group that fails open, uses its backups, or has hosts that wait: each by itself is enough."""
        mail, _ = self.pictures()
        (calm,) = mail.groups
        self.assertEqual(totals_of((mail,)).notable, ())
        for failing_open, backups_in_use, waiting in ((True, False, ()), (False, True, ()), (False, False, ("n",))):
            changed = replace(calm, failing_open=failing_open, backups_in_use=backups_in_use, waiting=waiting)
            (notable,) = totals_of((replace(mail, groups=(changed,)),)).notable
            self.assertEqual((notable.failing_open, notable.backups_in_use, notable.waiting),
                             (failing_open, backups_in_use, len(waiting)))
