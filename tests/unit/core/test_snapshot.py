"""What is looked up in a director's picture of itself."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Service
from director.core import snapshot
from director.core.inventory import Inventory
from director.core.pictures import picture_services
from director.core.snapshot import DirectorPicture, Picture
from tests.unit.core.inventory_kit import group

#: What a picture of a release that does not know of a field says of it.
UNSAID: dict[type[Picture], dict[str, object]] = {
    snapshot.CheckPicture: {"at": None, "ok": None, "detail": "", "duration_s": None, "next_at": None},
    snapshot.HostPicture: {
        "overruled": "", "seen_by_others": (), "in_flight_elsewhere": {}, "report_age_s": None, "responder": None, "probed_weight": 1.0,
        "ejected_s": None, "ejections": 0, "turnarounds": 0, "turnaround_s": None, "rate": None, "rate_of": "", "rate_scale": 1.0,
        "share": 0.0, "rate_doubt": ""},
    snapshot.GroupPicture: {"waiting": (), "share": 0.0, "strayed": 0},
    snapshot.ServicePicture: {"share": None, "split": {}},
    snapshot.MemberPicture: {"linked": None},
    snapshot.VipPicture: {"able": (), "pinned": None, "moves": 0},
    snapshot.ClusterPicture: {
        "members": (), "vips": (), "disagreements": (), "store_problems": (), "store_writable": True, "problems": (), "last_known": False,
        "leads": False, "vips_held": (), "vip_fence": "", "takeover": "lease", "electors": ()},
    snapshot.DirectorPicture: {
        "cold_start": False, "leader": None, "leads": False, "vips_held": (), "vip_fence": "", "vip_fence_holds": False, "peers": (),
        "problems": (), "store_problems": (), "store_writable": True, "store_bytes": 0, "store_writes": 0, "store_written_bytes": 0,
        "retired": {}, "previous_connections": None},
    snapshot.CandidatePicture: {"weight": 0.0, "share": 0.0, "words": ()},
    snapshot.Explanation: {"rule": ""},
    snapshot.ConnectionPicture: {"previous": False},
}


class UnsaidTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """What is not said has a value that claims nothing; everything else must be said."""
        for each in vars(snapshot).values():
            if isinstance(each, type) and issubclass(each, Picture):
                found = {field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
                         for field in msgspec.structs.fields(each) if not field.required}
                self.assertEqual(found, UNSAID.get(each, {}), each)


class DirectorPictureTests(SynchronousTestCase):
    def test_host(self) -> None:
        """The host of that name, of the group and the service so named; None when one of the three is unknown."""
        inventory = Inventory(now=0.0, random=lambda: 0.5)
        for name in ("mail", "web"):
            inventory.apply_service(name, Service(groups={part: group("host-1", "host-2") for part in ("blue", "red")}), 0.0)
        services = picture_services(inventory, 0.0, 0.0, lambda name: ())
        picture = DirectorPicture("one", "1", 0.0, 0.0, False, False, "memory:", True, services)
        for service in services:
            for part in service.groups:
                for host in part.hosts:
                    wanted = ("".join([*name]) for name in (service.name, part.name, host.name))  # equal, not the same
                    self.assertIs(picture.host(*wanted), host)
        for unknown in (("ftp", "blue", "host-1"), ("web", "green", "host-1"), ("web", "blue", "host-3")):
            self.assertIsNone(picture.host(*unknown))

    def test_of_no_store(self) -> None:
        """Without a store that counts, nothing was written and nothing takes room."""
        picture = DirectorPicture("one", "1", 0.0, 0.0, False, False, "memory:", True, ())
        self.assertEqual((picture.store_bytes, picture.store_writes, picture.store_written_bytes), (0, 0, 0))


class PictureTests(SynchronousTestCase):
    def test_immutable(self) -> None:
        """Nobody who is given a picture can change what others see."""
        for each in (Picture, *Picture.__subclasses__()):
            self.assertTrue(each.__struct_config__.frozen, each)
