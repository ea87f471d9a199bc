"""On which line of a TOML document each key stands.

``tomllib`` does not tell. This reads the same text once more, for keys only: it trusts that the document is valid
(``tomllib`` has accepted it) and skips over values without understanding them.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left

from cluster.validate import join

_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_SPACES = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
#: Strings of all four kinds (a multi-line one may end in up to five quotes), else everything up to a delimiter.
_SCALAR = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\]|\\.)*"' r"|'[^']*'" r"|[^,\]}\s#]+(?: \d[^,\]}\s#]*)?",
    re.DOTALL,
)
#: The last step of a place: ``.key``, ``."quoted key"`` or ``[3]``.
_LAST_STEP = re.compile(r'(?:^|\.)(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*")$|\[\d+\]$')


class Lines:
    """The lines of one document's keys, by place (`cluster.validate.join`)."""

    def __init__(self, text: str) -> None:
        """:param text: a valid TOML document."""
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._ends = [end.start() for end in re.finditer("\n", self._text)]
        self._lines: dict[str, int] = {}
        self._counts: dict[str, int] = {}  # items so far of each array of tables
        self._document()

    def line(self, place: str) -> int | None:
        """Where *place* is set, or what contains it; None for what the document does not mention at all."""
        while place:
            if place in self._lines:
                return self._lines[place]
            place = self.outer(place)
        return None

    def exact(self, place: str) -> int | None:
        """Where *place* itself is set; None: it is not."""
        return self._lines.get(place)

    @staticmethod
    def outer(place: str) -> str:
        """What contains *place*."""
        return _LAST_STEP.sub("", place)

    # --- the grammar, as far as keys need it ---

    def _document(self) -> None:
        table = ""
        while self._skip(_BLANK) < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._key("", brackets=2)
            elif self._text.startswith("[", self._at):
                table = self._key("", brackets=1)
            else:
                self._pair(table)

    def _pair(self, table: str) -> None:
        place = self._key(table)
        self._skip(_SPACES)
        self._at += 1  # the equals sign
        self._value(place)

    def _key(self, place: str, *, brackets: int = 0) -> str:
        """Read a dotted key (a table's header with *brackets*) and note every step of it."""
        line = self._line()
        self._at += brackets
        while True:
            self._skip(_SPACES)
            place = join(place, self._name())
            self._lines.setdefault(place, line)
            self._skip(_SPACES)
            more = self._text.startswith(".", self._at)
            if brackets == 2 and not more:
                self._counts[place] = self._counts.get(place, 0) + 1
            if brackets and place in self._counts:
                place = join(place, self._counts[place] - 1)
                self._lines.setdefault(place, line)
            if not more:
                self._at += brackets
                return place
            self._at += 1

    def _name(self) -> str:
        start = self._at
        self._skip(_KEY)
        text = self._text[start : self._at]
        return str(tomllib.loads(f"name = {text}")["name"]) if text[0] in "\"'" else text

    def _value(self, place: str) -> None:
        self._skip(_BLANK)
        if self._text.startswith("[", self._at):
            self._items("]", place)
        elif self._text.startswith("{", self._at):
            self._items("}", place)
        else:
            self._skip(_SCALAR)

    def _items(self, end: str, place: str) -> None:
        """An array, or an inline table."""
        self._at += 1
        index = 0
        while self._skip(_BLANK) < len(self._text) and self._text[self._at] != end:
            if end == "]":
                self._lines[join(place, index)] = self._line()
                self._value(join(place, index))
            else:
                self._pair(place)
            index += 1
            self._skip(_BLANK)
            if self._text.startswith(",", self._at):
                self._at += 1
        self._at += 1

    def _line(self) -> int:
        return bisect_left(self._ends, self._at) + 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return self._at
