"""The directors of another commit, to be measured beside those of this tree in the same rounds."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.peers import BY_NAME, Peer, director

RELAYS = ("python", "native")


@contextlib.contextmanager
def directors(commit: str) -> Iterator[dict[str, tuple[Peer, Peer]]]:
    """For each relay the director of *commit* and the one here.

    The other one runs from a working tree of its own, with an extension built there and this environment's packages.
    """
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(home), commit], cwd=here, check=True)
        try:
            subprocess.run([sys.executable, "hatch_build.py"], cwd=home, check=True)
            yield {relay: (Peer(f"before-{relay}", director(relay), "", home), BY_NAME[f"director-{relay}"])
                   for relay in RELAYS}
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(home)], cwd=here, check=True)
