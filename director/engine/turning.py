"""Whether what turns beside the reactor turns. The reactor needs no look: it is what looks."""

from __future__ import annotations

from collections.abc import Mapping

from director.relay.interface import Relay

#: A relay's thread that has not come around for so long hangs. A round serves at most a batch of events, each of which moves
#: at most half a megabyte: a tenth of a second. The rest is for a machine that gives nobody a turn.
STUCK_S = 5.0


def stuck(relays: Mapping[str, Relay]) -> str:
    """What hangs, in words; empty: nothing. To be asked every few seconds (`Relay.owes_s`)."""
    for name, relay in relays.items():
        if (owes_s := relay.owes_s()) >= STUCK_S:
            return f"a thread of the {name} relay has not turned for {owes_s:.0f} s"
    return ""
