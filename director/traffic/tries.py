"""What only those clients need whose first try failed, or that carry a PROXY header."""

from __future__ import annotations

from collections.abc import Collection

from cluster.address import Address
from director.core.host import Host

#: Hosts tried for one client. Three different hosts refusing means that the trouble is not one host's.
MAX_TRIES = 3
#: Addresses tried of one host for one client. Names of a host have two, one of each family; many addresses of one name are
#: many hosts, and to go through them all would take the client's time.
MAX_ADDRESSES = 4
#: Hosts passed over for one client because no port was left to connect to them from. Each may cost the kernel a search
#: through all its ports, so there must be an end.
MAX_PASSED = 16
#: After a host had no port left it is passed over for so long, unasked: that search takes 1 ms for 9,000 ports (measured),
#: 3 ms for Linux's 28,000, and they are the reactor's.
NO_PORT_S = 0.05
#: A host that failed a client is avoided for so long by those whose first try failed: until its health has been judged, by
#: the next clients or probes. When many hosts die at once, else, a client may meet none but dead ones in all of its tries.
AVOID_S = 1.0
#: Of so many hosts, the last ones: a set of them is made for each failed try.
MAX_AVOIDED = 64


class Tries:
    """The tries of one client."""

    __slots__ = ("address", "addresses", "deadline", "destination", "extensions", "failed", "short", "tried")

    def __init__(self, destination: Address | None = None, extensions: bytes = b"") -> None:
        self.deadline = 0.0  #: of all tries; set when the first one fails
        self.tried: tuple[Host, ...] = ()  #: not to be picked again
        self.failed = 0  #: of these, how many did not answer
        self.short = False  #: one could not be tried, for a shortage of our own
        self.address: Address | None = None  #: being connected to, where the host has others
        self.addresses = 0  #: of the host that were tried
        self.destination = destination  #: what the client connected to, by a PROXY header
        self.extensions = extensions  #: of that header

    @property
    def may_pass_over(self) -> bool:
        return len(self.tried) - self.failed < MAX_PASSED

    def begin(self, address: Address, others: int) -> int:
        """A connect to *address*, of a host with so many *others*, begins. Returns how many are left, this one included."""
        self.address = address
        self.addresses += 1
        return max(1, min(1 + others, MAX_ADDRESSES) + 1 - self.addresses)

    def next_host(self) -> None:
        """The host at hand was given up."""
        self.address, self.addresses = None, 0


class Failing:
    """Hosts that have failed a client lately."""

    def __init__(self) -> None:
        self._until: dict[Host, float] = {}  # in the order of time

    def failed(self, host: Host, now: float) -> None:
        self._until.pop(host, None)
        self._until[host] = now + AVOID_S
        if len(self._until) > MAX_AVOIDED:
            del self._until[next(iter(self._until))]

    def hosts(self, now: float) -> Collection[Host]:
        for host in [host for host, until in self._until.items() if until <= now]:
            del self._until[host]
        return self._until.keys()
