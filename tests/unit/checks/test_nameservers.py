"""Name servers: how a question leaves. What is asked and answered over sockets is in `tests/integration/test_resolver.py`."""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from director.checks.nameservers import Server, _connected


class Port:
    """A port over UDP, and its socket."""

    def __init__(self) -> None:
        self.did: list[tuple[Any, ...]] = []

    def getHandle(self) -> Port:
        return self

    def connect(self, *name: Any) -> None:
        """Of a port: address and port number; of a socket: a tuple."""
        self.did.append(name)

    def write(self, data: bytes) -> None:
        self.did.append(("write", data))

    def send(self, data: bytes) -> None:
        self.did.append(("send", data))


class ConnectedTests(SynchronousTestCase):
    def test_scope(self) -> None:
        """A link-local server is connected to with its scope, past Twisted, which drops it; others as Twisted does it."""
        loopback = socket.if_nametoindex("lo")
        for server, did in (
            (Server("fe80::1%lo", 53), [(("fe80::1", 53, 0, loopback),), ("send", b"?")]),
            (Server(f"fe80::1%{loopback}", 5353), [(("fe80::1", 5353, 0, loopback),), ("send", b"?")]),
            (Server("2001:db8::1", 53), [("2001:db8::1", 53), ("write", b"?")]),
            (Server("192.0.2.1", 53), [("192.0.2.1", 53), ("write", b"?")]),
        ):
            port = Port()
            _connected(port, server)(b"?")
            self.assertEqual(port.did, did)

    def test_no_such_interface(self) -> None:
        """A scope that is not there is an OSError, as for any server that cannot be asked."""
        self.assertRaises(OSError, _connected, Port(), Server("fe80::1%nowhere", 53))
