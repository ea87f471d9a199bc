"""Puts what is made from the code where a page says ``<!-- generated: KIND WORDS -->``, when Sphinx reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from docs._ext.api import api_page
from docs._ext.commands import program_page
from docs._ext.keys import keys_page

#: What can be made, by its kind. Each takes the marker's further words.
KINDS: Mapping[str, Callable[..., str]] = {"program": program_page, "api": api_page, "keys": keys_page}

#: Diagrams that the code makes of its tables of transitions; GitHub draws them, and the site lays out the tables.
_DIAGRAM = re.compile(r"^```mermaid\nstateDiagram-v2\n(.+?)^```$", re.M | re.S)
_MARKER = re.compile(r"^<!-- generated: (.+) -->$", re.M)


def expanded(text: str) -> str:
    """*text* with every marker replaced.

    :raises KeyError: nothing is made under that name.
    """
    def made(found: re.Match[str]) -> str:
        kind, *words = found[1].split()
        return KINDS[kind](*words)

    return _DIAGRAM.sub(_table, _MARKER.sub(made, text))


def _table(diagram: re.Match[str]) -> str:
    """The transitions as rows; what leads to one and the same is a list in its cell."""
    rows = ["| from | to | when |", "|---|---|---|"]
    for line in diagram[1].splitlines():
        before, _, rest = line.strip().partition(" --> ")
        after, _, when = rest.partition(": ")
        rows.append(f"| {before.replace('[*]', '–')} | {after.replace('[*]', '–')} | {when.replace('<br/>or ', '; ')} |")
    return "\n".join(rows)


def _read(app: Any, name: str, source: list[str]) -> None:
    source[0] = expanded(source[0])


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
