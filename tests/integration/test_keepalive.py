"""What TCP asks of silent peers, and what becomes of those that do not answer."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import Any

from cluster.address import Address
from cluster.model import Keepalive
from director.config.files import checked
from director.ports import sockets
from director.traffic.frontend import Frontend
from tests.integration.kit import DirectorTestCase, service, until

FAST: dict[str, Any] = {"idle_s": 1, "interval_s": 1, "count": 1}


def times_of(fd: int) -> list[int]:
    """A socket's times: idle, interval, count, user timeout."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        return [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options]


def power_off(sock: socket.socket) -> None:
    """From now on its kernel takes no packet for it, and so answers none: a classic BPF program that keeps 0 bytes."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(program)))  # SO_ATTACH_FILTER


class KeepaliveTests(DirectorTestCase):
    def listening(self) -> socket.socket:
        """A host that takes connections and says nothing."""
        host = socket.create_server(("127.0.0.1", 0))
        host.setblocking(False)
        self.addCleanup(host.close)
        return host

    def web(self, host: socket.socket, **keepalive: Any) -> dict[str, Any]:
        return service({"a": str(Address(*host.getsockname()))}, keepalive=keepalive,
                       group={"health": {"probe": {"kind": "none"}}})

    def test_connector(self) -> None:
        """A connection to a host has what is configured, in C and in Python, and costs one system call by default."""
        host = self.listening()
        address = Address(*host.getsockname())
        options = sockets.keepalive_options(Keepalive(idle_s=33, interval_s=7, count=3, user_timeout_s=44.5))
        for in_c in {sockets.IN_C, False}:
            self.patch(sockets, "IN_C", in_c)
            for sources in ((), ("127.0.0.5",)):
                with socket.socket(fileno=sockets.connector(address, sources, options)()) as sock:
                    self.assertEqual(times_of(sock.fileno()), [33, 7, 3, 44_500])
        self.assertEqual(sockets.keepalive_options(Keepalive()), ((socket.TCP_KEEPIDLE, 60),))

    async def test_inherited(self) -> None:
        """Clients have what is configured when they come; what is not configured any more is the kernel's again."""
        host = self.listening()
        data = self.web(host, idle_s=33, interval_s=7, count=3, user_timeout_s=44.5)
        director = await self.director(data)
        seen: list[list[int]] = []
        accepted = Frontend.accepted
        self.patch(Frontend, "accepted", lambda frontend, fd, name: (seen.append(times_of(fd)), accepted(frontend, fd, name)))
        await self.client(director)
        await until(lambda: len(seen) == 1, "the first client")
        director.node.apply_service("web", checked(self.web(host)).services["web"])
        await self.client(director)
        await until(lambda: len(seen) == 2, "the second client")
        with socket.socket() as fresh:
            of_kernel = times_of(fresh.fileno())
        self.assertEqual(seen, [[33, 7, 3, 44_500], [60, *of_kernel[1:]]])
        target = director.node.inventory.hosts[next(iter(director.node.inventory.hosts))].target
        self.assertEqual(target.options, ((socket.TCP_KEEPIDLE, 60),))

    async def test_lost(self) -> None:
        """A host and a client that lost their power are noticed, and told apart from those that reset."""
        for who in ("host_lost", "client_lost"):
            host = self.listening()
            director = await self.director(self.web(host, **FAST))
            where, port = director.node.listeners.addresses("web")[0].rsplit(":", 1)
            client = socket.create_connection((where, int(port)))
            self.addCleanup(client.close)
            frontend = director.node.frontends["web"]
            await until(lambda: any(each.established for each in frontend.connections()), "the connection")  # noqa: B023
            server = host.accept()[0]
            self.addCleanup(server.close)
            power_off(server if who == "host_lost" else client)
            await until(lambda: self.ended(director, who) == 1, who)  # noqa: B023
            await director.stopService()
