"""What `director check` says of this moment: addresses that cannot be had now."""

from __future__ import annotations

import socket

from director.ports import binding
from tests.unit.config.test_machine import ETCD, MachineTestCase

SERVICE = "[services.web]\nlisten = ['{}']\nlimits.max_connections = 9\ngroups.main.hosts.a = '127.0.0.1:1'\n"


class PresentTests(MachineTestCase):
    def test_taken(self) -> None:
        """A port that is taken now, or an address that is another machine's, would keep it from starting."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            text = SERVICE.format(address)
            self.assertEqual(self.in_the_way(text),
                             [("services.web.listen[0]",
                               f"cannot listen on {address}: Address already in use")])
            self.assertEqual(self.warned(text), [])
            self.assertEqual(self.in_the_way(ETCD + text), [], "services of the file are not used")
        self.assertEqual(self.in_the_way(text), [])
        self.assertIn("Cannot assign", self.in_the_way(SERVICE.format("192.0.2.1:80"))[0][1])
        vip = "[node.vips]\ninterface = 'lo'\naddresses = ['192.0.2.1/24']\n"
        self.assertEqual(self.in_the_way(vip + SERVICE.format("192.0.2.1:80")), [])

    def test_nobody_connects_meanwhile(self) -> None:
        """Looking takes a name and does not listen."""
        listened = []

        class Spy(socket.socket):
            def listen(self, *_: object) -> None:  # type: ignore[override]
                listened.append(self)

        self.patch(binding.socket, "socket", Spy)
        self.assertEqual(binding.refusal(binding.Address("127.0.0.1", 0)), "")
        self.assertEqual(listened, [])
