"""The manhole, entered by OpenSSH's own client."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from twisted.conch.error import ConchError
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.transport import SSHClientTransport
from twisted.conch.ssh.userauth import SSHUserAuthClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from cluster.errors import ConfigError
from director.config.files import checked
from director.doors.manhole import host_key
from director.service import make_service
from tests.integration.kit import DirectorTestCase, reactor, service, until

#: Cheap on purpose: these tests are about who may enter, not about hashing.
HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class ManholeTestCase(DirectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    async def start(self, **manhole: Any) -> None:
        data = service({"a": "127.0.0.1:9"}, group={"health": {"probe": {"kind": "none"}}})
        users = {name: {"password": HASHER.hash("sesame"), "role": role} for name, role in (("f", "full"), ("r", "readonly"))}
        host_key = str(self.directory / "host_key")
        data["node"] = {
            "admin": {"users": users}, "manhole": {"listen": "127.0.0.1:0", "host_key": host_key, **manhole},
        }
        self.running = await self.director(data)
        (listener,) = self.running.side_doors
        self.port = listener.address.port


class KeyTests(ManholeTestCase):
    def setUp(self) -> None:
        super().setUp()
        if shutil.which("ssh") is None:
            if os.environ.get("CI"):
                self.fail("OpenSSH's client is not installed")
            raise SkipTest("needs OpenSSH's client: apt-get install openssh-client")
        self.allowed = self.directory / "authorized_keys"
        self.allowed.write_text("")

    def key(self, name: str) -> Path:
        path = self.directory / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path

    async def ssh(self, key: Path, typed: str, *options: str, command: str = "") -> subprocess.CompletedProcess[str]:
        words = ["ssh", "-F", "none", "-p", str(self.port), "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                   "-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.directory / 'known'}",
                   "-o", "LogLevel=ERROR", *options, "root@127.0.0.1", *([command] if command else [])]
        done: subprocess.CompletedProcess[str] = await deferToThread(
            subprocess.run, words, input=typed, capture_output=True, text=True, timeout=60, check=False
        )
        return done

    async def test_shell(self) -> None:
        """A listed key enters and finds the director; what is typed is answered, with a terminal or without."""
        key = self.key("id")
        self.allowed.write_text((self.directory / "id.pub").read_text())
        await self.start(authorized_keys=str(self.allowed))
        for options in ((), ("-tt",)):
            done = await self.ssh(key, "sorted(node.frontends), director.configuration.node.name * 2\r\x04", *options)
            self.assertIn("(['web'], 'directordirector')", done.stdout, done.stderr)

    async def test_unlisted(self) -> None:
        """Another key does not enter; nor does one that was taken out of the file since, or when there is no file."""
        key, other = self.key("id"), self.key("other")
        self.allowed.write_text((self.directory / "id.pub").read_text())
        await self.start(authorized_keys=str(self.allowed))
        self.assertIn("Permission denied", (await self.ssh(other, "1\r")).stderr)
        self.assertIn("2", (await self.ssh(key, "1 + 1\r\x04")).stdout)
        self.allowed.write_text("")
        self.assertIn("Permission denied", (await self.ssh(key, "1\r")).stderr)
        self.allowed.unlink()
        self.assertIn("Permission denied", (await self.ssh(key, "1\r")).stderr)

    async def test_nothing_but_a_shell(self) -> None:
        """No commands, and nothing is forwarded."""
        key = self.key("id")
        self.allowed.write_text((self.directory / "id.pub").read_text())
        await self.start(authorized_keys=str(self.allowed))
        done = await self.ssh(key, "", "-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:9")
        self.assertIn("remote port forwarding failed", done.stderr)
        done = await self.ssh(key, "", "-W", "127.0.0.1:9")
        self.assertIn("stdio forwarding failed", done.stderr)
        done = await self.ssh(key, "", command="id")
        self.assertEqual((done.stdout, done.returncode != 0), ("", True))
        self.flushLoggedErrors(ConchError)  # conch logs what it refuses


class _Typing(SSHChannel):
    """A shell that was asked for one line."""

    name = b"session"

    def channelOpen(self, specificData: bytes) -> None:
        self.output = b""
        self.conn.sendRequest(self, b"shell", b"")  # type: ignore[union-attr]
        self.write(b"6 * 7\r")

    def dataReceived(self, data: bytes) -> None:
        self.output += data
        if b"42" in self.output:
            self.conn.transport.transport.user_is_in = True  # type: ignore[union-attr]


class _Connection(SSHConnection):
    def serviceStarted(self) -> None:
        self.openChannel(_Typing(conn=self))


class _Password(SSHUserAuthClient):
    preferredOrder = [b"password"]  # noqa: RUF012

    def __init__(self, user: str, password: str) -> None:
        super().__init__(user.encode(), _Connection())
        self._password = password.encode()
        self.asked = 0

    def getPassword(self, prompt: str | None = None) -> Deferred[bytes] | None:
        self.asked += 1
        return succeed(self._password) if self.asked == 1 else None

    def getPublicKey(self) -> None:
        return None


class _Client(SSHClientTransport):
    def __init__(self, user: str, password: str) -> None:
        self.auth = _Password(user, password)
        self.lost = False

    def verifyHostKey(self, hostKey: bytes, fingerprint: bytes) -> Deferred[int]:
        return succeed(1)

    def connectionSecure(self) -> None:
        self.requestService(self.auth)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True
        super().connectionLost(reason)


class PasswordTests(ManholeTestCase):
    async def enters(self, user: str, password: str) -> bool:
        client: Any = await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", self.port), _Client(user, password))
        await until(lambda: client.lost or getattr(client.transport, "user_is_in", False), "being let in or sent away")
        entered = not client.lost
        client.transport.abortConnection()
        await until(lambda: client.lost, "the end")
        return entered

    async def test_full_role_only(self) -> None:
        """A user with the full role enters by password; a wrong password, another role and a stranger do not."""
        await self.start(passwords=True)
        self.assertTrue(await self.enters("f", "sesame"))
        self.assertFalse(await self.enters("f", "wrong"))
        self.assertFalse(await self.enters("r", "sesame"))
        self.assertFalse(await self.enters("nobody", "sesame"))

    async def test_off(self) -> None:
        """Without `passwords` nobody enters by one."""
        allowed = self.directory / "authorized_keys"
        allowed.write_text("")
        await self.start(authorized_keys=str(allowed))
        self.assertFalse(await self.enters("f", "sesame"))

    async def test_stops(self) -> None:
        """Who is in is put out when the director stops."""
        await self.start(passwords=True)
        client: Any = await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", self.port), _Client("f", "sesame"))
        await until(lambda: getattr(client.transport, "user_is_in", False), "being let in")
        await self.stop(self.running)
        await until(lambda: client.lost, "the end")


class HostKeyTests(ManholeTestCase):
    def test_made_once(self) -> None:
        """The key is made for the director's user only, and found again."""
        path = self.directory / "key"
        made = host_key(str(path))
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(host_key(str(path)), made)

    def test_of_no_use(self) -> None:
        """A file that is no key, and a directory that is not there, are errors of the configuration."""
        path = self.directory / "key"
        path.write_text("not a key")
        for wrong in (path, self.directory / "none" / "key"):
            manhole = {"listen": "127.0.0.1:0", "host_key": str(wrong), "passwords": True}
            with self.assertRaises(ConfigError) as caught:
                make_service(checked({"node": {"manhole": manhole}}), reactor=reactor)
            self.assertIn("node.manhole.host_key", str(caught.exception))
