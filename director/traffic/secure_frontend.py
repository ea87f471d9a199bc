"""The clients of a service with TLS: after the access list, and before they are admitted, they shake hands.

So whoever cannot speak TLS takes no host's place, and what the handshake tells is known when a host is picked. Connections
are moved by the relay that knows TLS.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.logger import Logger

from cluster.address import parse_address
from cluster.errors import ConfigError
from cluster.model import Reason, ServiceTLS
from cluster.renewal import LOOK_S, Renewed
from cluster.validate import join
from director.core.tls_extensions import with_tls
from director.timing.seldom import Seldom, more
from director.tls.contexts import ServerContexts, server_contexts, spoken
from director.tls.dialling import Contexts, Dialling, Unfit
from director.tls.handshakes import Handshakes, Shaken
from director.traffic.connection import Connection
from director.traffic.frontend import Frontend
from director.traffic.tries import Tries

#: Of a first request, behind a handshake that the client thinks is over.
UNREAD_BYTES = 65_536

_REASONS = {"badly": Reason.BAD_HANDSHAKE, "gone": Reason.CLIENT_RESET, "late": Reason.HANDSHAKE_TIMEOUT}


class SecureConnection(Connection):
    """A client of a service with TLS."""

    __slots__ = ("client_tls", "host_tls", "trouble")

    def __init__(self, frontend: Frontend, fd: int, name: bytes | None, now: float) -> None:
        super().__init__(frontend, fd, name, now)
        self.client_tls: SSL.Connection | None = None
        self.host_tls: Dialling | None = None
        self.trouble = ""  #: why TLS with the host that was tried last did not come about

    def host_refused(self, why: str) -> None:
        """See `director.relay.tls_relay.Secured`."""
        self.trouble = why


class SecureFrontend(Frontend):
    """A `Frontend` with TLS; *relay* is to be one that knows `director.relay.tls_relay.Secured`.

    Its certificates are on this machine, its configuration may be the cluster's: where they cannot be read, clients are
    closed until they can be.
    """

    connection = SecureConnection

    def __init__(self, *arguments: Any, reactor: Any, monotonic: Callable[[], float], **more: Any) -> None:
        self._handshakes = Handshakes(reactor=reactor, monotonic=monotonic)
        self._shaking: dict[SecureConnection, None] = {}
        self._files = _Files()
        self._hosts = Contexts("clients are closed")
        self._some_hosts = False  # speak TLS
        super().__init__(*arguments, reactor=reactor, monotonic=monotonic, **more)

    def reconfigure(self) -> None:
        super().reconfigure()
        if self.service.spec.tls is not None:
            self._handshakes.start()
        self._metrics.count_handshakes(None if self.service.spec.tls is None else self._handshakes.__len__)
        to_hosts = [group.tls for group in self.service.spec.groups.values() if group.tls is not None]
        self._hosts.keep(to_hosts)
        self._some_hosts = bool(to_hosts)
        self._files.configure(self.service.spec.tls, join("services", self.service.name, "tls"), self._monotonic())

    @property
    def certificates(self) -> tuple[Renewed[Any], ...]:
        """What watches over them."""
        return (*self._files.watched, *self._hosts.watched)

    def admit(self, connection: Connection, now: float) -> None:
        """Shake hands first."""
        assert isinstance(connection, SecureConnection)
        spec, contexts = self.service.spec.tls, self._files.contexts(now)
        if spec is None:
            super().admit(connection, now)
            return
        if contexts is None:
            self._end(connection, Reason.BAD_HANDSHAKE)
            return
        tls = connection.client_tls = contexts.connection(connection.fd)
        self._shaking[connection] = None
        try:
            self._handshakes.begin(connection.fd, tls, lambda shaken: self._shaken(connection, shaken),
                                   timeout_s=spec.handshake_s, most=spec.max_handshakes)
        except OSError:  # ENOMEM, ENOSPC (max_user_watches)
            del self._shaking[connection]
            self._end(connection, Reason.OUT_OF_RESOURCES)

    def _shaken(self, connection: SecureConnection, shaken: Shaken) -> None:
        del self._shaking[connection]
        if shaken.how == "well":
            if self._send_proxy == "v2" and connection.client_tls is not None:
                tail = connection.tail = connection.tail or Tries()
                tail.extensions = with_tls(tail.extensions, spoken(connection.client_tls))
            super().admit(connection, self._monotonic())
            return
        if shaken.how == "badly":
            with contextlib.suppress(OSError):  # what is left unread makes the kernel reset, which may overtake our alert
                os.read(connection.fd, UNREAD_BYTES)
        self._end(connection, _REASONS[shaken.how])
        if shaken.how == "badly" and (held := self._files.seldom.due(shaken.why)) is not None:
            self.log.info("{service}: no TLS with {peer}: {why}{more}", service=self.service.name, peer=connection.peer,
                          why=shaken.why, more=more(held))

    def _connect(self, connection: Connection, now: float) -> None:
        assert isinstance(connection, SecureConnection) and connection.ticket is not None
        connection.host_tls, connection.trouble = None, ""
        if not self._some_hosts:
            super()._connect(connection, now)
            return
        ref = connection.ticket.host.ref
        entry, group = self._inventory.hosts.get(ref), self.service.spec.groups.get(ref.group)
        spec = None if group is None else group.tls
        if spec is not None and entry is not None:
            agreed = b"" if connection.client_tls is None else connection.client_tls.get_alpn_proto_negotiated()
            try:
                context = self._hosts.context(spec, join("services", ref.service, "groups", ref.group, "tls"))
            except Unfit:
                self._leave(connection, Reason.OUT_OF_RESOURCES)
                return
            name = spec.server_name or parse_address(entry.spec.address).host
            connection.host_tls = Dialling(context, name, verified=spec.verify, offered=agreed)
        super()._connect(connection, now)

    def _try_failed(self, connection: Connection, error: int, why: str, now: float) -> None:
        assert isinstance(connection, SecureConnection)
        super()._try_failed(connection, error, connection.trouble or why, now)

    def connections(self) -> list[Connection]:
        return [*super().connections(), *self._shaking]

    def kill(self, chosen: Callable[[Connection], bool], reason: Reason) -> int:
        doomed = [connection for connection in self._shaking if chosen(connection)]
        for connection in doomed:
            self._give_up(connection, reason)
        return len(doomed) + super().kill(chosen, reason)

    def _give_up(self, connection: SecureConnection, reason: Reason) -> None:
        del self._shaking[connection]
        self._handshakes.abandon(connection.fd)
        self._end(connection, reason)

    def stop(self) -> None:
        for connection in list(self._shaking):
            self._give_up(connection, Reason.SHUTDOWN)
        self._handshakes.stop()
        super().stop()


class _Files:
    """The certificates of one service, once they could be read."""

    log = Logger()

    def __init__(self) -> None:
        self.seldom = Seldom()
        self._spec: ServiceTLS | None = None
        self._place = ""
        self._renewed: Renewed[ServerContexts] | None = None
        self._retry_at = 0.0

    @property
    def watched(self) -> tuple[Renewed[ServerContexts], ...]:
        return () if self._renewed is None else (self._renewed,)

    def configure(self, spec: ServiceTLS | None, place: str, now: float) -> None:
        """What was read before stays until what *spec* names can be."""
        if spec != self._spec:
            self._spec, self._place = spec, place
            self._read(now)

    def contexts(self, now: float) -> ServerContexts | None:
        """None: there is nothing to serve with."""
        if now >= self._retry_at:
            self._read(now)
        return None if self._renewed is None else self._renewed.current()

    def _read(self, now: float) -> None:
        self._retry_at = float("inf")
        if self._spec is None:
            self._renewed = None
            return
        try:
            self._renewed = server_contexts(self._spec, place=self._place)
        except ConfigError as error:
            self._retry_at = now + LOOK_S
            if (held := self.seldom.due("files")) is not None:
                left = "clients are closed" if self._renewed is None else "what was read before stays in use"
                self.log.error("{why}; {left}{more}", why="; ".join(map(str, error.problems)), left=left, more=more(held))
