"""What the guides tell people to write is accepted."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from director.config.files import parse

DOCS = Path(__file__).parents[3] / "docs"


def blocks(page: str) -> list[str]:
    """The page's TOML, freed of the indentation that a list gives it."""
    found = re.findall(r"^( *)```toml\n(.*?)^ *```", (DOCS / page).read_text(), flags=re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


class GuideTests(SynchronousTestCase):
    def test_tutorial(self) -> None:
        """The tutorial's file is a configuration with both hosts."""
        (text,) = blocks("tutorial.md")
        self.assertEqual(set(parse(text).services["web"].groups["main"].hosts), {"a", "b"})

    def test_cluster(self) -> None:
        """The cluster guide's file has no error but the files and the token, which are the reader's."""
        (text,) = blocks("operations/cluster.md")
        text = re.sub(r'"/etc/[^"]*"', f'"{__file__}"', text).replace("…", "0" * 64)
        configuration = parse(text)
        self.assertEqual((configuration.node.store, configuration.node.vips.addresses), ("etcd:", ("10.0.0.100/24",)))
