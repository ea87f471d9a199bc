"""Which relay a service gets, and why."""

from __future__ import annotations

from importlib import import_module
from typing import Literal, NamedTuple


class Choice(NamedTuple):
    """A relay's name, and the reason in words."""

    name: Literal["native", "python"]
    why: str


def native_missing() -> str:
    """Why this installation cannot use the native relay; empty when it can."""
    try:
        import_module("director.relay._relay")
    except ModuleNotFoundError:
        return "its extension was not built"
    except ImportError as error:  # for another processor or C library
        return f"its extension does not load: {error}"
    return ""


def choose(wanted: Literal["auto", "native", "python"], missing: str) -> Choice:
    """:param missing: what `native_missing` says."""
    if wanted == "python":
        return Choice("python", "as configured")
    if not missing:
        return Choice("native", "as configured" if wanted == "native" else "the fastest there is")
    return Choice("python", f"{'native was asked for, but' if wanted == 'native' else 'no native relay:'} {missing}")
