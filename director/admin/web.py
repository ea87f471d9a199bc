"""What every page of the admin shares: who calls, security headers, and refusals as JSON.

A page is a leaf resource whose `Page.answer` is a coroutine. It runs with a known caller only; whatever it raises is
translated here, in one place.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from twisted.cred.error import LoginFailed
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from cluster.errors import OutcomeUnknown, StoreUnavailable
from director.admin.auth import Throttled
from director.admin.control import Caller
from director.admin.gate import LetsIn
from director.engine.errors import Conflict, Forbidden, Invalid, NotFound, Refused, away

HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",  # the state of this moment, and not everybody's business
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Server": "txdirector",
}

STATUS: Mapping[type[Exception], int] = {
    Invalid: 400,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Refused: 409,
    Throttled: 429,
    LoginFailed: 401,
    OutcomeUnknown: 504,
    StoreUnavailable: 503,
}


class Unread(Exception):
    """The client left before its answer was whole."""


class Page(Resource):
    """A leaf that needs a caller. Subclasses write `answer`."""

    isLeaf = True
    log = Logger()

    def __init__(self, gate: LetsIn) -> None:
        super().__init__()
        self._gate = gate

    async def answer(self, caller: Caller, request: Request) -> bytes:
        """The body; status and type are set on *request* when they are not 200 and JSON."""
        raise NotImplementedError

    def render(self, request: Request) -> int:
        dress(request)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def finish(body: bytes) -> None:
            if not gone:
                request.setHeader("Content-Length", str(len(body)))
                request.write(body)
                request.finish()

        Deferred.fromCoroutine(self._serve(request)).addCallback(finish).addErrback(
            lambda failure: self.log.failure("an answer of the admin could not be sent", failure)
        )
        return NOT_DONE_YET

    async def _serve(self, request: Request) -> bytes:
        try:
            return await self.answer(await self._gate.caller(request), request)
        except tuple(STATUS) as error:
            return refused(request, error)
        except Unread:
            return b""
        except Exception:
            self.log.failure("{method} {path} failed", method=request.method, path=request.path)
            return refusal(request, 500, "an error of the director; its log tells more")


async def pause(request: Request, clock: IReactorTime) -> None:
    """Give others a turn in the midst of a long answer.

    :raises Unread: the client has gone: what is left of the answer is nobody's.
    """
    await deferLater(clock, 0)
    if request.channel is None:
        raise Unread


def refused(request: Request, error: Exception) -> bytes:
    """The body for an *error* of `STATUS`, whose status and headers are set."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    if isinstance(error, Throttled):
        request.setHeader("Retry-After", str(int(error.wait_s) + 1))
        return refusal(request, status, str(error))
    if isinstance(error, LoginFailed):
        request.setHeader("WWW-Authenticate", 'Basic realm="txdirector", charset="UTF-8"')
        return refusal(request, status, "a user's name and password are needed")
    if isinstance(error, StoreUnavailable):
        return refusal(request, status, away(error))
    return refusal(request, status, str(error), getattr(error, "place", ""))


def dress(request: Request) -> None:
    """Set the headers that every answer has; the type is JSON until somebody says otherwise."""
    for name, value in HEADERS.items():
        request.setHeader(name, value)
    request.setHeader("Content-Type", "application/json")


def refusal(request: Request, status: int, message: str, place: str = "") -> bytes:
    """Set *status* and answer the body of an error: ``{"error": sentence}``, with the place when there is one."""
    request.setResponseCode(status)
    return msgspec.json.encode({"error": message, "place": place} if place else {"error": message})


def is_read(request: Request) -> bool:
    return request.method in (b"GET", b"HEAD")


def only_read(request: Request) -> bytes:
    """405, for a page that can only be looked at."""
    request.setHeader("Allow", "GET, HEAD")
    return refusal(request, 405, "this page can only be read")
