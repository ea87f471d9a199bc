"""Lets callers in: by the headers of their requests, or by a form's name and password."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from cluster.model import User
from director.admin.auth import AddressedPassword, CallerRealm, Foreign, ICaller, InThread, PasswordChecker, local_caller
from director.admin.control import Caller, Role
from director.engine.errors import Forbidden


class LetsIn(Protocol):
    """Who a request comes from, as far as a page needs to know."""

    async def caller(self, request: Request) -> Caller:
        """:raises Exception: one of `director.admin.web.STATUS`: nobody who is let in."""


class Gate:
    """By basic authentication through a `Portal`; where there never were users, everyone on this machine.

    :param users: those of now.
    :param required: whether a password is needed though there are no users now; see `UserBook`.
    :param credentials: another authority; see `Foreign`. With one the gate is never open.

    The rest: see `PasswordChecker`.
    """

    def __init__(
        self, users: Callable[[], Mapping[str, User]], required: Callable[[], bool], *, clock: IReactorTime,
        in_thread: InThread, credentials: Foreign | None = None,
    ) -> None:
        self._users = users
        self._required = required
        self._foreign = credentials
        checker = PasswordChecker(users, clock=clock, in_thread=in_thread, foreign=credentials)
        self._portal = Portal(CallerRealm(self._role), [checker])

    def _role(self, name: str) -> Role | None:
        user = self._users().get(name)
        if user is not None:
            return Role(user.role)
        return self._foreign.role if self._foreign is not None else None

    async def caller(self, request: Request) -> Caller:
        """:raises UnauthorizedLogin: no, or wrong, credentials.
        :raises Throttled: wrong ones too often.
        :raises Forbidden: without users, from elsewhere than this machine."""
        peer = getattr(request.getClientAddress(), "host", None)
        if self.open:
            caller = local_caller(peer, request.getRequestHostname() if peer is not None else b"")
            if caller is None:
                raise Forbidden("no users are configured: only this machine may call, by a loopback address")
            return caller
        name, password = _basic(request.getHeader("authorization") or "")
        return await self.sign_in(name, password, peer)

    @property
    def open(self) -> bool:
        """There are no users, nor were any meant to be: this machine needs no password."""
        return not self._users() and self._foreign is None and not self._required()

    async def sign_in(self, name: bytes, password: bytes, peer: str | None) -> Caller:
        """:param peer: the client's IP address; None for a UNIX socket.
        :raises UnauthorizedLogin: wrong credentials.
        :raises Throttled: wrong ones too often."""
        credentials = AddressedPassword(name, password, peer or "unix")
        _, avatar, _ = await self._portal.login(credentials, peer or "unix", ICaller)
        assert isinstance(avatar, Caller)
        return avatar

    def known(self, name: str, peer: str | None) -> Caller:
        """Who signed in as *name* earlier, with the role of now.

        :raises UnauthorizedLogin: there is no such user any more."""
        _, avatar, _ = self._portal.realm.requestAvatar(name.encode(), peer or "unix", ICaller)
        assert isinstance(avatar, Caller)
        return avatar

    def stamp(self, name: str) -> str:
        """Another one once the user's password was changed; empty when it is another authority's."""
        user = self._users().get(name)
        return "" if user is None else user.password


def _basic(header: str) -> tuple[bytes, bytes]:
    """Name and password of an ``Authorization`` header (RFC 7617)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            name, colon, password = binascii.a2b_base64(encoded.strip().encode(), strict_mode=True).partition(b":")
        except (binascii.Error, ValueError):
            pass
        else:
            if colon:
                return name, password
    raise UnauthorizedLogin("sign in")
