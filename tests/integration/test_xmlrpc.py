"""XML-RPC as a script uses it: the standard library's client against a whole director."""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThread

from tests.integration.kit import DirectorTestCase, service
from tests.unit.admin.small_director import USERS


class ServerProxyTests(DirectorTestCase):
    async def start(self, users: dict[str, Any]) -> str:
        """A director with two hosts; answers where its admin is."""
        backend = await self.backend("a")
        data = service({"a": backend.address, "b": backend.address})
        data["node"] = {"admin": {"endpoints": [{"listen": "127.0.0.1:0"}], "users": users}}
        self.running = await self.director(data)
        endpoint: Any = next(iter(self.running.admin))
        return str(endpoint.address)

    async def test_an_operators_script(self) -> None:
        """List methods, look, drain, see it done, and raise again, with faults in between."""
        users = {name: {"password": user.password, "role": user.role} for name, user in USERS.items()}
        address = await self.start(users)

        def script() -> None:
            with xmlrpc.client.ServerProxy(f"http://ada:engine@{address}/RPC2", allow_none=True) as director:
                self.assertIn("order", director.system.listMethods())
                self.assertIn("drain", str(director.system.methodHelp("order")))
                host: Any = director.order({"service": "web", "group": "main", "host": "a", "state": "drain"})
                self.assertEqual((host["admin"], host["orders"][0]["who"]), ("drain", "ada"))
                hosts: Any = director.hosts("web")
                self.assertEqual({each["name"]: each["in_rotation"] for each in hosts}, {"a": False, "b": True})
                weighed: Any = director.weight("web", "main", "b", 2.5)
                self.assertEqual(weighed["configured_weight"], 2.5)
                up: Any = director.order("web", "main", "a", "up", "", None)
                self.assertTrue(up["in_rotation"])
                self.assertEqual(_fault(lambda: director.host("web", "main", "ghost")), 404)
            with xmlrpc.client.ServerProxy(f"http://bob:looking@{address}/RPC2") as looking:
                self.assertEqual(_fault(lambda: looking.order("web", "main", "a", "down")), 403)
                status: Any = looking.status()
                self.assertEqual(status["services"][0]["groups"][0]["available"], 2)
            with xmlrpc.client.ServerProxy(f"http://ada:wrong@{address}/RPC2") as stranger:
                with self.assertRaises(xmlrpc.client.ProtocolError) as refused:
                    stranger.status()
                self.assertEqual(refused.exception.errcode, 401)

        await deferToThread(script)


def _fault(call: Callable[[], Any]) -> int:
    try:
        call()
    except xmlrpc.client.Fault as fault:
        return fault.faultCode
    raise AssertionError("no fault")
