"""Who owns the virtual addresses, by promises: one director's part in it, without I/O and without a clock.

    timing     the constants, and the inequalities that bind them
    words      what is said: beats, transactions, what is seen of the store, what is to be done
    state      what a director remembers, and what follows from it alone
    owner      an owner's part: evidence, the fence's limit, who may campaign, a deleted record
    standby    everybody else's: promises, suspicion, campaigns, winning
    machine    both together: `Takeover`
    records    the record in the store, as the machine has it and as it is written
"""

from cluster.takeover.machine import Takeover
from cluster.takeover.records import as_written, comparisons, operations, sighted
from cluster.takeover.timing import Timing
from cluster.takeover.words import (
    Ack,
    Beat,
    CloseFence,
    Commit,
    Effect,
    Gained,
    Kind,
    Lost,
    OpenFence,
    Outcome,
    Read,
    Reign,
    SendAck,
    SendBeat,
    SendBye,
    Transaction,
)

__all__ = [
    "Ack", "Beat", "CloseFence", "Commit", "Effect", "Gained", "Kind", "Lost", "OpenFence", "Outcome", "Read", "Reign",
    "SendAck", "SendBeat", "SendBye", "Takeover", "Timing", "Transaction", "as_written", "comparisons", "operations",
    "sighted",
]
