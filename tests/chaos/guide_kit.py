"""Bare machines for the guides: what a guide prints is typed into a shell of root on each, and every command must succeed.

A machine has a network, processes, a host name and a file system of its own: what it writes below /etc, /var, /root and /opt is
seen by nobody else and gone with it. It begins with what this machine has installed, an ssh daemon, and the others' keys.
The commands `director`, `directorctl` and `director-agent` are this checkout's, unless packages are given.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deploy.lab.net import Lab, Machine

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: Where the guides have the commands, and where this checkout has them.
INSTALLED, CHECKOUT = Path("/opt/txdirector/bin"), Path(sys.executable).parent
COMMANDS = ("director", "directorctl", "director-agent")
#: The network of the guides' addresses.
NETWORK = "10.0.0"
NUMBERS = {"lb1": 11, "lb2": 12, "app1": 31, "app2": 32}
#: A block that has not ended by then never will; far beyond what a loaded machine needs.
DEADLINE_S = 120.0
#: How long each page took, for the log.
TOOK: list[str] = []

#: Its own file system, then its daemon, then a shell that reads from a pipe and ends, with all else, at the first command that fails.
_BOOT = f"""
set -eu
hostname "$1"
mount -t tmpfs tmpfs /run
mkdir -p /run/own /run/sshd "$2/$1"
mount -t tmpfs tmpfs /run/own
for each in etc var root opt; do
    mkdir -p /run/own/$each /run/own/$each.work
    mount -t overlay overlay -o lowerdir=/$each,upperdir=/run/own/$each,workdir=/run/own/$each.work /$each
done
rm -rf /root/.ssh {INSTALLED.parent} /root/txdirector /etc/txdirector
cp -r "$2/ssh" /root/.ssh
chown -R root:root /root/.ssh
mkdir -p {INSTALLED}
if [ "$5" ]; then cp -a "$5/opt/." /opt; fi
for each in {" ".join(COMMANDS)}; do ln -s $3/$each {INSTALLED}/$each; done
ln -s "$4" /root/txdirector
/usr/sbin/sshd -f /root/.ssh/sshd_config
cd
exec bash --norc -s
"""
_SSH = {
    "config": "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n",
    "sshd_config": "HostKey /root/.ssh/id_ed25519\nAuthorizedKeysFile /root/.ssh/id_ed25519.pub\nPermitRootLogin yes\nUsePAM no\n"
                   "StrictModes no\nPidFile none\nSubsystem sftp internal-sftp\n",
}


class Block(NamedTuple):
    """What a page has its reader type at once."""

    page: str
    machines: tuple[str, ...]  #: on which it is typed, one after the other
    text: str


def blocks(page: str, on: str = "") -> Iterator[Block]:
    """The blocks of *page*, in order, but for those that install: what they install is there.

    :param on: where those are typed that do not say it.
    :raises AssertionError: a block does not say where it is typed.
    """
    for text in re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(), flags=re.M | re.S):
        named = re.match(r"# on (\w+(?:(?:, then |, | and )\w+)*)\n", text)
        assert named or on, f"{page}: on which machine?\n{text}"
        if "apt-get install" not in text:
            yield Block(page, tuple(re.split(r", then |, | and ", named[1] if named else on)), text)


def why_not() -> str:
    """What is missing here, besides namespaces; empty if nothing is."""
    for program, package in (("etcd", "etcd-server"), ("etcdctl", "etcd-client"), ("prometheus", "prometheus"),
                             ("rsync", "rsync"), ("curl", "curl"), ("/usr/sbin/sshd", "openssh-server"),
                             ("ssh", "openssh-client"), ("openssl", "openssl"), ("pgrep", "procps"), ("hostname", "hostname")):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install {package}"
    return ""


class GuideMachine:
    """One machine, switched on until `power_off`."""

    def __init__(self, machine: Machine, folder: Path, unpacked: Path | None) -> None:
        self._machine = machine
        self._folder = folder
        self._unpacked = unpacked
        self._shell: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()

    def power_on(self) -> None:
        """With nothing on its disks but what was installed."""
        here = self._folder / self._machine.name
        here.mkdir(exist_ok=True)
        with (here / "shell").open("ab") as log:
            self._shell = subprocess.Popen(
                ["ip", "netns", "exec", self._machine.namespace, "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork",
                 "--kill-child", "--mount-proc", "bash", "-c", _BOOT, "bash", self._machine.name, str(self._folder),
                 str(CHECKOUT if self._unpacked is None else "/opt/txdirector-*/bin"), str(ROOT), str(self._unpacked or "")],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                                                     "HOME": "/root", "LANG": "C.UTF-8", "COLUMNS": "120"},
            )
        self.types("set -euo pipefail\ntrap 'tail -n 20 *.log >&2' ERR\n")

    def power_off(self) -> None:
        """As a power cut."""
        if self._shell is not None:
            self._shell.kill()
            self._shell.communicate()
            self._shell = None

    def types(self, text: str) -> str:
        """What the commands of *text* say, typed into the shell."""
        assert self._shell is not None and self._shell.stdin is not None, f"{self._machine.name} is off"
        here = self._folder / self._machine.name / str(next(self._numbers))
        (typed, said, over) = (here.with_suffix(suffix) for suffix in (".sh", ".out", ".over"))
        typed.write_text(text)
        self._shell.stdin.write(f". {typed} >{said} 2>&1 </dev/null; touch {over}\n".encode())
        self._shell.stdin.flush()
        end = time.monotonic() + DEADLINE_S
        while not over.exists():
            ended, late = self._shell.poll() is not None, time.monotonic() > end
            if (ended or late) and not over.exists():
                shell = (self._folder / self._machine.name / "shell").read_text()
                raise AssertionError(f"{self._machine.name} {'failed' if ended else 'did not end'}:\n{text}\n"
                                     f"{said.read_text() if said.exists() else ''}\n{shell}")
            time.sleep(0.02)
        return said.read_text()


class Machines:
    """The machines of the guides. What they say while a guide is followed is kept by `follow`.

    :param unpacked: our Debian packages, which each machine has then instead of this checkout's commands.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], unpacked: Path | None = None) -> None:
        ssh = folder / "ssh"
        ssh.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "id_ed25519")], check=True)
        for name, text in _SSH.items():
            (ssh / name).write_text(text)
        self._lab = Lab(NETWORK)
        try:
            self.all = {name: GuideMachine(self._lab.machine(name, NUMBERS[name]), folder, unpacked) for name in names}
            for machine in self.all.values():
                machine.power_on()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for machine in getattr(self, "all", {}).values():
            machine.power_off()
        self._lab.close()

    def follow(self, page: str, on: str = "") -> list[str]:
        """Type all of *page*; what each block said on each of its machines."""
        return [self.all[name].types(block.text) for block in blocks(page, on) for name in block.machines]
