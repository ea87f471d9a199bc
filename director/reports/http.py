"""Load reports by HTTP POST, for scripts: the same decisions as for connected agents.

The resource checks the token in the body by itself, so it is mounted outside the admin's own authentication.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import msgspec
from twisted.internet.address import UNIXAddress
from twisted.web.resource import Resource
from twisted.web.server import Request

from cluster.wire import MAX_LINE_BYTES, RemoteProtocolError, parse_post
from director.reports.roster import PeerFacts, Reject, Roster

_STATUS = {
    Reject.MALFORMED: 400,
    Reject.UNAUTHENTICATED: 401,
    Reject.REPLAYED: 409,
    Reject.STALE: 409,
    Reject.STALE_BOOT: 409,
    Reject.OVERSIZED: 413,
    Reject.TOO_FAST: 429,
}


class ReportResource(Resource):
    """``POST /api/v1/report``.

    200 with ``{"accepted": n, "dropped": {host: reason}}``, or an error's status with ``{"error": reason}``.

    :param rejected: counts a body that could not be parsed; the roster counts the rest.
    """

    isLeaf = True

    def __init__(self, roster: Roster, rejected: Callable[[str], None], *, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._roster = roster
        self._rejected = rejected
        self._monotonic = monotonic

    def render(self, request: Request) -> bytes:
        if request.method != b"POST":
            request.setHeader("Allow", "POST")
            return _answer(request, 405, {"error": "method", "detail": "reports are sent by POST"})
        assert request.content is not None
        try:
            post = parse_post(request.content.read(MAX_LINE_BYTES + 1))
        except RemoteProtocolError as error:
            self._rejected(error.reason)
            return _answer(request, _STATUS[Reject(error.reason)], {"error": error.reason, "detail": str(error)})
        answer = self._roster.post(post, _evidence(request), self._monotonic())
        if answer.refused is not None:
            return _answer(request, _STATUS[answer.refused], {"error": answer.refused})
        return _answer(request, 200, {"accepted": answer.accepted, "dropped": answer.dropped})


def _evidence(request: Request) -> PeerFacts:
    peer = request.getClientAddress()
    ip = getattr(peer, "host", "")
    try:
        local = ipaddress.ip_address(ip.partition("%")[0]).is_loopback
    except ValueError:
        local = isinstance(peer, UNIXAddress)
    return PeerFacts(ip or "unix", ip, local)


def _answer(request: Request, status: int, body: dict[str, object]) -> bytes:
    request.setResponseCode(status)
    request.setHeader("content-type", "application/json")
    return msgspec.json.encode(body) + b"\n"
