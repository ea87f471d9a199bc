"""A director in one line, for `systemctl status`. Pure."""

from __future__ import annotations

from director.core.snapshot import TotalsPicture


def headline(totals: TotalsPicture, *, leads: bool, store_available: bool, isolated: bool) -> str:
    """What an operator looks for first: how much there is to do, who is there to do it, and what is out of order."""
    parts = [
        _count(len(totals.services), "service"),
        _count(totals.connections, "connection") + (f" and {totals.queued} queued" if totals.queued else ""),
        f"{totals.in_rotation} of {_count(totals.hosts, 'host')} in rotation",
    ]
    troubles = {
        "leading": leads,
        "the store does not answer": not store_available,
        "hardly any agent is heard": isolated,
        "not all groups have a healthy host": any(each.failing_open for each in totals.notable),
    }
    return "; ".join([f"serving {', '.join(parts)}", *(what for what, holds in troubles.items() if holds)])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
