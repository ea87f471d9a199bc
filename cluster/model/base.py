"""What every record is built of: the base of them all, and the kinds of their fields."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,63}\Z"

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST_NAME_PATTERN = rf"^{_LABEL}(\.{_LABEL})*\Z"
SERVER_NAME_PATTERN = rf"^(\*|(\*\.)?{_LABEL}(\.{_LABEL})*)\Z"

HASH_PATTERN = r"^\$(argon2|2[aby]\$)"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
UserName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}[$]?$")]
#: Thirty years. More is a mistake, and infinity none of the ways to keep a value can hold: JSON makes null of it.
MAX_SECONDS = 1e9
Seconds = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
SecondsOrOff = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]
Moment = Annotated[float, Meta(ge=0, le=253_402_300_799)]  # POSIX seconds; calendars of programs end with the year 9999
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
#: Of events in a second; more than this no machine does.
Rate = Annotated[float, Meta(ge=0, le=1_000_000)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(ge=0, le=1_000_000)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of every configured or stored value: immutable, keyword-only, unknown keys are errors."""


class Shared(Record, frozen=True, forbid_unknown_fields=False):
    """Base of what directors of different versions read of each other: unknown keys are ignored."""
