"""The state that passes from one process to the next, in sections that are versioned each by itself.

A section is a name, the version of its form, and MessagePack. A process takes the sections whose version it knows; fields
that it does not know are left out. Of what it did not get it knows as little as after an ordinary start, and asks: the hosts
are probed before anybody is sent to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

#: By name, what this release writes and reads. A change that new fields with defaults do not cover raises the version.
VERSIONS: Mapping[str, int] = {"hosts": 1, "sticky": 1, "orders": 1, "counted": 1, "leases": 1}
Sections = dict[str, tuple[int, bytes]]


def write(name: str, value: Any) -> tuple[int, bytes]:
    """One section."""
    return VERSIONS[name], msgspec.msgpack.encode(value)


def read(sections: Sections, name: str, kind: type[T]) -> T | None:
    """One section; None when it is not there, or of another version or form."""
    version, data = sections.get(name, (0, b""))
    if version != VERSIONS[name]:
        return None
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError):
        return None
