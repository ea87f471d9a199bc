"""What is looked up in a director's picture of itself."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Service
from director.core.inventory import Inventory
from director.core.pictures import picture_services
from director.core.snapshot import DirectorPicture, Picture
from tests.unit.core.inventory_kit import group


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
