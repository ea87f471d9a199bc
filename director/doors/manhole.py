"""The manhole: a Python shell inside the running director, over SSH.

Whoever enters can do everything that the director's process can. So it is off unless configured, and takes only keys that
the director's host lists, and users of the admin with the full role. Entries and exits are logged.

What is typed runs on the reactor's thread: while it runs, nothing else does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.avatar import ConchUser
from twisted.conch.error import ConchError, ValidPublicKey
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.interfaces import IConchUser, ISession
from twisted.conch.manhole import ColoredManhole
from twisted.conch.manhole_ssh import TerminalSessionTransport
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, Key
from twisted.conch.ssh.session import SSHSession
from twisted.conch.ssh.transport import SSHServerTransport
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ISSHPrivateKey, IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.components import registerAdapter
from twisted.python.failure import Failure
from zope.interface import implementer

from cluster.address import parse_address
from cluster.errors import ConfigError, Problem
from cluster.model import Manhole
from director.admin.auth import AddressedPassword
from director.admin.control import Role
from director.admin.gate import Gate
from director.ports.side_port import SidePort

#: To prove who one is, from connecting; a person types a password in less.
LOGIN_S = 60
#: Wrong proofs on one connection. OpenSSH offers every key of its agent before it asks for a password.
ATTEMPTS = 6


class ManholeListener(SidePort):
    """Listens, and lets people in.

    :param namespace: what the shell knows by name.
    :param gate: checks passwords, where the configuration allows them.
    :raises ConfigError: the host key is of no use.
    """

    def __init__(self, manhole: Manhole, namespace: Mapping[str, object], gate: Gate, *, reactor: Any) -> None:
        assert manhole.listen is not None and manhole.host_key is not None
        address = parse_address(manhole.listen, any_port=True)
        checkers: list[Any] = []
        if manhole.authorized_keys is not None:
            checkers.append(_ListedKeys(manhole.authorized_keys))
        if manhole.passwords:
            checkers.append(_FullUsers(gate))
        factory = _Factory(Portal(_Realm(namespace), checkers), host_key(manhole.host_key), clock=reactor)
        super().__init__(f"manhole {address}", address, factory, reactor=reactor)


def host_key(path: str) -> Key:
    """The server's private key; made and written there, for the director's user only, when there is no file.

    :raises ConfigError: it cannot be read, written, or used.
    """
    def refuse(why: str) -> NoReturn:
        raise ConfigError([Problem("node.manhole.host_key", f"{path}: {why}")])

    try:
        found: Key = Key.fromFile(path)
        return found
    except (BadKeyError, EncryptedKeyError) as error:
        refuse(str(error))
    except OSError as error:
        if error.errno != errno.ENOENT:
            refuse(error.strerror or str(error))
    key = Key(Ed25519PrivateKey.generate())
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.toString("OPENSSH"))
    except OSError as error:
        refuse(error.strerror or str(error))
    return key


# --- who may enter ----------------------------------------------------------------------------------------


@implementer(ICredentialsChecker)
class _ListedKeys:
    """Keys of a file, whatever the user calls themselves; read at each attempt, so that a removed key is out at once.

    (Conch's own checkers come with an import of ``spwd``, which Python 3.13 has no more.)
    """

    credentialInterfaces = (ISSHPrivateKey,)
    _log = Logger()

    def __init__(self, path: str) -> None:
        self._path = path

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        return execute(self._check, credentials)

    def _check(self, credentials: Any) -> bytes:
        """:raises ValidPublicKey: the client only asks whether the key would do, and it would."""
        try:
            key = Key.fromString(credentials.blob)
            if not any(key == listed for listed in self._listed()):
                raise UnauthorizedLogin("the key is not listed")
            if credentials.signature is None:
                raise ValidPublicKey
            if key.verify(credentials.signature, credentials.sigData):
                return bytes(credentials.username)
        except (BadKeyError, InvalidSignature) as error:
            raise UnauthorizedLogin("the key is of no use") from error
        raise UnauthorizedLogin("the signature is wrong")

    def _listed(self) -> Iterator[Key]:
        try:
            with open(self._path, "rb") as file:
                lines = file.read().splitlines()
        except OSError as error:
            self._log.error("cannot read {path}: {why}", path=self._path, why=error.strerror)
            return
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith(b"#"):
                try:
                    yield Key.fromString(line)
                except BadKeyError:
                    self._log.error("{path}:{line} is no public key", path=self._path, line=number)


@implementer(ICredentialsChecker)
class _FullUsers:
    """Users of the admin whose role is full."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, credentials: AddressedPassword) -> bytes:
        if self._gate.open:
            raise UnauthorizedLogin("there are no users")
        try:
            caller = await self._gate.sign_in(credentials.username, credentials.password, credentials.address)
        except LoginFailed as error:  # throttled, too: conch takes anything else for a fault of ours
            raise UnauthorizedLogin(str(error)) from error
        if caller.role is not Role.FULL:
            raise UnauthorizedLogin("the role is not full")
        return credentials.username


class _Auth(SSHUserAuthServer):
    """Conch's, with our limits, the client's address beside its password, and a word in the log."""

    loginTimeout = LOGIN_S
    attemptsBeforeDisconnect = ATTEMPTS
    _log = Logger()

    transport: Any

    def serviceStarted(self) -> None:
        self.clock = self.transport.factory.clock
        super().serviceStarted()

    def auth_password(self, packet: bytes) -> Any:
        credentials = AddressedPassword(self.user or b"", getNS(packet[1:])[0], self._peer)
        return self.portal.login(credentials, None, IConchUser).addErrback(self._ebPassword)

    def _cbFinishedAuth(self, result: Any) -> None:
        interface, avatar, _ = result
        about = {"who": (self.user or b"").decode("utf-8", "replace"), "peer": self._peer, "by": self.method.decode()}
        self._log.warn("{who} entered the manhole from {peer}, by {by}", **about)
        super()._cbFinishedAuth((interface, avatar, lambda: self._log.warn("{who} left the manhole", **about)))

    @property
    def _peer(self) -> str:
        return str(self.transport.transport.getPeer().host)


# --- what they find ---------------------------------------------------------------------------------------


class _User(ConchUser):
    """Someone who is in; may have sessions and nothing else: no forwarding, no files."""

    def __init__(self, namespace: Mapping[str, object]) -> None:
        super().__init__()
        self.namespace = namespace
        self.channelLookup[b"session"] = SSHSession


@implementer(ISession)
class _Session:
    """A shell. A client without a terminal gets one of the usual size."""

    def __init__(self, user: _User) -> None:
        self._user = user
        self._width, self._height = 80, 24
        self._shell: TerminalSessionTransport | None = None

    def getPty(self, term: bytes, windowSize: tuple[int, ...], modes: object) -> None:
        self._height, self._width = windowSize[:2]

    def openShell(self, proto: Any) -> None:
        terminal = ServerProtocol(ColoredManhole, dict(self._user.namespace))
        self._shell = TerminalSessionTransport(proto, terminal, self._user, self._width, self._height)

    def windowChanged(self, newWindowSize: tuple[int, ...]) -> None:
        self._height, self._width = newWindowSize[:2]
        if self._shell is not None:
            self._shell.chainedProtocol.terminalProtocol.terminalSize(self._width, self._height)

    def execCommand(self, proto: Any, command: bytes) -> None:
        raise ConchError("there is a shell, and no commands")

    def eofReceived(self) -> None:
        """The client will type no more, and what it typed is answered."""
        if self._shell is not None:
            self._shell.proto.loseConnection()

    def closed(self) -> None:
        """Nothing is kept of a session."""


registerAdapter(_Session, _User, ISession)


@implementer(IRealm)
class _Realm:
    def __init__(self, namespace: Mapping[str, object]) -> None:
        self._namespace = namespace

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> tuple[Any, _User, Callable[[], None]]:
        return IConchUser, _User(self._namespace), lambda: None


class _Transport(SSHServerTransport):
    factory: _Factory

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.connections.add(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.factory.connections.discard(self)
        super().connectionLost(reason)


class _Factory(SSHFactory):
    protocol = _Transport
    services = {b"ssh-userauth": _Auth, b"ssh-connection": SSHConnection}  # noqa: RUF012
    noisy = False

    def __init__(self, portal: Portal, key: Key, *, clock: IReactorTime) -> None:
        self.portal = portal
        self.clock = clock
        self.connections: set[_Transport] = set()
        self.privateKeys = {key.sshType(): key}
        self.publicKeys = {key.sshType(): key.public()}
