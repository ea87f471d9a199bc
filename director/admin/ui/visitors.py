"""Who looks at a page, by the session in their cookie; and whether a form came from one of our pages."""

from __future__ import annotations

import hmac
import secrets
from typing import NamedTuple
from urllib.parse import urlsplit

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from director.admin.control import Caller
from director.admin.gate import Gate
from director.admin.ui.sessions import Sessions
from director.engine.errors import Forbidden


class SignInFirst(Exception):
    """Nobody is signed in, or not any more."""


class Visitor(NamedTuple):
    """A caller who looks at pages.

    :ivar csrf: what their forms must carry.
    :ivar session: its id; empty where no password is needed.
    """

    caller: Caller
    csrf: str
    session: str = ""


class Visitors:
    """Knows who is signed in at all endpoints.

    :param clock: of sessions.
    """

    def __init__(self, gate: Gate, *, clock: IReactorTime) -> None:
        self.gate = gate
        self._clock = clock
        self._sessions = Sessions()
        #: Where no password is needed, for everybody on this machine: pages of other sites can't read it.
        self._csrf = secrets.token_urlsafe(32)

    async def visitor(self, request: Request) -> Visitor:
        """:raises SignInFirst: nobody is signed in.
        :raises Forbidden: without users, from elsewhere than this machine."""
        if self.gate.open:
            return Visitor(await self.gate.caller(request), self._csrf)
        return self._again(_session_id(request), peer_of(request))

    def still(self, visitor: Visitor) -> bool:
        """Whether *visitor* may go on looking; that they do counts as use."""
        try:
            return bool(self._again(visitor.session, visitor.caller.origin)) if visitor.session else self.gate.open
        except SignInFirst:
            return False

    def _again(self, session_id: str, peer: str | None) -> Visitor:
        """:raises SignInFirst: the session is over, or its user is gone or has another password."""
        session = self._sessions.use(session_id, self._clock.seconds())
        if session is None:
            raise SignInFirst
        if session.stamp != self.gate.stamp(session.name):
            self._sessions.close(session.id)
            raise SignInFirst
        try:
            return Visitor(self.gate.known(session.name, peer), session.csrf, session.id)
        except UnauthorizedLogin:
            self._sessions.close(session.id)
            raise SignInFirst from None

    async def sign_in(self, request: Request, name: str, password: str) -> None:
        """Begin a session, with an id that no one has seen before.

        :raises UnauthorizedLogin: wrong credentials.
        :raises Throttled: wrong ones too often."""
        caller = await self.gate.sign_in(name.encode(), password.encode(), peer_of(request))
        self._sessions.close(_session_id(request))
        session = self._sessions.open(caller.who, self.gate.stamp(caller.who), self._clock.seconds())
        _set_cookie(request, session.id)

    def sign_out(self, request: Request) -> None:
        """End the session in the request's cookie, if any."""
        self._sessions.close(_session_id(request))
        _set_cookie(request, "", max_age="0")


def cookie_name(request: Request) -> bytes:
    """Cookies are not kept apart by port: two directors of one machine must not sign each other out. ``__Host-`` makes
    browsers refuse one that a neighbour domain, or plain http, wants to plant."""
    name = f"txdirector_{request.getHost().port}" if hasattr(request.getHost(), "port") else "txdirector"
    return (f"__Host-{name}" if request.isSecure() else name).encode()


def _session_id(request: Request) -> str:
    return (request.getCookie(cookie_name(request)) or b"").decode("latin-1")


def _set_cookie(request: Request, value: str, **more: str) -> None:
    request.addCookie(
        cookie_name(request), value, path="/", httpOnly=True, sameSite="strict", secure=request.isSecure(), **more
    )


def check_origin(request: Request) -> None:
    """:raises Forbidden: a page of another site sent this. Every browser of today tells; who sends neither header is no
    browser, and carries no cookie that it was not given."""
    site = request.getHeader("sec-fetch-site")
    origin = request.getHeader("origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    elif origin is not None:
        ours = _netloc(origin) == (request.getHeader("host") or "").lower() != ""
    else:
        ours = True
    if not ours:
        raise Forbidden("forms are not taken from other sites")


def _netloc(url: str) -> str:
    """In lower case; empty where there is none."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:  # a bracket that does not close, and the like
        return ""


def check_token(visitor: Visitor, token: str) -> None:
    """:raises Forbidden: the form is not of this session's pages."""
    if not hmac.compare_digest(token.encode(), visitor.csrf.encode()):
        raise Forbidden("this form is from an earlier session; reload the page and send it again")


def peer_of(request: Request) -> str | None:
    """The client's IP address; None for a UNIX socket."""
    return getattr(request.getClientAddress(), "host", None)
