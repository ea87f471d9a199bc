"""Ports beside the data path: those of ordinary Twisted protocols with few connections."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from cluster.address import Address
from director.ports.binding import FileAccess
from director.ports.twisted_ports import Ports


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
        self._ports: Ports | None = None

    def startService(self) -> None:
        """Bind and listen. Raises `director.ports.binding.BindError`."""
        if self._ports is None:
            self._ports = Ports(self.address, self._factory, reactor=self._reactor, access=FileAccess(self._mode))
            self.address = self._ports.address
        super().startService()

    def stopService(self) -> Deferred[Any] | None:
        super().stopService()
        ports, self._ports = self._ports, None
        for connection in list(self._factory.connections):
            connection.transport.abortConnection()
        return ports.stopListening() if ports is not None else None
