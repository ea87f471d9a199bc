"""Ports beside the data path: those of ordinary Twisted protocols with few connections."""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred

from cluster.address import Address
from director.listener import bind


class SidePort(Service):
    """Listens at *address* while it runs; its stop cuts every connection.

    :param factory: a factory of protocols that keeps the connected ones in ``connections``.
    :param mode: of a UNIX socket's file.
    :ivar address: as bound.
    """

    def __init__(self, name: str, address: Address, factory: Any, *, reactor: Any, mode: int = 0o600) -> None:
        self.setName(name)
        self.address = address
        self._factory = factory
        self._reactor = reactor
        self._mode = mode
        self._port: Any = None

    def startService(self) -> None:
        """Bind and listen. Raises `director.listener.BindError`."""
        sock = bind(self.address)
        try:
            self._port = self._reactor.adoptStreamPort(sock.fileno(), sock.family, self._factory)
            path = self.address.path
            if path is None:
                self.address = self.address._replace(port=sock.getsockname()[1])
            elif not path.startswith("@"):
                os.chmod(path, self._mode)  # Twisted made it everybody's
        finally:
            sock.close()  # the port has a duplicate
        super().startService()

    def stopService(self) -> Deferred[Any] | None:
        super().stopService()
        port, self._port = self._port, None
        if port is None:
            return None
        for connection in list(self._factory.connections):
            connection.transport.abortConnection()
        return maybeDeferred(port.stopListening)  # which removes a UNIX socket's file
