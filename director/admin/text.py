"""An answer that is text by itself, where others are data for the transport to encode."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    body: str
    media_type: str = "text/plain"
