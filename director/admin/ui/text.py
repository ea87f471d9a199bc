"""Numbers and times as people read them. Pure; used by templates and by live cells alike, so that both say the same."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

#: What is said where a value is unknown; never 0.
UNKNOWN = "–"

#: Of a page, as an address has it: there are never a million.
_PAGE = re.compile(r"[0-9]{1,6}")


def page_number(given: str) -> int:
    """From 1; the first one when *given* is none."""
    return max(1, int(given)) if _PAGE.fullmatch(given) else 1


def number(value: float | None, digits: int = 2) -> str:
    """At most *digits* decimals, thousands apart by a thin space."""
    if value is None:
        return UNKNOWN
    if abs(value) >= 1e9:
        return f"{value:.3g}"
    text = f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return text.rstrip("0").rstrip(".") if digits and "." in text else text


def fixed(value: float | None) -> str:
    """Two decimals, so that a column of them lines up; none from 1,000 on."""
    if value is None:
        return UNKNOWN
    return f"{value:.2f}" if abs(value) < 1000 else number(value, 0)


def percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value * 100:.0f} %"


def share(value: float) -> str:
    """A small one with two digits, for a thousand hosts have a thousandth each; none is a dash."""
    return percent(value or None) if value >= 0.095 or not value else f"{value * 100:.2g} %"


def count(value: int, most: int = 0) -> str:
    """Of at most *most*; 0 is no maximum."""
    return f"{number(value, 0)} / {number(most, 0)}" if most else number(value, 0)


def size(bytes_: int) -> str:
    """Bytes, in powers of 1,000."""
    value, unit = float(bytes_), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.1f} {unit}" if unit != "B" and value < 10 else f"{value:.0f} {unit}"


def duration(seconds: float | None) -> str:
    """In the two largest units that matter: ``350 ms``, ``4 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0005 or seconds <= 0 else f"{seconds * 1000:.2g} ms"
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next(index for index, (value, _) in enumerate(parts) if value)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value)


def heard(age_s: float | None) -> str:
    """How long ago a heartbeat came. Coarse, so that healthy hosts read the same from one second to the next."""
    if age_s is None:
        return UNKNOWN
    return "< 2 s" if age_s < 2 else duration(int(age_s))


def ago(at: float | None, now: float) -> str:
    """Both POSIX seconds."""
    if at is None:
        return UNKNOWN
    return "now" if abs(now - at) < 1 else f"{duration(now - at)} ago" if now > at else f"in {duration(at - now)}"


def iso(at: float) -> str:
    """POSIX seconds as a machine reads them, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc(at: float) -> str:
    """POSIX seconds as people read them."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def value(it: object, most: int = 300) -> str:
    """Something of a configuration, at most *most* characters of it."""
    text = it if isinstance(it, str) else msgspec.json.encode(it).decode()
    return text if len(text) <= most else text[: most - 1] + "…"
