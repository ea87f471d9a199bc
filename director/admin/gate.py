"""Lets callers in: by the headers of their requests, or by a form's name and password."""

from __future__ import annotations

import binascii
from collections.abc import Mapping

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from cluster.model import User
from director.admin.auth import AddressedPassword, CallerRealm, ICaller, InThread, PasswordChecker, local_caller
from director.admin.control import Caller, Role
from director.admin.errors import Forbidden


class Gate:
    """By basic authentication through a `Portal`; without one, everyone on this machine."""

    def __init__(self, portal: Portal | None) -> None:
        self._portal = portal

    @classmethod
    def of_users(cls, users: Mapping[str, User], *, clock: IReactorTime, in_thread: InThread) -> Gate:
        """The gate for configured *users*; for none, the open one. The rest: see `PasswordChecker`."""
        if not users:
            return cls(None)
        checker = PasswordChecker(lambda: users, clock=clock, in_thread=in_thread)
        return cls(Portal(CallerRealm(lambda name: Role(users[name].role) if name in users else None), [checker]))

    async def caller(self, request: Request) -> Caller:
        """:raises UnauthorizedLogin: no, or wrong, credentials.
        :raises Throttled: wrong ones too often.
        :raises Forbidden: without users, from elsewhere than this machine."""
        peer = getattr(request.getClientAddress(), "host", None)
        if self._portal is None:
            caller = local_caller(peer, request.getRequestHostname())
            if caller is None:
                raise Forbidden("no users are configured: only this machine may call, by a loopback address")
            return caller
        name, password = _basic(request.getHeader("authorization") or "")
        return await self.sign_in(name, password, peer)

    @property
    def open(self) -> bool:
        """There are no users: this machine needs no password."""
        return self._portal is None

    async def sign_in(self, name: bytes, password: bytes, peer: str | None) -> Caller:
        """:param peer: the client's IP address; None for a UNIX socket.
        :raises UnauthorizedLogin: wrong credentials.
        :raises Throttled: wrong ones too often."""
        assert self._portal is not None
        credentials = AddressedPassword(name, password, peer or "unix")
        _, avatar, _ = await self._portal.login(credentials, peer or "unix", ICaller)
        assert isinstance(avatar, Caller)
        return avatar

    def known(self, name: str, peer: str | None) -> Caller:
        """Who signed in as *name* earlier, with the role of now.

        :raises UnauthorizedLogin: there is no such user any more."""
        assert self._portal is not None
        _, avatar, _ = self._portal.realm.requestAvatar(name.encode(), peer or "unix", ICaller)
        assert isinstance(avatar, Caller)
        return avatar


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
