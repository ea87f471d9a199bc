"""One service's clients, from accept to close: the per-connection loop.

Accept → access list → admission and pick → non-blocking connect on a plain socket → both descriptors to the relay →
its events back. No Deferreds, no transports; one small object for each connection. Every accepted client is counted
under exactly one `Reason`.

A connect that fails gives the client's descriptor back, unread, and another host is tried: at most `MAX_TRIES` hosts,
each once, all under the service's one connect deadline, which the tries left share evenly, and so do the addresses of a
host's name, which are tried before the host is given up. A connect that this director could not begin, for want of a port, a
descriptor or memory, is nothing the host did: no try is counted, no strike given.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from cluster.address import Address
from cluster.model import Reason
from cluster.shortage import PORTS
from director.core.admission import Admission
from director.core.entries import HostEntry, ServiceEntry
from director.core.host import Host
from director.core.inventory import Inventory
from director.core.pool import Ticket
from director.core.proxy_protocol import Header
from director.core.seen import Tallied
from director.metrics.counters import PICK_SAMPLE, OfHosts, ServiceMetrics
from director.ports.sockets import lacked, packed_name
from director.relay.interface import Relay
from director.relay.turnarounds import HostTally
from director.resources.places import Places
from director.resources.shortages import CONNECT, Shortages
from director.traffic.connection import CONNECTING, ESTABLISHED, Closed, Connection, preface_of
from director.traffic.departures import Departures
from director.traffic.limits import TimeLimits
from director.traffic.origins import Origins
from director.traffic.peeking import Untold
from director.traffic.proxy_in import ProxyHeaders
from director.traffic.tries import MAX_ADDRESSES, MAX_TRIES, NO_PORT_S, Failing, Tries
from director.traffic.turnstile import Turnstile, turnstile_of

#: Between tries of a UNIX connect whose listener's backlog is full: the kernel tells no one when there is room again.
UNIX_RETRY_S = 0.01


class Frontend:
    """The per-connection decisions of one service.

    :param monotonic: seconds; the clock of everything here.
    :param random: uniform in [0, 1), for the jitter of the maximum age.
    :param origins: told of every connection to a host, when somebody may ask who is behind it.
    :param shortages: told of every connect that could not begin.
    :param unreached: told of a host that a connect failed to, and at which of several addresses.
    :param places: where each accepted client takes one until its end.
    :param departures: where those who wait are watched, so that who is gone does not wait.
    """

    log = Logger()
    connection = Connection  #: what each client is here

    def __init__(
        self, service: ServiceEntry, inventory: Inventory, relay: Relay, metrics: ServiceMetrics, *,
        reactor: Any, monotonic: Callable[[], float], random: Callable[[], float], on_closed: Closed | None = None,
        origins: Origins | None = None, shortages: Shortages | None = None, places: Places | None = None,
        departures: Departures | None = None,
        unreached: Callable[[HostEntry, Address | None], None] = lambda entry, address: None,
    ) -> None:
        self.service = service
        self.relay = relay
        self.open = 0  #: connections that have not ended
        self._no_port: dict[Host, float] = {}  # to be passed over until then
        self._counted = OfHosts(metrics)
        self._failing = Failing()
        self._retrying: set[Connection] = set()  # those that wait for a UNIX socket's backlog
        self._inventory = inventory
        self._metrics = metrics
        self._reactor = reactor
        self._monotonic = monotonic
        self._random = random
        self._on_closed = on_closed
        self._origins = origins
        self._departures = departures or Departures(reactor)
        self._watched = self._departures.watched
        self._places = places or Places()
        self._unreached = unreached
        self._shortages = shortages or Shortages(monotonic=monotonic)
        self._queue_timer: Any = None
        self._picks = 0
        self._headers: ProxyHeaders | None = None
        self._turnstile: Turnstile | None = None
        self._served: deque[tuple[Any, Ticket]] = deque()
        self._serving = False
        self.reconfigure()

    def reconfigure(self) -> None:
        """Take over the service's configuration as it is now; open connections keep the limits they began with."""
        self._no_port.clear()  # some of the hosts may be gone, or be reached from more addresses
        self._counted.clear()
        spec = self.service.spec
        self._admission: Admission = self.service.admission
        self._limits = TimeLimits(spec.timeouts, random=self._random)
        if self._headers is not None:
            self._headers.configure(spec.proxy)
        elif spec.proxy.accept_from:
            self._headers = ProxyHeaders(spec.proxy, reactor=self._reactor, places=self._places)
        self._send_proxy = None if spec.proxy.send == "off" else spec.proxy.send
        self._turnstile = turnstile_of(self._turnstile, self.service, self._metrics, self.connections, self._monotonic)
        self._early_bytes = max((group.health.early_reset_bytes for group in spec.groups.values()), default=0)

    # --- a client arrives

    def accepted(self, fd: int, name: bytes | None) -> None:
        """A listener's client; its address is the socket's, or a trusted proxy's word."""
        self._places.taken += 1
        if self._headers is not None and self._headers.expected_of(name):
            self._headers.read(fd, name, lambda fd, header: self._header_read(fd, name, header))
            return
        self.arrived(self.connection(self, fd, name, self._monotonic()))

    def _header_read(self, fd: int, name: bytes | None, header: Header | Untold) -> None:
        """A trusted proxy's header arrived, or did not, for a reason."""
        if isinstance(header, Header):
            self.introduced(fd, name, header)
            return
        connection = self.connection(self, fd, name, self._monotonic())
        self._metrics.accepted += 1
        self.open += 1
        if header.how == "reset":
            self._end(connection, Reason.CLIENT_RESET)
        else:
            self.log.info("{service}: no PROXY header of {peer}: {why}", service=self.service.name, peer=connection.peer,
                          why=header.why)
            self._end(connection, Reason.BAD_PROXY_HEADER)

    def introduced(self, fd: int, name: bytes | None, header: Header | None) -> None:
        """A client whose place is taken; its address is the socket's, or a trusted proxy's word."""
        connection = self.connection(self, fd, name, self._monotonic())
        if header is not None and header.source is not None and header.source.is_ip:
            connection.name = packed_name(header.source)
            connection.tail = Tries(header.destination, header.extensions)
        self.arrived(connection)

    def arrived(self, connection: Connection) -> None:
        """Deny, or go on."""
        self._metrics.accepted += 1
        self.open += 1
        if not self.service.access.allows(connection.ip):
            self._end(connection, Reason.DENIED)
        elif self._turnstile is not None and (refusal := self._turnstile.enter(connection)) is not None:
            self._end(connection, refusal)
        else:
            self.admit(connection, connection.accepted_at)

    def admit(self, connection: Connection, now: float) -> None:
        """Refuse, queue, or connect."""
        ip = connection.ip
        self._picks += 1
        if self._picks % PICK_SAMPLE:
            answer = self._admission.arrive(ip, connection, now)
        else:
            before = self._monotonic()
            answer = self._admission.arrive(ip, connection, now)
            self._metrics.pick.observe(self._monotonic() - before)
        if answer is Reason.QUEUE_FULL and self._departures.look():  # some of those who fill it may not be there any more
            answer = self._admission.arrive(ip, connection, now)
        if isinstance(answer, Ticket):
            connection.ticket = answer
            self._connect(connection, now)
        elif answer is None:
            self._departures.watch(connection.fd, lambda: self._departed(connection))
            self._watch_queue()
        else:
            self._end(connection, answer)

    # --- the queue

    def serve(self, served: list[tuple[Any, Ticket]]) -> None:
        """Clients of the queue whose turn came, with their tickets.

        A connect that fails at once serves the next in the queue: by this loop, not by recursion.
        """
        self._served.extend(served)
        if self._serving:
            return
        self._serving = True
        now = self._monotonic()
        try:
            while self._served:
                connection, ticket = self._served.popleft()
                connection.ticket = ticket
                self._metrics.queue_wait.observe(now - connection.accepted_at)
                try:
                    self._connect(connection, now)
                except Exception:  # one client's trouble must not be that of all who wait behind it
                    self.log.failure("a client of the queue was not served")
                    if not connection.handle and ticket.pool is not None:
                        self._leave(connection, Reason.RELAY_ERROR)
        finally:
            self._serving = False

    def _watch_queue(self) -> None:
        expiry = self._admission.next_expiry()
        if self._queue_timer is None and expiry is not None:
            self._queue_timer = self._reactor.callLater(max(0.0, expiry - self._monotonic()), self._expire_queue)

    def _expire_queue(self) -> None:
        self._queue_timer = None
        for waiter in self._admission.expire(self._monotonic()):
            assert isinstance(waiter, Connection)
            self._end(waiter, Reason.QUEUE_TIMEOUT)
        self._watch_queue()

    def _departed(self, connection: Connection) -> None:
        """A client that waited has gone."""
        if connection in self._retrying:
            self._retrying.discard(connection)
            self._leave(connection, Reason.CLIENT_RESET)
        elif self._admission.abandon(connection):
            self._end(connection, Reason.CLIENT_RESET)

    # --- connecting

    def _connect(self, connection: Connection, now: float) -> None:
        """Start the connect to the ticket's host. Failures of any kind come out of `_try_failed`."""
        ticket = connection.ticket
        assert ticket is not None
        host = ticket.host
        entry = self._inventory.entry_of(host)
        if entry is None or entry.target is None:
            if entry is not None and entry.unresolved:
                self._pass_over(connection, ticket, now)
            else:
                if entry is not None:
                    self._unreached(entry, None)
                self._try_failed(connection, errno.EHOSTUNREACH, entry.address_error if entry else "removed", now)
            return
        if self._no_port and now < self._no_port.get(host, now):
            self._no_port_left(connection, ticket, now)
            return
        target, ways_left = entry.target, 1
        if target.others:
            connection.tail = connection.tail or Tries()
            ways_left = connection.tail.begin(target.address, len(target.others))
        connecting = target.connect()
        if connecting >= 0:
            limits = self._limits.of_try(connection.tail, self._admission.eligible, ways_left, now)
            preface = preface_of(connection, self._send_proxy) if self._send_proxy else b""
            if self._origins is not None:
                self._origins.began(connection, connecting)
            if (fd := connection.fd) in self._watched:
                self._departures.forget(fd)
            connection.fd = CONNECTING
            tally = entry.tally or self._tally(entry)
            connection.handle = self.relay.relay(connection, fd, connecting, limits, preface, tally.number)
            return
        error = -connecting
        if error == errno.EAGAIN and target.address.is_unix and now < self._limits.deadline(connection.tail, ticket):
            self._retrying.add(connection)
            self._departures.watch(connection.fd, lambda: self._departed(connection))
            self._reactor.callLater(UNIX_RETRY_S, self._retry, connection)
        else:
            self._not_connected(connection, error, now)

    def _tally(self, entry: HostEntry) -> Tallied:
        """The host's first client: its turnarounds are counted from here on."""
        tally = HostTally(self.relay)
        self._inventory.tallied(entry, tally)
        self._metrics.host(entry.ref.group, entry.ref.host).counted = tally
        return tally

    def _retry(self, connection: Connection) -> None:
        if connection in self._retrying:
            self._retrying.discard(connection)
            self._connect(connection, self._monotonic())

    def _not_connected(self, connection: Connection, error: int, now: float) -> None:
        """A connect did not come about: the host's doing, or our own shortage."""
        ticket = connection.ticket
        assert ticket is not None
        host = ticket.host
        entry = self._inventory.entry_of(host)
        what = lacked(error, entry.target.address if entry is not None and entry.target is not None else None)
        if not what and entry is not None and self._another_address(connection, ticket, entry, now):
            self._connect(connection, now)
        elif not what:
            self._try_failed(connection, error, os.strerror(error), now)
        elif what == PORTS:  # which each host has of its own
            self._no_port[host] = now + NO_PORT_S
            self._no_port_left(connection, ticket, now)
        else:
            self._shortages.met(what, CONNECT, f"cannot connect to {host.ref}: {os.strerror(error)}")
            self._leave(connection, Reason.OUT_OF_RESOURCES)

    def _another_address(self, connection: Connection, ticket: Ticket, entry: HostEntry, now: float) -> bool:
        """Whether the host can be tried once more, at another of its addresses, now that one has failed."""
        tail = connection.tail
        self._unreached(entry, tail.address if tail is not None else None)
        if tail is None or tail.address is None or entry.target is None:
            return False
        tail.deadline = self._limits.deadline(tail, ticket)
        return now < tail.deadline and tail.addresses < min(MAX_ADDRESSES, 1 + len(entry.target.others))

    def _no_port_left(self, connection: Connection, ticket: Ticket, now: float) -> None:
        """To the ticket's host; another one has ports of its own."""
        self._shortages.met(PORTS, CONNECT, f"no port left for a connection to {ticket.host.ref}")
        self._tail_of(connection, ticket).short = True
        self._pass_over(connection, ticket, now)

    def _pass_over(self, connection: Connection, ticket: Ticket, now: float) -> None:
        """The ticket's host cannot be tried now, which is not its fault."""
        tail = self._tail_of(connection, ticket)
        if tail.may_pass_over:
            self._try_another(connection, ticket, tail, Reason.CONNECT_FAILED, now)
        else:
            self._leave(connection, Reason.OUT_OF_RESOURCES if tail.short else Reason.CONNECT_FAILED)

    def _try_failed(self, connection: Connection, error: int, why: str, now: float) -> None:
        """The host did not take the connect."""
        ticket = connection.ticket
        assert ticket is not None
        tail, host, metrics = self._tail_of(connection, ticket), ticket.host, self._counted[ticket.host]
        metrics.connect_failures += 1
        self._failing.failed(host, now)
        self._inventory.connect_failed(host, why, now, refused=error == errno.ECONNREFUSED)
        tail.failed += 1
        if now >= tail.deadline:
            self._leave(connection, Reason.CONNECT_TIMEOUT)
        elif tail.failed >= MAX_TRIES:
            self._leave(connection, Reason.CONNECT_FAILED)
        else:
            reason = Reason.CONNECT_TIMEOUT if error == errno.ETIMEDOUT else Reason.CONNECT_FAILED
            self._try_another(connection, ticket, tail, reason, now)

    def _try_another(self, connection: Connection, ticket: Ticket, tail: Tries, reason: Reason, now: float) -> None:
        """Connect to a host that was not tried; when there is none the client ends, under *reason* unless a shortage of
        our own kept it from one."""
        tail.tried += (ticket.host,)
        tail.next_host()
        reason = Reason.OUT_OF_RESOURCES if tail.short else reason
        again = self._admission.redispatch(ticket, connection.ip, reason, now, tail.tried, self._failing.hosts(now))
        connection.ticket = again
        if self._admission.queued:
            self.serve(self._admission.serve(now))
        if again is None:
            self._leave(connection, reason)
        else:
            self._metrics.retries += 1
            self._connect(connection, now)

    def _tail_of(self, connection: Connection, ticket: Ticket) -> Tries:
        """Made when a first try fails, with the deadline of all."""
        if connection.tail is None:
            connection.tail = Tries()
        connection.tail.deadline = self._limits.deadline(connection.tail, ticket)
        return connection.tail

    # --- what the relay says (RelayEvents, by way of `Router`)

    def connected(self, connection: Connection) -> None:
        ticket = connection.ticket
        assert ticket is not None
        connection.tail, connection.fd = None, ESTABLISHED
        host, now = ticket.host, self._monotonic()
        metrics = self._counted[host]
        metrics.connections += 1
        metrics.connect.observe(now - ticket.picked_at)
        self._inventory.connect_succeeded(host, ticket.picked_at, now)

    def connect_failed(self, connection: Connection, client: int, error: int) -> None:
        connection.fd, connection.handle = client, 0
        self._not_connected(connection, error, self._monotonic())

    def closed(self, connection: Connection, reason: Reason, to_host: int, to_client: int) -> None:
        ticket = connection.ticket
        assert ticket is not None
        host, inventory, now = ticket.host, self._inventory, self._monotonic()
        metrics = self._counted[host]
        metrics.to_host_bytes += to_host
        metrics.to_client_bytes += to_client
        connection.handle = 0
        if connection.fd == ESTABLISHED:
            metrics.duration.observe(now - ticket.picked_at)
            if (reason is Reason.HOST_RESET or (reason is Reason.HOST_CLOSED and to_client <= self._early_bytes)
                    or (inventory.resetting and host in inventory.resetting)):
                failed = inventory.client_ended(host, reason, to_client, now - ticket.picked_at, now)
                metrics.connect_failures += failed
        self._leave(connection, reason, to_host, to_client, now)

    # --- the end

    def _leave(self, connection: Connection, reason: Reason, to_host: int = 0, to_client: int = 0,
               now: float | None = None) -> None:
        """A client that had been admitted ends."""
        now = self._monotonic() if now is None else now
        served = self._admission.leave(connection.ticket, reason, now)
        self._end(connection, reason, to_host, to_client, now)
        if served:
            self.serve(served)

    def _end(self, connection: Connection, reason: Reason, to_host: int = 0, to_client: int = 0,
             now: float | None = None) -> None:
        """Count and forget *connection*, closing its descriptor if it is still ours."""
        if connection.fd >= 0:
            self._departures.forget(connection.fd)
            os.close(connection.fd)
            connection.fd = -1
        self.open -= 1
        self._places.leave()
        if self._turnstile is not None:
            self._turnstile.leave(connection)
        if self._origins is not None:
            self._origins.ended(connection)
        now = self._monotonic() if now is None else now
        self._metrics.ended[reason] += 1
        self._metrics.duration.observe(now - connection.accepted_at)
        if self._on_closed is not None:
            self._on_closed(connection, reason, to_host, to_client, now)

    def connections(self) -> list[Connection]:
        """All that are open: the relay's, and those that wait. Looks at every one of the relay's."""
        relayed = [token for token in self.relay.tokens() if isinstance(token, Connection) and token.frontend is self]
        waiting = [waiter for waiter in self._admission.waiters() if isinstance(waiter, Connection)]
        return [*relayed, *self._retrying, *waiting]

    def kill(self, chosen: Callable[[Connection], bool], reason: Reason) -> int:
        """End the connections that *chosen* picks; queued and connecting ones too. Returns how many."""
        doomed = [connection for connection in self.connections() if chosen(connection)]
        for connection in doomed:
            if connection.handle:
                self.relay.kill(connection.handle, reason)
            elif connection.ticket is not None:
                self._retrying.discard(connection)
                self._leave(connection, reason)
            elif self._admission.abandon(connection):
                self._end(connection, reason)
        return len(doomed)

    def stop(self) -> None:
        """No timer and no half-read header is left behind; the relay ends what it has."""
        if self._headers is not None:
            self._headers.stop()
        if self._queue_timer is not None:
            self._queue_timer.cancel()
            self._queue_timer = None
