"""Nobody gets into a UNIX socket of a director while it is being made.

``SOAK_STARTS`` says how often each kind of socket is made; a tenth in CI.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from cluster.address import Address
from cluster.model import AdminEndpoint, AgentListeners
from director.admin.site import AdminListener
from director.doors.control_socket import ControlSocket
from director.ports.binding import FileAccess, bind, remove
from director.reports.agents import AgentListener
from director.traffic.listener import Listeners
from director.traffic.origins import Origins
from tests.integration.kit import reactor
from tests.integration.test_cli import Running
from tests.unit.reports.agent_sink import RecordingSink

STARTS = int(os.environ.get("SOAK_STARTS") or (20 if os.environ.get("CI") else 200))
PROCESSES = max(2, STARTS // 20)
CONFIGURATION = """
[node]
control_socket = "{0}/control"
agents.listen = ["unix:{0}/agents"]
[[node.admin.endpoints]]
listen = "unix:{0}/admin"
[services.web]
listen = ["unix:{0}/clients"]
groups.blue.health.probe.kind = "none"
groups.blue.hosts.app1 = "127.0.0.1:1"
"""


class _Turned:
    """Takes clients and closes them."""

    def accepted(self, fd: int, name: bytes | None) -> None:
        os.close(fd)


def kinds(directory: str) -> dict[str, Callable[[], Any]]:
    """What makes a new service of each kind that has a UNIX socket, by the name of its file in *directory*."""
    return {
        "admin": lambda: AdminListener(AdminEndpoint(listen=f"unix:{directory}/admin"), Site(Resource()), place="admin",
                                       reactor=reactor),
        "control": lambda: ControlSocket(f"{directory}/control", Origins(), reactor=reactor),
        "agents": lambda: AgentListener(AgentListeners(listen=(f"unix:{directory}/agents",)), RecordingSink(),
                                        reactor=reactor, name="d1", monotonic=time.monotonic, wall=time.time),
        "clients": lambda: Listeners(Address("", 0, f"{directory}/clients"), _Turned(), reactor=reactor),
    }


@skipUnless(os.geteuid() == 0, "only root can become a user without rights")
class TrespassingTests(TestCase):
    timeout = 580

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.directory = holder.name
        os.chmod(self.directory, 0o755)

    def trespasser(self, *names: str) -> Callable[[], list[str]]:
        """One begins to try; returns what ends him, and says where he got in."""
        paths = [f"{self.directory}/{name}" for name in names]
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("trespasser.py")), str(pwd.getpwnam("nobody").pw_uid), *paths],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "began\n")

        def end() -> list[str]:
            *entered, tries = process.communicate()[0].split()
            self.assertGreater(int(tries), 0)
            return entered

        self.addCleanup(process.kill)
        return end

    def test_the_trespasser_tries(self) -> None:
        """Who lets everybody in finds him inside."""
        end = self.trespasser("open")
        address = Address("", 0, f"{self.directory}/open")
        for _ in range(STARTS):
            [sock] = bind(address, access=FileAccess(0o666))
            time.sleep(0.001)
            remove(address)
            sock.close()
        self.assertNotEqual(end(), [])

    async def test_each_kind(self) -> None:
        """However often its socket is made."""
        for name, make in kinds(self.directory).items():
            end = self.trespasser(name)
            for _ in range(STARTS):
                service = make()
                service.startService()
                await maybeDeferred(service.stopService)
            self.assertEqual(end(), [], name)

    def test_whole_directors(self) -> None:
        """From their first moment to their last."""
        path = Path(self.directory) / "director.toml"
        path.write_text(CONFIGURATION.format(self.directory))
        end = self.trespasser(*kinds(self.directory))
        for _ in range(PROCESSES):
            running = Running("-m", "director", "run", str(path))
            self.addCleanup(running.end)
            running.says("ready\n")
            self.assertTrue(all(os.path.exists(f"{self.directory}/{name}") for name in kinds(self.directory)))
            running.tell(signal.SIGTERM)
            self.assertEqual(running.ended(), 0)
        self.assertEqual(end(), [])
