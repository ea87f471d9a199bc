"""What a probe says to a host and makes of its answers, without a socket: `director.checks.probes` has that."""

from __future__ import annotations


class ProbeFailed(Exception):
    """The host did not pass; says why."""


class Dialogue:
    """One conversation. Bytes come whole or in pieces; after `heard` answered None, nothing more is given to it.

    :cvar before_tls: said in plain where the probe has TLS, which begins when the host says `agrees`; empty: at once.
    :ivar seen: what made the host pass, for people.
    :ivar weight: what the host said of its weight.
    :ivar farewell: said once the result is known.
    """

    before_tls = b""
    agrees = b""

    def __init__(self) -> None:
        self.seen = ""
        self.weight: float | None = None
        self.farewell = b""

    def begin(self) -> bytes:
        """What to say first; empty: the host speaks first."""
        return b""

    def heard(self, data: bytes) -> bytes | None:
        """The host said *data*; answers what to say now, which may be nothing, or None: it has passed.

        :raises ProbeFailed: it has not.
        """
        raise NotImplementedError

    def passed_anyway(self) -> bool:
        """Whether a host that ended the connection now has said enough."""
        return False
