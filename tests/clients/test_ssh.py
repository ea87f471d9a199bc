"""ssh and scp with sshd."""

from __future__ import annotations

import getpass
import hashlib
import os
from pathlib import Path
from typing import ClassVar

from tests.clients.kit import Clients, free_ports, on_both_relays, random_file, run, sha256

FILE_BYTES = 50 << 20
PARALLEL = 8

SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""
SSH = """
Host server
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {directory}/user
    IdentitiesOnly yes
    UserKnownHostsFile {directory}/known
    HostKeyAlias server
    StrictHostKeyChecking yes
    BatchMode yes
"""


class Ssh(Clients):
    __test__ = False
    needs = ("sshd", "scp")
    options: ClassVar[tuple[str, Path]]

    @classmethod
    def serve(cls) -> None:
        for name in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", cls.directory / name)
        if os.geteuid() == 0:  # where sshd keeps those apart who have not logged in; Debian's unit makes it at a start
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        (port,) = free_ports(1)
        (cls.directory / "sshd_config").write_text(SSHD.format(port=port, directory=cls.directory))
        cls.server("sshd", "-D", "-e", "-f", cls.directory / "sshd_config", port=port)
        cls.director = cls.direct(port)
        (cls.directory / "known").write_text(f"server {(cls.directory / 'host.pub').read_text()}")
        configuration = cls.directory / "ssh_config"
        cls.options = ("-F", configuration)
        configuration.write_text(SSH.format(port=cls.director.port, directory=cls.directory, user=getpass.getuser()))

    def test_copies(self) -> None:
        """A file goes there and comes back the same."""
        here, there, back = (self.directory / name for name in ("here", "there", "back"))
        whole = random_file(here, FILE_BYTES)
        run("scp", "-q", *self.options, here, f"server:{there}")
        self.assertEqual(sha256(there), whole)
        run("scp", "-q", *self.options, f"server:{there}", back)
        self.assertEqual(sha256(back), whole)

    def test_pipes(self) -> None:
        """What ssh reads goes to a command, and the end of it too."""
        here, back = self.directory / "here", self.directory / "echoed"
        whole = random_file(here, FILE_BYTES)
        self.assertEqual(run("ssh", *self.options, "server", "sha256sum", source=here).split()[0], whole)
        run("ssh", *self.options, "server", "cat", source=here, target=back)
        self.assertEqual(sha256(back), whole)

    def test_at_the_same_time(self) -> None:
        """Several log in at once, and each gets its own answer."""
        sessions = [self.client("ssh", *self.options, "server", f"echo {n} | sha256sum") for n in range(PARALLEL)]
        for n, each in enumerate(sessions):
            said, complaint = each.communicate(timeout=60)
            self.assertEqual(said.split()[:1], [hashlib.sha256(f"{n}\n".encode()).hexdigest()], complaint)


PythonSshTests, NativeSshTests = on_both_relays(Ssh)
