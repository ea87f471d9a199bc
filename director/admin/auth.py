"""Who calls: passwords by `twisted.cred`, checked with Argon2 or bcrypt in the reactor's thread pool.

Theory of operation. A browser or `directorctl` sends the password with every request, and Argon2, as bcrypt, takes tens of
milliseconds and tens of megabytes by design. So a success is remembered for `REMEMBER_S` (as a keyed digest, never
the password), at most `MAX_VERIFYING` verifications run at once, and an address that fails too often waits. Every
attempt is paid for before it is verified and given back when it succeeds, so that guesses sent all at once gain
nothing; a remembered success is free, so that a guesser does not lock out an operator at the same address who is
signed in. Right passwords are never too many: one that an address sends many times at once is verified once for all,
and an attempt that cannot be paid for while others of its address are under way waits for what they give back.

Without users, which the configuration allows on loopback only, everyone on this machine has the full role; see
`local_caller` for what that excludes.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, DeferredSemaphore, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from cluster.model import User
from director.admin.control import Caller, Role

#: How long a verified password is taken without another verification.
REMEMBER_S = 60.0
#: Verifications at once: each takes Argon2's memory (64 MiB by default) and a core.
MAX_VERIFYING = 2
#: Verifications that may wait for their turn; about a second's worth, then callers are told to come back.
MAX_WAITING = 32
#: Wrong passwords that an address has free; one more becomes free each `FAILURE_S`.
FREE_FAILURES = 10
FAILURE_S = 6.0
#: Addresses whose failures are remembered, the longest silent forgotten first.
MAX_ADDRESSES = 4096

#: Runs blocking work elsewhere.
InThread = Callable[[Callable[[], Any]], Deferred[Any]]


class Throttled(LoginFailed):
    """Too many wrong passwords from this address, or too many at once; come back after *wait_s*."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many attempts to sign in; wait {wait_s:.0f} s")
        self.wait_s = wait_s


class AddressedPassword(UsernamePassword):
    """A name and a password, and the client's address that sent them."""

    def __init__(self, username: bytes, password: bytes, address: str) -> None:
        super().__init__(username, password)
        self.address = address


class Throttle:
    """Attempts by address, as buckets that refill. Pure: *now* is monotonic seconds."""

    def __init__(self) -> None:
        #: network → the time at which all its attempts are free again
        self._paid_until: OrderedDict[str, float] = OrderedDict()

    def take(self, address: str, now: float) -> float:
        """Pay for one attempt. Answers 0, or the seconds to wait; then nothing was paid."""
        network = network_of(address)
        paid_until = max(self._paid_until.pop(network, now), now) + FAILURE_S
        wait_s = paid_until - now - FREE_FAILURES * FAILURE_S
        if wait_s > 1e-9:  # not 0: sums of floats
            self._paid_until[network] = paid_until - FAILURE_S
            return wait_s
        self._paid_until[network] = paid_until
        if len(self._paid_until) > MAX_ADDRESSES:
            self._paid_until.popitem(last=False)
        return 0.0

    def give_back(self, address: str) -> None:
        """The attempt was a success after all."""
        network = network_of(address)
        if network in self._paid_until:
            self._paid_until[network] -= FAILURE_S


def network_of(address: str) -> str:
    """The unit of throttling: an IPv4 address, or a /64, which one IPv6 client may well own whole."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))


class Foreign(NamedTuple):
    """Another authority on names and passwords (LDAP, PAM, an application's own), for names that are no user's here."""

    checker: Any  #: an `ICredentialsChecker` of `IUsernamePassword`
    role: Role  #: of whoever it lets in, whose name is the avatar id in UTF-8


@implementer(ICredentialsChecker)
class PasswordChecker:
    """The users of now, and whom a foreign authority knows.

    :param users: the users now; asked at each attempt, so that a removed user is out at once.
    :param clock: for remembering and throttling.
    :param in_thread: runs blocking work elsewhere; the reactor's thread pool.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self, users: Callable[[], Mapping[str, User]], *, clock: IReactorTime,
        in_thread: InThread, foreign: Foreign | None = None,
    ) -> None:
        self._users = users
        self._foreign = foreign
        self._clock = clock
        self._in_thread = in_thread
        self._throttle = Throttle()
        self._turns = DeferredSemaphore(MAX_VERIFYING)
        self._key = secrets.token_bytes(32)
        self._remembered: dict[str, tuple[bytes, float]] = {}
        #: Who waits for an attempt under way, by address, name and digest.
        self._shared: dict[tuple[str, str, bytes], list[Deferred[bytes]]] = {}
        self._paid: Counter[str] = Counter()  #: attempts under way, by network
        self._unpaid: dict[str, list[Deferred[None]]] = {}  #: who waits for one of them to end

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """Fires with the user's name in UTF-8; fails with `UnauthorizedLogin` or `Throttled`."""
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, credentials: Any) -> bytes:
        username: bytes = credentials.username
        name = username.decode("utf-8", "replace")
        users = self._users()
        user = users.get(name)
        digest = self._digest(credentials.password, user)
        if user is not None and self._remembers(name, digest):
            return username
        address = getattr(credentials, "address", "")
        attempt = address, name, digest
        outcome: Deferred[bytes] = Deferred()
        if attempt in self._shared:
            self._shared[attempt].append(outcome)
        else:
            self._shared[attempt] = [outcome]

            def told(result: Any) -> None:
                for each in self._shared.pop(attempt):
                    each.callback(result)

            Deferred.fromCoroutine(self._attempt(credentials, users, digest, address)).addBoth(told)
        return await outcome

    async def _attempt(self, credentials: Any, users: Mapping[str, User], digest: bytes, address: str) -> bytes:
        network = network_of(address)
        while (wait_s := self._throttle.take(address, self._clock.seconds())) > 0:
            waiting = self._unpaid.setdefault(network, [])
            if not self._paid[network] or len(waiting) >= MAX_WAITING:
                raise Throttled(wait_s)
            waiting.append(Deferred())
            await waiting[-1]
        self._paid[network] += 1
        try:
            return await self._verified(credentials, users, digest, address)
        finally:
            self._paid[network] -= 1
            self._paid += Counter()  # drops what is 0
            for each in self._unpaid.pop(network, ()):
                each.callback(None)

    async def _verified(self, credentials: Any, users: Mapping[str, User], digest: bytes, address: str) -> bytes:
        username: bytes = credentials.username
        name = username.decode("utf-8", "replace")
        user = users.get(name)
        if len(self._turns.waiting) >= MAX_WAITING:
            self._throttle.give_back(address)
            raise Throttled(1.0)
        if user is None and self._foreign is not None:
            known: bytes = await maybeDeferred(self._foreign.checker.requestAvatarId, credentials)
            self._throttle.give_back(address)
            return known
        # An unknown name costs the same as a wrong password, so that time does not tell which names exist.
        hashed = user.password if user is not None else next((each.password for each in users.values()), "")
        password = credentials.password
        ok = await self._turns.run(lambda: self._in_thread(lambda: verify(hashed, password)))
        if user is None or not ok:
            raise UnauthorizedLogin
        self._throttle.give_back(address)
        self._remembered[name] = digest, self._clock.seconds() + REMEMBER_S
        return username

    def _remembers(self, name: str, digest: bytes) -> bool:
        known, until = self._remembered.get(name, (b"", 0.0))
        return self._clock.seconds() < until and hmac.compare_digest(known, digest)

    def _digest(self, password: bytes, user: User | None) -> bytes:
        """Of the password and of the hash it must match: a changed password forgets the old one."""
        mac = hashlib.blake2b(key=self._key)
        mac.update(b"" if user is None else user.password.encode())
        mac.update(b"\0")
        mac.update(password)
        return mac.digest()


def verify(hashed: str, password: bytes) -> bool:
    """Whether *password* is the one that *hashed*, of Argon2 or bcrypt, was made of. Blocks for its time."""
    try:
        if hashed.startswith("$2"):
            return bcrypt.checkpw(password, hashed.encode())
        return PasswordHasher().verify(hashed, password)
    except (Argon2Error, InvalidHashError, ValueError):  # ValueError: beyond the 72 bytes that bcrypt takes
        return False


class ICaller(Interface):
    """What signing in gives: a `director.admin.control.Caller`."""


@implementer(IRealm)
class CallerRealm:
    """Gives a checked name its role. The *mind* is the text that says where the caller is.

    :param role_of: the role of a user; None when there is no such user any more.
    """

    def __init__(self, role_of: Callable[[str], Role | None]) -> None:
        self._role_of = role_of

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> tuple[Any, Caller, Callable[[], None]]:
        name = avatarId.decode("utf-8", "replace")
        role = self._role_of(name)
        if role is None:
            raise UnauthorizedLogin
        return ICaller, Caller(name, role, mind), lambda: None


def local_caller(peer: str | None, host: bytes) -> Caller | None:
    """Who calls where no users are configured: everyone on this machine, with the full role.

    None for anybody else, and for a request whose ``Host`` is not this machine's loopback: a web page can point a name
    of its own at 127.0.0.1 and have the operator's browser call us (DNS rebinding).

    :param peer: the client's IP address; None for a UNIX socket.
    :param host: of the request, without the port.
    """
    if peer is not None and not (is_loopback(peer) and is_loopback(host.decode("latin-1"))):
        return None
    return Caller("local", Role.FULL, peer or "unix")


def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)
