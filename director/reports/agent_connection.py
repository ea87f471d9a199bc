"""What is told of an agent that is connected."""

from __future__ import annotations

from typing import NamedTuple

#: In place of the release that an agent does not tell: those before it was told, and those of others.
UNKNOWN_RELEASE = "unknown"


class AgentConnection(NamedTuple):
    """One agent, for an operator's eye."""

    agent: str
    identity: str  #: '' when none are configured
    boot_id: str
    address: str
    since: float  #: POSIX seconds
    heard_s: float  #: seconds since its last message
    seq: int
    hosts: tuple[str, ...]  #: that it speaks for
    refused: dict[str, str]  #: hosts that it claimed in vain, and why
    leaving: bool
