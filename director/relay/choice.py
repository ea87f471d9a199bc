"""Which relay a service gets, and why."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, NamedTuple


class Choice(NamedTuple):
    """A relay's name, and the reason in words."""

    name: Literal["native", "python"]
    why: str


def native_missing() -> str:
    """Why this installation cannot use the native relay; empty when it can."""
    return "" if find_spec("director.relay._relay") else "its extension was not built"


def choose(wanted: Literal["auto", "native", "python"], missing: str) -> Choice:
    """:param missing: what `native_missing` says."""
    if wanted == "python":
        return Choice("python", "as configured")
    if not missing:
        return Choice("native", "as configured" if wanted == "native" else "the fastest there is")
    return Choice("python", f"{'native was asked for, but' if wanted == 'native' else 'no native relay:'} {missing}")
