"""What a file that is read again changes, and when."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Configuration, Limits, Logging, Service
from director.config.reload import by_new_process, differences

BEFORE = Configuration(services={"web": Service(), "mail": Service()})


class DifferencesTests(SynchronousTestCase):
    def test_nothing(self) -> None:
        """The same file changes nothing."""
        self.assertEqual(differences(BEFORE, BEFORE), ((), (), BEFORE))

    def test_places(self) -> None:
        """Every place that differs is named under what becomes of it, and only what is taken over becomes effective."""
        node = replace(BEFORE.node, name="other", log=Logging(level="debug", format="json"))
        services = {"web": Service(limits=Limits(max_connections=1)), "ftp": Service()}
        found = differences(BEFORE, Configuration(node=node, services=services))
        self.assertEqual(found.reloaded, ("node.log.level",))
        self.assertEqual(
            set(found.restart), {"node.name", "node.log.format", "services.web", "services.mail", "services.ftp"}
        )
        self.assertEqual(found.effective, replace(BEFORE, node=replace(BEFORE.node, log=Logging(level="debug"))))

    def test_by_new_process(self) -> None:
        """A new process takes all but what makes another director, where more differs than services."""
        for restart, expected in (
            ((), ()), (("services.web",), ()), (("node.panic_fraction",), ("node.panic_fraction",)),
            (("node.agents.listen", "services.web"), ("node.agents.listen", "services.web")),
            (("node.name", "node.panic_fraction"), ()), (("node.store",), ()), (("node.etcd.cluster",), ()),
        ):
            self.assertEqual(by_new_process(restart), expected, restart)
