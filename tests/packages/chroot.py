"""A fresh Debian of this machine's release in a directory, from the sources that this machine's own apt uses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn
from unittest import SkipTest

from deploy.packaging.deb import ROOT
from tests.packages.once import once

#: What has not ended by then never will: packages are fetched from a mirror, and a busy machine unpacks them slowly.
DEADLINE_S = 1800.0
#: Makes a directory ($1) the root, as a machine has it: a mount, with the kernel's file systems and devices; and runs the
#: shell's script $2 in it, with processes of its own.
_ENTER = ('mount --bind "$1" "$1"; cd "$1"; mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mkdir -p .before; '
          'pivot_root . .before; umount -l .before; rmdir .before; exec chroot . /bin/sh -euc "$2"')
#: The same with a network of its own: nothing but loopback, on which all ports are free.
_ENTER_ALONE = f"ip link set lo up; {_ENTER}"


class Failed(Exception):
    """A command did; says what it printed."""


def require(*programs: str) -> None:
    """Skip without root or *programs*, fail in CI."""
    why = "needs root" if os.getuid() else ", ".join(name for name in programs if not shutil.which(name))
    if why:
        without(f"{why}: make test-packages as root installs what is missing")


def without(why: str) -> NoReturn:
    """Skip; in CI nothing may be missing."""
    if os.environ.get("CI") == "true":
        raise AssertionError(why)
    raise SkipTest(why)


def command(*words: str | Path, cwd: Path | None = None, **env: str) -> str:
    """What it prints, both ways.

    :raises Failed: its exit code is not 0.
    """
    done = subprocess.run([str(word) for word in words], cwd=cwd, env={**os.environ, **env}, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE_S, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, words))}\n{done.stdout}")
    return done.stdout


def own_sources(codename: str) -> list[Path]:
    """Files of this machine's apt that have the release *codename*; not those of others, whose keys a chroot lacks."""
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list")), *sorted(etc.glob("sources.list.d/*.sources"))]
    return [file for file in files if file.is_file() and re.search(rf"^[^#\n]*\b{codename}\b", file.read_text(), re.M)]


def codename() -> str:
    """This machine's release."""
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)
    assert found is not None
    return found[1]


def debian(into: Path) -> None:
    """The essential packages and apt."""
    command("mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt/lists", codename(), into / "debian.tar", *own_sources(codename()))


class Chroot:
    """:param include: packages that it has besides the essential ones and apt."""

    def __init__(self, *include: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="chroot-"))
        self.root = self._folder / "root"
        self.root.mkdir()
        try:
            command("tar", "--extract", "--numeric-owner", "--file", once("debian", debian) / "debian.tar", cwd=self.root)
            (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
            self.run(f"apt-get install -y -qq --no-install-recommends {' '.join(include)}; apt-get clean")
        except Failed:
            self.remove()
            raise

    def run(self, script: str, *, alone: bool = False, **env: str) -> str:
        """What the shell's *script* prints inside; it stops at the first command that fails.

        :param alone: with a network of its own, instead of this machine's.
        :raises Failed: a command did.
        """
        clean = {"DEBIAN_FRONTEND": "noninteractive", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", **env}
        words = [f"{name}={value}" for name, value in clean.items()]
        return command("unshare", "--mount", "--pid", "--fork", "--kill-child", *(["--net"] if alone else []), "env", "-i", *words,
                       "sh", "-ec", _ENTER_ALONE if alone else _ENTER, "sh", self.root, script)

    def files(self) -> dict[str, str]:
        """Every file and directory but those that apt and dpkg keep for themselves, with the text of the lists of users."""
        own = ("var/cache/", "var/lib/apt/", "var/lib/dpkg/", "var/log/", "run/", "dev/", "proc/", "tmp/", "etc/ld.so.cache")
        names = [str(path.relative_to(self.root)) for path in self.root.rglob("*")]
        return {name: (self.root / name).read_text() if name in ("etc/passwd", "etc/group") else ""
                for name in names if not name.startswith(own) and not re.fullmatch(r"etc/\w+-", name)}  # the last: backups

    def remove(self) -> None:
        shutil.rmtree(self._folder)


def sources(into: Path, *, version: str | None = None) -> Path:
    """A copy of ours, as of another *version*; its commit's time is that of this copy's files."""
    shutil.copytree(ROOT, into, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.so", "__pycache__", "results"))
    if version is not None:
        file = into / "pyproject.toml"
        file.write_text(re.sub(r'(?m)^version = ".*"', f'version = "{version}"', file.read_text(), count=1))
    return into
