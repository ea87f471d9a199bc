"""One HTTP POST, of which only the status counts: a connection of its own, at most so much read, no redirects."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from cluster.web import Url

#: What may come before and in the status line of the answer; informational ones with their headers fit.
MAX_HEAD_BYTES = 16_384

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")


def request(url: Url, body: bytes, token: str | None) -> bytes:
    """All of it.

    :param token: of the header ``Authorization``.
    """
    lines = [f"POST {url.target} HTTP/1.1", f"Host: {url.authority}", "User-Agent: txdirector", "Connection: close",
             "Content-Type: application/json", f"Content-Length: {len(body)}"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class PostFailed(Exception):
    """The answer is none; says why."""


class Posted(Protocol):
    """Sends a request and reads as far as the status.

    :ivar status: fires with it; fails with `PostFailed` or with why the connection broke. Cancelling it cuts the connection.
    """

    transport: Any

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._head = b""
        self.status: Deferred[int] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self.status.called:
            return
        self._head += data
        try:
            found = status_in(self._head)
        except PostFailed as error:
            self._over(error)
        else:
            if found is not None:
                self._over(found)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.status.called:
            self.status.errback(PostFailed(f"no answer: {reason.getErrorMessage()}"))

    def _over(self, outcome: int | PostFailed) -> None:
        self.transport.abortConnection()  # what the body says does not matter
        if isinstance(outcome, int):
            self.status.callback(outcome)
        else:
            self.status.errback(outcome)


def status_in(head: bytes) -> int | None:
    """The final status of an answer that begins with *head*; None: it is not told yet.

    :raises PostFailed: it is no such answer.
    """
    rest = head
    while found := _STATUS_LINE.match(rest):
        if found[1] >= b"200":
            return int(found[1])
        end = _HEADERS_END.search(rest, found.end() - 2)
        if end is None:
            break
        rest = rest[end.end() :]
    if len(head) > MAX_HEAD_BYTES:
        raise PostFailed(f"no status in the first {MAX_HEAD_BYTES} bytes of the answer")
    if found is None and (b"\n" in rest or not b"HTTP/1.".startswith(rest[:7])):
        raise PostFailed("the answer is not HTTP")
    return None


async def post(url: Url, body: bytes, *, token: str | None, addresses: tuple[str, ...], trust: Any, timeout_s: float,
               reactor: Any) -> int:
    """The status of the answer.

    :param addresses: of the URL's host; the first is connected to.
    :param trust: whose certificates are believed, for https.
    :raises Exception: there is none, for many reasons.
    """
    kind = TCP6ClientEndpoint if ":" in addresses[0] else TCP4ClientEndpoint
    endpoint: Any = kind(reactor, addresses[0], url.port, timeout=timeout_s)
    if url.secure:
        endpoint = wrapClientTLS(ssl.optionsForClientTLS(url.host, trustRoot=trust), endpoint)
    posted: Posted = await connectProtocol(endpoint, Posted(request(url, body, token)))
    return await posted.status
