"""The addresses where agents connect, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from cluster.address import Address, parse_address
from cluster.errors import ConfigError, Problem
from cluster.model import AgentListeners
from director.ports.binding import FileAccess
from director.ports.tls import ServerTLS
from director.ports.twisted_ports import Ports

if TYPE_CHECKING:
    from director.reports.agents import AgentListener

#: Accepted for each handshake that the rate allows: out of the kernel's queue, where a flood would hide the others, into
#: its address's line, which costs a tenth of a handshake. And in one go before that applies.
ACCEPTS_PER_HANDSHAKE = 8.0
ACCEPT_BURST = 1_000.0
#: Only the owner and the group may connect: whoever can, may speak for hosts.
UNIX_MODE = 0o660


class AgentFactory(Factory[Protocol]):
    noisy = False

    def __init__(self, listener: AgentListener, port: AgentPort) -> None:
        self._listener = listener
        self._port = port

    def buildProtocol(self, addr: Any) -> Protocol | None:
        self._port.accepted()
        return self._listener.admit()


class AgentPort(Service):
    """One address for agents. Its start raises `director.ports.binding.BindError`."""

    def __init__(self, listener: AgentListener, address: Address, options: ServerTLS | None) -> None:
        self.name = str(address)
        self._listener = listener
        self._address = address
        self._options = None if address.is_unix else options
        self._ports: Ports | None = None
        self._resume: Any = None

    @property
    def address(self) -> Address:
        """As bound."""
        return self._address if self._ports is None else self._ports.address

    def factory(self) -> AgentFactory:
        """Of the connections that are accepted here."""
        return AgentFactory(self._listener, self)

    def startService(self) -> None:
        if self._ports is None:
            self._ports = Ports(
                self._address, self.factory(), reactor=self._listener.reactor, tls=self._options,
                access=FileAccess(UNIX_MODE),
            )
        super().startService()

    def accepted(self) -> None:
        """One more; beyond the rate, the others wait in the kernel's queue."""
        wait = self._listener.accepts.spend(self._listener.monotonic())
        if wait > 0 and self._ports is not None and self._resume is None:
            self._ports.pauseProducing()
            self._resume = self._listener.reactor.callLater(wait, self._accept_again)

    def _accept_again(self) -> None:
        self._resume = None
        if self._ports is not None:
            self._ports.resumeProducing()

    def stopService(self) -> Deferred[Any] | None:
        super().stopService()
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        ports, self._ports = self._ports, None
        return ports.stopListening() if ports is not None else None


def checked_addresses(config: AgentListeners) -> list[Address]:
    """Where to listen. Raises ConfigError for what must not be."""
    problems, addresses = [], []
    for index, text in enumerate(config.listen):
        place = f"node.agents.listen[{index}]"
        try:
            address = parse_address(text, any_port=True)
        except ValueError as error:
            problems.append(Problem(place, str(error)))
            continue
        addresses.append(address)
        if address.is_loopback:
            continue
        if config.tls is None and not config.insecure:
            problems.append(Problem(place, f"{text} is beyond this machine and has no TLS",
                                    "give node.agents.tls, or insecure = true"))
        if not config.identities:
            problems.append(Problem(place, f"{text} is beyond this machine and no identities are configured",
                                    "without identities any agent may speak for any host"))
    if problems:
        raise ConfigError(problems)
    return addresses
