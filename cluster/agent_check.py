"""HAProxy's agent-check: what a responder says in a line, parsed and composed. No I/O.

Source: HAProxy's configuration manual, ``agent-check``; what it leaves open is as HAProxy 2.6 does it, which
``tests/integration/test_agent_check_haproxy.py`` holds against a real one:

- The line ends with the first CR or LF; one that does not end is incomplete, and says nothing. What comes after is ignored.
- Words are separated by blanks, tabs and commas, in any case; of several of a kind the last one counts.
- ``#`` at the beginning of a word begins the description, for which only a word on health has a use.
- A word that is unknown or broken says nothing, and those of other kinds count.
- What is not said does not change.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, cast

Admin = Literal["ready", "drain", "maint"]
Health = Literal["up", "down", "fail", "stopped"]

#: A line may have so many bytes; HAProxy's own buffer is larger, but all words together have less than a hundred.
MAX_LINE_BYTES = 4096
#: HAProxy takes more than 100 %, and counts what is above this as this.
MOST_PERCENT = 25_600
#: What HAProxy keeps as a C int.
MOST_CONNECTIONS = 2**31 - 1
#: A description is for people; as much as fits one line of a page.
MAX_WHY = 200

_END = re.compile(rb"[\r\n\0]")
_SEPARATORS = re.compile(r"[ \t,]+")
_DESCRIPTION = re.compile(r"(?:^|(?<=[ \t,]))#")
_DIGITS = "0123456789"
_MAXCONN = "maxconn:"


class Answer(NamedTuple):
    """What one line says. None: nothing about this."""

    percent: int | None = None  #: of the configured weight
    max_connections: int | None = None  #: 0: no maximum
    admin: Admin | None = None
    health: Health | None = None
    why: str = ""  #: the description, of *health*
    unknown: tuple[str, ...] = ()  #: words that are none


def first_line(data: bytes) -> bytes | None:
    """The line that *data* begins with; None while it has not ended, or if it never can."""
    end = _END.search(data, 0, MAX_LINE_BYTES)
    return None if end is None or end[0] == b"\0" else data[:end.start()]


def parse(line: bytes) -> Answer:
    """What *line*, without its end, says. Never fails: garbage is words that are unknown."""
    text = line.decode("utf-8", "backslashreplace")
    sharp = _DESCRIPTION.search(text)
    words = text if sharp is None else text[:sharp.start()]
    percent = max_connections = admin = health = None
    unknown = []
    for word in filter(None, _SEPARATORS.split(words)):
        lower, understood = word.lower(), True
        if lower in ("up", "down", "fail", "stopped"):
            health = cast("Health", lower)
        elif lower in ("ready", "drain", "maint"):
            admin = cast("Admin", lower)
        elif lower[0] in _DIGITS and "%" in lower:
            percent = _number(lower.removesuffix("%"), MOST_PERCENT)
            understood = percent is not None
        elif lower.startswith(_MAXCONN):
            max_connections = _number(lower.removeprefix(_MAXCONN), MOST_CONNECTIONS)
            understood = max_connections is not None
        else:
            understood = False
        if not understood:
            unknown.append(word)
    why = text[sharp.end():].strip(" \t")[:MAX_WHY] if sharp is not None and health is not None else ""
    return Answer(percent, max_connections, admin, health, why, tuple(unknown))


def _number(digits: str, most: int) -> int | None:
    """The number, or *most*, without parsing thousands of digits; None for what is no number."""
    if not digits or digits.strip(_DIGITS):
        return None
    digits = digits.lstrip("0")
    return most if len(digits) > len(str(most)) else min(int(digits or "0"), most)


def compose(answer: Answer) -> bytes:
    """The line that says *answer*, with its end. Its description, of a health word only, loses line ends."""
    words: list[str] = []
    if answer.percent is not None:
        words.append(f"{answer.percent}%")
    if answer.max_connections is not None:
        words.append(f"maxconn:{answer.max_connections}")
    if answer.admin is not None:
        words.append(answer.admin)
    if answer.health is not None:
        words.append(answer.health)
        if answer.why:
            words.append("#" + re.sub(r"[\r\n\0]+", " ", answer.why)[:MAX_WHY])
    return " ".join(words).encode() + b"\n"
