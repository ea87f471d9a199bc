"""Addresses on the web, as far as one is posted to."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit


class Url(NamedTuple):
    """Where to post to."""

    secure: bool
    host: str
    port: int
    target: str  #: path and query
    authority: str  #: as the Host header has it


def parse_url(text: str) -> Url:
    """:raises ValueError: why *text* is no URL that can be posted to."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected http://HOST/PATH or https://HOST/PATH")
    if parts.username is not None or parts.fragment:
        raise ValueError("a user's name or a fragment has no place in it")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not re.fullmatch(r"[!-~]+", target + parts.netloc):
        raise ValueError("other characters than ASCII's without blanks are to be percent-encoded")
    secure = parts.scheme == "https"
    return Url(secure, parts.hostname, parts.port or (443 if secure else 80), target, parts.netloc)
