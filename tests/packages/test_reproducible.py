"""Two builds of the same sources are the same bytes, wherever, whenever and by whomever they are built.

Source distribution and wheel, and the Debian packages with manual pages of their own; the latter take a minute, so they are part
of `make soak`, with ``REPRODUCE=debian``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from deploy.packaging.deb import PACKAGES
from tests.packages.chroot import command, require, sources, without

#: Of the commit.
EPOCH = "1700000000"


class Builder(NamedTuple):
    """Somebody who builds."""

    folder: str
    umask: str
    user: str  #: as which they see themselves; root they stay
    env: dict[str, str]


ONE = Builder("one", "022", "0", {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"})
OTHER = Builder("another/of a/longer name", "077", "1234", {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "2"})


def digests(folder: Path) -> dict[str, str]:
    """Of every file there."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


class ReproducibleTests(SynchronousTestCase):
    def setUp(self) -> None:
        if missing := [name for name in ("auditwheel", "sphinx") if find_spec(name) is None]:
            without(f"{', '.join(missing)}: make test-packages")
        require("unshare", "dpkg-deb", "cc")
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def built(self, builder: Builder, script: str) -> Path:
        """What *script* made in ``$1`` of the sources where it runs."""
        place = self.directory / builder.folder
        place.mkdir(parents=True)
        tree, into = sources(place / "sources"), place / "made"
        for path in tree.rglob("*"):
            os.utime(path, (len(builder.folder) * 1e8,) * 2)
            path.chmod(path.stat().st_mode & ~int(builder.umask, 8))
        command("unshare", "--user", f"--map-user={builder.user}", f"--map-group={builder.user}", "sh", "-euc", f"umask {builder.umask}; {script}",
                "sh", into, sys.executable, cwd=tree, PYTHONPATH=str(tree), SOURCE_DATE_EPOCH=EPOCH, **builder.env)
        return into

    def same(self, script: str, unpack: str) -> set[str]:
        """Names of what was made, twice the same. What differs is told by the files inside, which *unpack* gets from ``$1``."""
        one, other = self.built(ONE, script), self.built(OTHER, script)
        if digests(one) != digests(other):
            inside = []
            for made in (one, other):
                for file in list(made.iterdir()):
                    (place := made / f"{file.name}.d").mkdir()
                    command("sh", "-euc", unpack, "sh", file, cwd=place)
                inside.append(digests(made))
            self.fail("\n".join(sorted(name for name in {*inside[0], *inside[1]} if inside[0].get(name) != inside[1].get(name))))
        return set(digests(one))

    def test_wheel(self) -> None:
        made = self.same('"$2" -m deploy.packaging.wheels --into "$1"', 'case $1 in *.whl) python3 -m zipfile -e "$1" . ;; *) tar xf "$1" ;; esac')
        self.assertEqual({name[-4:] for name in made}, {".whl", "r.gz"})

    if os.environ.get("REPRODUCE") == "debian":  # a minute: part of make soak

        def test_debian(self) -> None:
            made = self.same('"$2" -m sphinx -q -b man docs man; "$2" -m deploy.packaging.deb --into "$1" --manual man',
                             'dpkg-deb -R "$1" .')
            self.assertEqual({name.partition("_")[0] for name in made}, {package.name for package in PACKAGES})
