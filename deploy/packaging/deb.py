"""Debian packages of the director and of the agent: ``python -m deploy.packaging.deb [--into DIRECTORY] [PACKAGE…]``.

Each is a virtual environment below ``/opt`` with everything that Python has to bring in the versions of ``constraints.txt``,
made with this machine's ``/usr/bin/python3``, whose minor version the package then depends on: a package is for the release
that it was built on. Around it: commands in ``/usr/bin``, units, users, manual pages, completions, a first configuration.

Two builds of one commit on the same release are the same bytes, wherever they are made: times are the commit's
(``SOURCE_DATE_EPOCH`` replaces them), and nothing in the package tells where it was built.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEBIAN, SYSTEMD = ROOT / "deploy/debian", ROOT / "deploy/systemd"
#: Of the release that a package is for.
PYTHON = "/usr/bin/python3"
HOME = "https://github.com/txdirector/txdirector"
MAINTAINER = "The txdirector developers <txdirector@users.noreply.github.com>"
#: A tenth of xz's time for a fifth more bytes; every dpkg that has Python 3.11 reads it.
COMPRESSION = ("-Zzstd", "-z9", "--threads-max=1")
#: What these bring for themselves only, and nobody imports: a third of their files.
TESTS = ("twisted/**/test", "psutil/tests", "zope/**/tests")
#: What pip keeps for itself, which is not there; sums of the scripts as they were at the place of the build are among it.
TRACES = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")


@dataclass(frozen=True)
class Package:
    """One of them."""

    name: str
    extras: str  #: of our distribution
    commands: tuple[str, ...]
    pages: tuple[str, ...]  #: of the manual
    unit: str
    user: str
    adopt: str  #: what makes a running one the version that was installed
    configuration: str  #: the file that its unit reads, below ``/etc/txdirector``
    examples: tuple[str, ...]  #: below deploy/systemd, which nobody gets unasked
    owned: tuple[str, ...]  #: what its service writes, and a purge takes
    synopsis: str
    description: str


PACKAGES = (
    Package(
        name="txdirector-director", extras="[director,manhole]", commands=("director", "directorctl"),
        pages=("director.1", "directorctl.1", "director.toml.5"), unit="txdirector", user="txdirector",
        adopt="directorctl upgrade", configuration="director.toml",
        examples=("txdirector.service.d/*.conf", "network/*.conf", "sysctl.d/*.conf"),
        owned=("/var/lib/txdirector", "/var/log/txdirector"),
        synopsis="balancer of TCP connections whose backends report their load",
        description="A director accepts TCP clients and relays each to a backend host, by health and by the load that "
        "agents report. Several make a redundant cluster with virtual addresses, which shares its state in etcd. Besides "
        "the director itself this has directorctl, which shows and steers a running one.",
    ),
    Package(
        name="txdirector-agent", extras="", commands=("director-agent",), pages=("director-agent.1",),
        unit="director-agent", user="director-agent", adopt="systemctl restart director-agent", configuration="agent.toml",
        examples=(), owned=(), synopsis="reports a backend host's load to txdirector",
        description="The agent runs beside a backend and tells every director once a second how loaded it is, from its "
        "cgroup, its process or the machine; it announces when the backend leaves, and answers HAProxy's agent-check, too.",
    ),
)


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    """What it prints. It must succeed."""
    done = subprocess.run([str(word) for word in command], env={**os.environ, **env}, cwd=cwd, capture_output=True,
                          text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def project_version() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def debian_version(version: str) -> str:
    """Of a Python version: what comes before a release sorts before it."""
    return re.sub(r"(?<=\d)[.]?(?=a|b|rc|dev)", "~", version)


@functools.cache
def epoch() -> int:
    """Seconds since 1970 that every file of a package is dated."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct", cwd=ROOT))


def wheel(into: Path) -> Path:
    """Ours, with the native relay."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "-w", into, ROOT,
        TXDIRECTOR_NATIVE="require")
    [built] = into.glob("txdirector-*.whl")
    return built


def environment(package: Package, tree: Path, built: Path) -> None:
    """Fill ``/opt`` below *tree*: only our commands, no traces of the build, compiled."""
    opt = Path("/opt") / package.name
    here = tree / opt.relative_to("/")
    run(PYTHON, "-m", "venv", "--without-pip", here)
    run(sys.executable, "-m", "pip", "--python", here / "bin/python3", "install", "--quiet", "--disable-pip-version-check",
        "--no-compile", "-c", ROOT / "constraints.txt", f"{built}{package.extras}")
    for script in (here / "bin").iterdir():
        if script.name in package.commands:
            script.write_text(re.sub(r"\A#!.*", f"#!{opt}/bin/python3", script.read_text()))
        elif not script.is_symlink():
            script.unlink()
    whole, *_ = python_version()
    (here / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {whole}\n")
    [packages] = here.glob("lib/python3*/site-packages")
    for useless in [*(found for pattern in TESTS for found in packages.glob(pattern)), *here.glob("include")]:
        shutil.rmtree(useless)
    for trace in [found for name in TRACES for found in packages.glob(f"*.dist-info/{name}")]:
        trace.unlink()
    for library in packages.rglob("_relay.abi3.so"):
        run("strip", "--strip-unneeded", library)
    run(here / "bin/python3", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", tree,
        "-p", "/", packages)


@functools.cache
def python_version() -> tuple[str, str, str]:
    """Of `PYTHON`: whole, its minor one, and the next."""
    whole = run(PYTHON, "-c", "import platform; print(platform.python_version())").strip()
    major, minor, *_ = whole.split(".")
    return whole, f"{major}.{minor}", f"{major}.{int(minor) + 1}"


def surroundings(package: Package, tree: Path, manual: Path, version: str) -> None:
    """Everything outside ``/opt``."""
    def put(path: str, text: str) -> None:
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    (tree / "usr/bin").mkdir(parents=True)
    for command in package.commands:
        (tree / "usr/bin" / command).symlink_to(f"../../opt/{package.name}/bin/{command}")
        for shell, path in (
            ("bash", f"usr/share/bash-completion/completions/{command}"),
            ("zsh", f"usr/share/zsh/vendor-completions/_{command}"),
            ("fish", f"usr/share/fish/vendor_completions.d/{command}.fish"),
        ):
            words = ("--completion", shell) if command == "director-agent" else ("completion", shell)
            put(path, run(Path(sys.executable).parent / command, *words))
    for name in package.pages:
        if not (manual / name).is_file():
            sys.exit(f"{manual / name} is missing: make man")
        compressed(tree / f"usr/share/man/man{name[-1]}/{name}.gz", (manual / name).read_text())
    unit = (SYSTEMD / f"{package.unit}.service").read_text()
    put(f"usr/lib/systemd/system/{package.unit}.service",
        unit.replace("\nDocumentation=", f"\nDocumentation=man:{package.commands[0]}(1) "))
    for kind, column in (("sysusers.d", 1), ("tmpfiles.d", 4)):
        lines = (SYSTEMD / kind / "txdirector.conf").read_text().splitlines(keepends=True)
        put(f"usr/lib/{kind}/{package.name}.conf",
            "".join(line for line in lines if line.startswith("#") or line.split()[column] in ("root", package.user)))
    put(f"etc/txdirector/{package.configuration}", (DEBIAN / package.configuration).read_text())
    if package.owned:
        put(f"etc/logrotate.d/{package.name}", (DEBIAN / "logrotate").read_text())
    for pattern in package.examples:
        for example in SYSTEMD.glob(pattern):
            put(f"usr/share/doc/{package.name}/examples/{example.relative_to(SYSTEMD)}", example.read_text())
    put(f"usr/share/doc/{package.name}/copyright", copyright_file())
    compressed(tree / f"usr/share/doc/{package.name}/changelog.gz",
               f"{package.name} ({version}) unstable; urgency=medium\n\n  * What changed: {HOME}/blob/main/NEWS.md\n\n"
               f" -- {MAINTAINER}  {formatdate(epoch())}\n")


def compressed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def copyright_file() -> str:
    licence = (ROOT / "LICENSE").read_text()
    owner = re.search(r"^Copyright \(c\) (.*)", licence, re.M)
    assert owner is not None
    _, _, terms = licence.partition(owner[0])
    body = "\n".join(f" {line}" if line else " ." for line in terms.strip().splitlines())
    return ("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
            f"Upstream-Name: txdirector\nSource: {HOME}\n"
            "Comment: The libraries below /opt have licences of their own, in their *.dist-info directories.\n\n"
            f"Files: *\nCopyright: {owner[1]}\nLicense: Expat\n{body}\n")


def control(package: Package, tree: Path, version: str, scratch: Path) -> None:
    """The package's own files: its needs, its scripts, which files are the operator's, checksums."""
    debian = tree / "DEBIAN"
    debian.mkdir()
    _, at_least, before = python_version()
    depends = [f"python3 (>= {at_least})", f"python3 (<< {before})", "systemd-standalone-sysusers | systemd-sysusers",
               "systemd-standalone-tmpfiles | systemd-tmpfiles", *libraries(tree, scratch)]
    # in KiB, as Debian's policy counts: a directory's size is its file system's affair
    size = sum(-(-path.lstat().st_size // 1024) if path.is_file() and not path.is_symlink() else 1
               for path in tree.rglob("*"))
    (debian / "control").write_text(
        f"Package: {package.name}\nVersion: {version}\nArchitecture: {run('dpkg', '--print-architecture').strip()}\n"
        f"Maintainer: {MAINTAINER}\nInstalled-Size: {size}\nDepends: {', '.join(depends)}\n"
        f"Section: net\nPriority: optional\nHomepage: {HOME}\nDescription: {package.synopsis}\n {package.description}\n",
    )
    other = next(each.name for each in PACKAGES if each is not package)
    words = {"PACKAGE": package.name, "UNIT": package.unit, "USER": package.user, "OTHER": other, "ADOPT": package.adopt,
             "OWNED": " ".join(package.owned) or "/nonexistent"}
    for script in ("postinst", "prerm", "postrm"):
        (debian / script).write_text(re.sub("@(.*?)@", lambda found: words[found[1]], (DEBIAN / script).read_text()))
        (debian / script).chmod(0o755)
    files = (path for path in tree.rglob("*") if path.is_file() and not path.is_symlink() and debian not in path.parents)
    names = sorted(str(path.relative_to(tree)) for path in files)
    (debian / "conffiles").write_text("".join(f"/{name}\n" for name in names if name.startswith("etc/")))
    (debian / "md5sums").write_text(run("md5sum", *names, cwd=tree))


def libraries(tree: Path, scratch: Path) -> list[str]:
    """The Debian packages of what extensions link with."""
    (scratch / "debian").mkdir(exist_ok=True)
    (scratch / "debian/control").write_text("Source: txdirector\n\nPackage: txdirector\nArchitecture: any\n")
    found = run("dpkg-shlibdeps", "-O", "--ignore-missing-info", *sorted(tree.rglob("*.so")), cwd=scratch)
    return found.strip().removeprefix("shlibs:Depends=").split(", ")


def package_file(package: Package, built: Path, manual: Path, into: Path, scratch: Path) -> Path:
    """Build one; returns its path."""
    tree = scratch / package.name
    tree.mkdir()
    version = debian_version(project_version())
    environment(package, tree, built)
    surroundings(package, tree, manual, version)
    control(package, tree, version, scratch)
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch(), epoch()), follow_symlinks=False)
    into.mkdir(parents=True, exist_ok=True)
    run("dpkg-deb", "--root-owner-group", *COMPRESSION, "--build", tree, into, SOURCE_DATE_EPOCH=str(epoch()))
    [file] = into.glob(f"{package.name}_{version}_*.deb")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="by default all of them")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="where the packages go (default: dist)")
    parser.add_argument("--manual", type=Path, default=ROOT / "build/man", help="of manual pages (default: build/man)")
    given = parser.parse_args()
    if unknown := set(given.packages) - {package.name for package in PACKAGES}:
        parser.error(f"no such package: {', '.join(sorted(unknown))}")
    for program, source in (
        (PYTHON, "python3"), ("dpkg-shlibdeps", "dpkg-dev"), ("strip", "binutils"), ("cc", "gcc libc6-dev python3-dev"),
    ):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {source}")
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as scratch:
        built = wheel(Path(scratch))
        for package in PACKAGES:
            if not given.packages or package.name in given.packages:
                print(package_file(package, built, given.manual, given.into.absolute(), Path(scratch)))


if __name__ == "__main__":
    main()
