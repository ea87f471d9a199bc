"""Every link of a page leads somewhere: to a file that is there, and to a heading that it has. Addresses elsewhere are not fetched."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from twisted.trial.unittest import SynchronousTestCase

from docs._ext.generated import expanded

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
#: What names pages from elsewhere: code, units, rules.
NAMING = ("agent", "bench", "cluster", "deploy", "director", "tests")
_READS = MarkdownIt("commonmark").enable("table")


@functools.cache
def anchors(page: Path) -> set[str]:
    """What a link may name after ``#``, as GitHub and MyST make it of headings."""
    found: set[str] = set()
    tokens = _READS.parse(expanded(page.read_text()))
    for heading, text in pairwise(tokens):
        if heading.type == "heading_open":
            words = "".join(child.content for child in text.children or () if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.add(slug)
    return found


def links(page: Path) -> Iterator[str]:
    """The targets of links and images, but for those that lead elsewhere."""
    for token in _READS.parse(expanded(page.read_text())):
        for child in token.children or ():
            target = str(child.attrGet("href") or child.attrGet("src") or "")
            if target and not re.match(r"[a-z]+:", target):
                yield target


class LinkTests(SynchronousTestCase):
    def test_pages(self) -> None:
        """Of pages to pages, their headings, pictures, and files of the repository."""
        wrong = []
        for page in PAGES:
            for target in links(page):
                path, _, anchor = target.partition("#")
                there = (page.parent / path).resolve() if path else page
                if not there.is_file() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
                    wrong.append(f"{page.relative_to(ROOT)}: {target}")
        self.assertEqual(wrong, [])

    def test_named_elsewhere(self) -> None:
        """Pages that code, units and rules name are there, with the heading that is named."""
        wrong, seen = [], 0
        for folder in NAMING:
            for file in (ROOT / folder).rglob("*"):
                if file.suffix in (".py", ".c", ".h", ".service", ".yml", ".toml", ".conf", ".rules"):
                    for path, anchor in re.findall(r"\bdocs/([\w./-]+\.md)(?:#([\w-]+))?", file.read_text(errors="replace")):
                        seen += 1
                        page = DOCS / path
                        if not page.is_file() or (anchor and anchor not in anchors(page)):
                            wrong.append(f"{file.relative_to(ROOT)}: docs/{path}#{anchor}")
        self.assertEqual(wrong, [])
        self.assertGreater(seen, 30)

    def test_every_page_has_its_place(self) -> None:
        """Each page is of one of the four kinds: the index names it, or its folder."""
        index = (DOCS / "index.md").read_text()
        kinds = re.findall(r"^:caption: (.+)$", index, flags=re.M)
        self.assertEqual(kinds, ["Tutorials", "How to", "Reference", "Explanation"])
        entries = re.findall(r"^([\w/*.-]+)$", index, flags=re.M)
        for page in DOCS.rglob("*.md"):
            name = page.relative_to(DOCS).with_suffix("").as_posix()
            self.assertTrue(name == "index" or any(Path(name).match(entry) for entry in entries), name)
