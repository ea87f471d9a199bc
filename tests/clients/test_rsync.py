"""rsync with its daemon."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import ClassVar

from tests.clients.kit import Clients, free_ports, on_both_relays, random_file, run, sha256

FILES = 300
BIG_BYTES = 50 << 20

RSYNCD = """
address = 127.0.0.1
use chroot = no
{user}
[tree]
path = {directory}/there
read only = no
"""


class Rsync(Clients):
    __test__ = False
    needs = ("rsync",)
    url: ClassVar[str]

    @classmethod
    def serve(cls) -> None:
        (cls.directory / "there").mkdir()
        (port,) = free_ports(1)
        configuration = cls.directory / "rsyncd.conf"
        user = "uid = root\ngid = root" if os.geteuid() == 0 else ""  # by itself root's daemon becomes nobody
        configuration.write_text(RSYNCD.format(directory=cls.directory, user=user))
        cls.server("rsync", "--daemon", "--no-detach", "--port", port, "--config", configuration, port=port)
        cls.director = cls.direct(port)
        cls.url = f"rsync://127.0.0.1:{cls.director.port}/tree/"

    def test_a_tree(self) -> None:
        """A tree goes there, comes back the same, and then there is nothing more to send."""
        here, there, back = (self.directory / name for name in ("here", "there", "back"))
        here.mkdir()
        sizes = random.Random(self.relay)
        for number in range(FILES):
            random_file(here / f"{number}", sizes.randrange(20_000))
        random_file(here / "big", BIG_BYTES)
        run("rsync", "-a", f"{here}/", self.url)
        self.assertEqual(sums(there), sums(here))
        run("rsync", "-a", self.url, back)
        self.assertEqual(sums(back), sums(here))
        self.assertEqual(run("rsync", "-a", "--checksum", "--itemize-changes", self.url, back), "")

    def test_a_change(self) -> None:
        """A few bytes amid a big file travel as a difference, both ends talking at once."""
        here, there = self.directory / "changed", self.directory / "there" / "changed"
        random_file(here, BIG_BYTES)
        run("rsync", here, self.url)
        with here.open("r+b") as file:
            file.seek(BIG_BYTES // 2)
            file.write(b"something else")
        said = run("rsync", "--no-whole-file", "--ignore-times", "--stats", here, self.url)
        self.assertEqual(sha256(there), sha256(here))
        literal = next(line for line in said.splitlines() if line.startswith("Literal data:")).split()[2]
        self.assertLess(int(literal.replace(",", "")), 100_000)


def sums(tree: Path) -> dict[str, str]:
    return {each.name: sha256(each) for each in tree.iterdir() if each.name != "changed"}


PythonRsyncTests, NativeRsyncTests = on_both_relays(Rsync)
