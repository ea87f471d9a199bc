"""Which addresses this director listens on for its services' clients, and which it could not get.

Services share an address where all but one of them have server names: then it is one listener, whose clients a `SniRouter`
gives to them. Any other is given straight to its service's frontend.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from cluster.address import Address, parse_address
from cluster.model import Service
from director.core.server_names import leader_of, may_share
from director.metrics.hellos import Hellos
from director.ports.binding import OURS, BindError, FileAccess, bind, remove
from director.ports.sockets import inherited_options
from director.resources.places import Places
from director.resources.shortages import Shortages
from director.traffic.frontend import Frontend
from director.traffic.listener import Listener, Listeners
from director.traffic.sni_router import SniRouter


class Listening(MultiService):
    """Children: a `Listeners` for each address that services have.

    :param virtual: addresses that another director may have now.
    :param places: as a `Listener`'s.
    :param shortages: as a `Listener`'s.
    :param hellos: of listeners that are shared.
    :ivar errors: by service and address; tried again by `retry`.
    """

    log = Logger()

    def __init__(self, virtual: Iterable[IPv4Address | IPv6Address], *, reactor: Any, places: Places,
                 shortages: Shortages, hellos: Hellos) -> None:
        super().__init__()
        self.setName("listening")
        self.errors: dict[tuple[str, str], BindError] = {}
        self._virtual = frozenset(virtual)
        self._everybody = False  # is turned away
        self._reactor = reactor
        self._places = places
        self._shortages = shortages
        self._hellos = hellos
        self._listeners: dict[tuple[str, str], Listeners] = {}  # several services may have the same
        self._routers: dict[Listeners, SniRouter] = {}  # of those that are or were shared
        self._frontends: dict[str, Frontend] = {}
        self._reserved: dict[tuple[str, str], list[socket.socket]] = {}
        self._ended = False

    def addresses(self, service: str) -> tuple[str, ...]:
        """A service's addresses as bound."""
        return tuple(map(str, self.at(service)))

    def at(self, service: str) -> Iterator[Address]:
        """As `addresses`."""
        return (listener.address for (name, _), listener in self._listeners.items() if name == service)

    def queues(self) -> Iterator[tuple[str, str, int, int]]:
        """Of each listener over TCP: its service, its address, clients that wait to be accepted, how many may."""
        for listeners in dict.fromkeys(self._listeners.values()):
            service = leader_of(self._services_at(listeners))
            for listener in listeners:
                if isinstance(listener, Listener) and (queue := listener.queue) is not None:
                    yield service, str(listener.address), *queue

    def apply(self, service: str, frontend: Frontend, spec: Service) -> None:
        """Listen where *spec* says, and nowhere else; an address that can't be had is logged, and tried again later."""
        self._frontends[service] = frontend
        self._close(service, keep=spec.listen)
        for text in spec.listen:
            self._open(service, text)
        for listener in {each for (name, _), each in self._listeners.items() if name == service}:
            self._settle(listener)

    def drop(self, service: str) -> None:
        """Listen for *service* no more."""
        self._frontends.pop(service, None)
        self._close(service, keep=())

    def retry(self) -> set[str]:
        """Try again what could not be had; answers the services that listen at more addresses now."""
        missing = set(self.errors)
        for service, text in missing:
            self._open(service, text)
        return {service for service, _ in missing - self.errors.keys()}

    def turn_away(self, at: Collection[IPv4Address | IPv6Address] | None = None) -> None:
        """See `Listener.turn_away`. Once everybody is turned away that stays so."""
        self._everybody = self._everybody or at is None
        for listener in set(self._listeners.values()):
            listener.turn_away(None if self._everybody else at)

    async def end(self) -> None:
        """Accept nobody any more, for good; those whose service is not known yet may go on until `cut`."""
        self._ended = True
        for listener in set(self._listeners.values()):
            await maybeDeferred(listener.disownServiceParent)
        self._listeners.clear()

    @property
    def waiting(self) -> int:
        """Clients whose service is not known yet."""
        return sum(router.waiting for router in self._routers.values())

    def cut(self) -> None:
        """Close them."""
        for router in self._routers.values():
            router.stop()

    # --- addresses that a service is about to get

    def reserve(self, service: str, listen: tuple[str, ...], access: FileAccess = OURS) -> None:
        """Listen on addresses that *service* is about to get, so that having them is certain before it is configured.

        What the `apply` that follows has not taken over is given back by `release`. An address that clashes with one of
        the service's own is left to `apply`, which gives up the old ones first; one of another service's is to be shared.

        :raises BindError: one cannot be had; none was taken.
        """
        ports = {listener.address.port for (name, _), listener in self._listeners.items() if name == service}
        for text in listen:
            address = parse_address(text, any_port=True)
            shared = any(listener.address == address for (name, _), listener in self._listeners.items() if name != service)
            if (service, text) in self._reserved or shared or (not address.is_unix and address.port in ports):
                continue
            try:
                self._reserved[service, text] = bind(address, absent=self._is_virtual(address), access=access)
            except BindError:
                self.release(service)
                raise

    def release(self, service: str) -> None:
        """Give back what was reserved for *service* and not used."""
        for key in [key for key in self._reserved if key[0] == service]:
            remove(parse_address(key[1], any_port=True))
            for sock in self._reserved.pop(key):
                sock.close()

    # --- inside

    def _is_virtual(self, address: Address) -> bool:
        """Whether another director may have it now."""
        return address.is_ip and ip_address(address.host) in self._virtual

    def _open(self, service: str, text: str) -> None:
        if (service, text) in self._listeners or self._ended:
            return
        address, frontend = parse_address(text, any_port=True), self._frontends[service]
        listener = self._shared(service, address)
        if listener is None:
            spec = frontend.service.spec
            listener = Listeners(
                address, frontend, reactor=self._reactor, absent=self._is_virtual(address),
                sockets=self._reserved.pop((service, text), ()), access=file_access(spec),
                options=inherited_options(spec.keepalive), places=self._places, shortages=self._shortages,
            )
            listener.setName(f"listener {service} {text}")  # the address alone may not be unique: port 0
            try:
                listener.open()
            except BindError as error:
                if (service, text) not in self.errors:
                    self.log.error("{service}: {why}", service=service, why=str(error))
                self.errors[service, text] = error
                return
            listener.setServiceParent(self)
        self.errors.pop((service, text), None)
        self._listeners[service, text] = listener
        self._settle(listener)
        self.log.info("{service} listens on {address}", service=service, address=str(listener.address))

    def _shared(self, service: str, address: Address) -> Listeners | None:
        """Another service's listener at *address* that *service* may share."""
        for (name, _), listener in self._listeners.items():
            if name != service and listener.address == address:
                services = {**self._services_at(listener), service: self._frontends[service].service.spec}
                return listener if may_share(services) else None
        return None

    def _services_at(self, listener: Listeners) -> dict[str, Service]:
        return {name: frontend.service.spec for name, frontend in self._frontends_at(listener).items()}

    def _frontends_at(self, listener: Listeners) -> dict[str, Frontend]:
        return {name: self._frontends[name] for (name, _), each in self._listeners.items() if each is listener}

    def _settle(self, listener: Listeners) -> None:
        """Its clients go to its services, as these are configured now."""
        frontends, services = self._frontends_at(listener), self._services_at(listener)
        leader = leader_of(services)
        router = self._routers.get(listener)
        if router is not None:
            router.share(frontends)  # some of its clients may not have said where they want to go
        elif len(services) > 1 or services[leader].sni is not None:
            router = self._routers[listener] = SniRouter(listener.address, frontends, reactor=self._reactor,
                                                         places=self._places, hellos=self._hellos)
        alone = len(services) == 1 and services[leader].sni is None
        if alone or router is None:
            listener.give_to(frontends[leader], speaking=services[leader].tls is not None)
        else:
            listener.give_to(router, speaking=True)
        try:
            listener.set_options(inherited_options(services[leader].keepalive))
            listener.set_access(file_access(services[leader]))
        except BindError as error:
            self.log.error("{service}: {why}", service=leader, why=str(error))

    def _close(self, service: str, keep: tuple[str, ...]) -> None:
        for key in [key for key in self._listeners if key[0] == service and key[1] not in keep]:
            listener = self._listeners.pop(key)
            if self._frontends_at(listener):
                self._settle(listener)
                continue
            listener.disownServiceParent()
            if (router := self._routers.pop(listener, None)) is not None:
                router.stop()
                self._hellos.forget(str(listener.address))
        for key in [key for key in self.errors if key[0] == service and key[1] not in keep]:
            del self.errors[key]


def file_access(spec: Service) -> FileAccess:
    """Of a service's UNIX sockets."""
    return FileAccess(int(spec.unix.mode, 8), spec.unix.owner, spec.unix.group)
