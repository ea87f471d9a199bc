"""Clients over UNIX sockets, and at every address of a name."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol

from director.config.files import checked
from tests.integration.kit import Client, DirectorTestCase, reactor, service, until


class UnixClientTests(DirectorTestCase):
    def path(self) -> str:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return f"{directory.name}/web"

    async def connect(self, path: str) -> Client:
        client: Client = await connectProtocol(UNIXClientEndpoint(reactor, path), Client())
        self.clients.append(client)
        return client

    async def test_header(self) -> None:
        """A trusted peer's PROXY header tells the client, whole or in pieces; what is none ends it, and so does its end."""
        site, path = await self.backend("a"), self.path()
        director = await self.director(service({"a": site.address}, listen=[f"unix:{path}"],
                                               proxy={"accept_from": ["unix"], "send": "v1"}))
        whole = b"PROXY TCP4 192.0.2.7 192.0.2.8 4000 80\r\n"
        for pieces in ((whole + b"hello",), (whole[:9], whole[9:20], whole[20:] + b"hello")):
            client = await self.connect(path)
            for piece in pieces:
                client.send(piece)
                await until(lambda: director.node.frontends["web"]._headers.waiting or client.received, "the director to read")  # noqa: B023
            await until(lambda: b"HELLO" in client.received, "the answer")  # noqa: B023
            self.assertEqual(site.connections[-1].received, whole + b"hello")
            client.close()
            await until(lambda: client.lost, "the end")  # noqa: B023
        for bad in (b"GET / HTTP/1.0\r\n\r\n", b"PROXY TCP4 "):
            before = self.ended(director, "bad_proxy_header")
            client = await self.connect(path)
            client.send(bad)
            client.close()
            await until(lambda: self.ended(director, "bad_proxy_header") > before, "the refusal")  # noqa: B023

    async def test_mode(self) -> None:
        """As configured, and as configured anew while it runs."""
        path = self.path()
        data: Any = service({"a": "127.0.0.1:1"}, listen=[f"unix:{path}"])
        director = await self.director(data)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)
        data["services"]["web"]["unix"] = {"mode": "0666"}
        director.node.apply_service("web", checked(data).services["web"])
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o666)

    async def test_localhost(self) -> None:
        """Clients of either family get through; admin and agents are there for both, too."""
        asked = socket.getaddrinfo

        def getaddrinfo(host: str, *arguments: Any, **more: Any) -> Any:  # this machine's localhost may be IPv4 alone
            ips = ("127.0.0.1", "::1") if host == "localhost" else (host,)
            return [each for ip in ips for each in asked(ip, *arguments, **more)]

        self.patch(socket, "getaddrinfo", getaddrinfo)
        site = await self.backend("a")
        data: Any = service({"a": site.address}, listen=["localhost:0"])
        data["node"] = {"admin": {"endpoints": [{"listen": "localhost:0"}]}, "agents": {"listen": ["localhost:0"]}}
        director = await self.director(data)
        port = int(director.node.listeners.addresses("web")[0].rpartition(":")[2])
        listener: Any = director.admin.getServiceNamed("node.admin.endpoints[0]")
        for host in ("127.0.0.1", "::1"):
            client: Client = await connectProtocol(HostnameEndpoint(reactor, host, port), Client())
            self.clients.append(client)
            await until(lambda: client.received, "the banner")  # noqa: B023
            for other in (listener.address.port, director.agents.ports[0].address.port):
                self.clients.append(await connectProtocol(HostnameEndpoint(reactor, host, other), Client()))
