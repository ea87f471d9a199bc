"""What is let in before any page sees it: how many connections, and how much of a request's body.

A body of up to `FREE_BODY_BYTES` is taken from anybody: forms and reports fit, and have credentials within. A larger one
is for the `LARGE` pages only, and read once its sender's credentials were checked, up to `MAX_BODY_BYTES`. What is
refused here is refused for good: one answer is sent, nothing after it on the connection is looked at, and no page ever
sees the request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from io import BytesIO
from typing import Any
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as Counted
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from cluster.lines import MAX_LINE_BYTES
from cluster.store import MAX_VALUE_BYTES
from director.admin.auth import network_of
from director.admin.gate import LetsIn
from director.admin.web import STATUS, dress, refusal, refused

#: A whole service, which the store takes up to this size; it has thousands of hosts then.
MAX_BODY_BYTES = MAX_VALUE_BYTES
#: Taken from strangers: an agent's report, whose token is within, and every form. A byte more, which the report's own
#: page refuses in its own words.
FREE_BODY_BYTES = MAX_LINE_BYTES + 1
#: Where larger bodies go; basic authentication is in their head.
LARGE = (b"/api/", b"/RPC2")
#: An idle keep-alive connection, the head of a request, and its body: each has as long. Longer than the usual scrape
#: interval would keep strangers' connections for nothing.
IDLE_S = 60
#: What a refused client still sends is thrown away for so long; closing at once would reset the connection, and the
#: client might never read why.
LINGER_S = 2
#: Digits of a declared length; more are no length of anything.
MAX_LENGTH_DIGITS = 18
#: Between two lines in the log about connections that were turned away.
SAY_S = 60.0


class Intake:
    """How many connections there are, in all and by client address. Those by UNIX sockets, whose files have a mode, are
    not counted.

    :param most: at once.
    :param most_of_address: at once of one IPv4 address, or of one /64 of IPv6.
    :param port: what the connections are to, in the names of their metrics.
    """

    log = Logger()

    def __init__(self, most: int, most_of_address: int, registry: CollectorRegistry, *, clock: Any,
                 port: str = "admin") -> None:
        self._most = most
        self._most_of_address = most_of_address
        self._clock = clock
        self._of: Counter[str] = Counter()
        self._said_at = float("-inf")
        self._port = port
        Gauge(f"txdirector_{port}_connections", f"Open connections of the {port}, those by UNIX sockets left out.",
              registry=registry).set_function(self._of.total)
        self._refused = Counted(f"txdirector_{port}_refused_connections", f"Connections of the {port} turned away, by the "
                                "maximum that was reached: all, address.", ["maximum"], registry=registry)

    def admits(self, address: str | None) -> bool:
        """Whether one more from *address* is let in, and so counted; None: by a UNIX socket."""
        if address is None:
            return True
        network = network_of(address)
        if (all_taken := self._of.total() >= self._most) or self._of[network] >= self._most_of_address:
            self._refused.labels("all" if all_taken else "address").inc()
            self._say("all" if all_taken else network)
            return False
        self._of[network] += 1
        return True

    def left(self, address: str | None) -> None:
        """One that was admitted is gone."""
        if address is not None:
            network = network_of(address)
            self._of[network] -= 1
            self._of += Counter()  # drops what is 0

    def _say(self, whose: str) -> None:
        now = self._clock.seconds()
        if now - self._said_at >= SAY_S:
            self._said_at = now
            self.log.warn("the {port} turns connections away: {whose} has as many as it may "
                          "(txdirector_{port}_refused_connections_total counts them)", port=self._port, whose=whose)


class AdminRequest(Request):
    """A request whose body is taken as the module says."""

    log = Logger()
    channel: Any  #: an `AdminChannel`; None once the connection is lost

    _taken = 0
    _checking = False  #: credentials are being looked at; nothing is read meanwhile
    _checked = False
    _expects = False  #: waits to be told to go on
    _received: tuple[bytes, bytes, bytes] | None = None  #: all of it came while credentials were being looked at

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()  # Twisted would take a temporary file for a body of undeclared length
        if length is not None:
            self._wants(length)

    def handleContentChunk(self, data: bytes) -> None:
        self._taken += len(data)
        self._wants(self._taken)
        if not self.channel.refused:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._checking:
            self._received = command, path, version
        else:
            super().requestReceived(command, path, version)

    def getHeader(self, key: Any) -> Any:
        """The last value of a header. Twisted's own raises an error for one that is no UTF-8."""
        if isinstance(key, bytes):
            return super().getHeader(key)
        value = super().getHeader(key.encode())
        return None if value is None else value.decode("utf-8", "replace")

    def _wants(self, size: int) -> None:
        """The body is at least of *size*."""
        if self.channel.refused:
            return
        if size > (MAX_BODY_BYTES if self.channel.may_be_large() else FREE_BODY_BYTES):
            dress(self)
            self._refuse(refusal(self, 413, "the body is larger than any operation needs"))
        elif size > FREE_BODY_BYTES and not (self._checking or self._checked):
            self._checking = True
            self._expects = self.requestHeaders.hasHeader("expect")
            self.requestHeaders.removeHeader("expect")  # else the channel says "go on" at once
            self.channel.hold()
            Deferred.fromCoroutine(self._check()).addErrback(
                lambda failure: self.log.failure("a body of the admin could not be taken", failure)
            )

    async def _check(self) -> None:
        dress(self)
        why = b""
        try:
            await self.channel.site.gate.caller(self)
        except tuple(STATUS) as error:
            why = refused(self, error)
        except Exception:
            self.log.failure("credentials could not be checked")
            why = refusal(self, 500, "an error of the director; its log tells more")
        self._checking, self._checked = False, True
        if self.channel is None or self.channel.refused:
            return  # the client is gone, or is being answered
        if why:
            self._refuse(why)
        elif self._received is not None:
            super().requestReceived(*self._received)
        else:
            self.channel.go_on(say=self._expects)

    def _refuse(self, body: bytes) -> None:
        self.requestHeaders.removeHeader("expect")
        self.clientproto = b"HTTP/1.1"
        self.setHeader("Connection", "close")
        self.setHeader("Content-Length", str(len(body)))
        self.write(body)
        self.channel.refuse()


class AdminChannel(HTTPChannel):
    """A connection.

    :ivar refused: it was answered for the last time; what still comes is thrown away.
    """

    refused = False
    site: AdminSite
    transport: Any

    def may_be_large(self) -> bool:
        """Whether the request under way is for one of the `LARGE` pages."""
        path: bytes = self._path.partition(b"?")[0]
        return path.startswith(LARGE) and path not in self.site.exact

    def hold(self) -> None:
        """Read no more, until `go_on`."""
        self.transport.pauseProducing()

    def go_on(self, *, say: bool) -> None:
        """:param say: to the client, which waits for it."""
        if say:
            self._send100Continue()
        self.transport.resumeProducing()

    def retire(self) -> None:
        """Another process answers from now on; what was asked already is answered still."""
        self.persistent = False
        if not self.requests:
            self.transport.loseConnection()

    def refuse(self) -> None:
        self.refused = True
        self.setTimeout(LINGER_S)
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        if not self.refused:
            LineReceiver.dataReceived(self, data)  # HTTPChannel's own lets a client take for ever, byte by byte

    def lineReceived(self, line: bytes) -> None:
        if not self.refused:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and len(value.strip()) > MAX_LENGTH_DIGITS:
            self._respondToBadRequestAndDisconnect()
            return False
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        self.resetTimeout()
        super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        if not self.refused:
            super().allContentReceived()

    def _respondToBadRequestAndDisconnect(self) -> None:
        if not self.refused:
            self.refused = True
            super()._respondToBadRequestAndDisconnect()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.intake.left(self.site.address_of(self.getPeer()))
        super().connectionLost(reason)


class AdminSite(Site):
    """Twisted's site with our channels. It logs no line for each request: changes are in the audit, reads are nobody's
    news.

    :param exact: paths of pages that authenticate their callers themselves, by the body.
    """

    noisy = False
    displayTracebacks = False
    protocol: Any = AdminChannel  # without Twisted's switch to HTTP/2

    def __init__(self, root: Resource, gate: LetsIn, intake: Intake, *, exact: Container[bytes], reactor: Any) -> None:
        super().__init__(
            root, requestFactory=AdminRequest, timeout=IDLE_S, parsePOSTFormSubmission=False, reactor=reactor
        )
        self.gate = gate
        self.intake = intake
        self.exact = exact
        self._channels: WeakSet[Any] = WeakSet()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if not self.intake.admits(self.address_of(addr)):
            return None
        channel = super().buildProtocol(addr)
        self._channels.add(channel)
        return channel

    def retire(self) -> None:
        """Close each connection once what was asked there is answered."""
        for channel in list(self._channels):
            channel.retire()

    @staticmethod
    def address_of(peer: Any) -> str | None:
        return getattr(peer, "host", None)

    def log(self, request: Any) -> None: ...
