"""How many clients come from where, and how fast: the first question to a newcomer, before anything is spent on it.

A client is known by its network: an IPv4 address or a /64 of IPv6, unless the service's limits say otherwise. A service
counts for each network the open connections, and with a token bucket the new ones; with one more bucket its own new ones. A
bucket holds a second's worth, one connection at least. A client that is refused takes no token, so that what somebody does
beyond his rate neither costs nor gains him anything, and a network's refusals take nothing from the service's rate.

Two tables: networks with open connections, as many as there are connections at most; and those that have none but whose
bucket is not full again, `MAX_IDLE` at most. Beyond that the one that was silent longest is forgotten: it has a full bucket
again, which gains an attacker nothing that having so many networks has not.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.errors import Misuse
from cluster.model import Limits, Reason
from director.core.access import MAPPED
from director.core.bucket import TokenBucket

#: Networks remembered for their rate alone; each takes about 250 bytes, so 16 MB of a service.
MAX_IDLE = 65_536
#: Of these, looked at whenever one joins them: more than join, so that what is full again goes.
SWEPT = 2
#: By which a client is known unless somebody says otherwise. A customer of a provider has a whole /64 of IPv6, at least.
V4_BITS, V6_BITS = 32, 64


class _Network:
    """One network's open connections and its bucket."""

    __slots__ = ("at", "open", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.open = 0
        self.tokens = tokens  #: at `at`
        self.at = now


class Arrivals:
    """One service's. Times are monotonic seconds; clients are packed addresses, None for those of UNIX sockets, which have
    no network and only the service's rate.

    :param present: the clients of connections that are open.
    """

    def __init__(self, limits: Limits, now: float, present: Iterable[bytes | None] = (), *,
                 max_idle: int = MAX_IDLE) -> None:
        self._open: dict[bytes, _Network] = {}
        self._idle: dict[bytes, _Network] = {}  # whoever was heard of last is last
        self._max_idle = max_idle
        self._set(limits, now)
        for client in present:
            if client is not None:
                self._open.setdefault(self.network(client), _Network(self._burst, now)).open += 1

    @staticmethod
    def limited(limits: Limits) -> bool:
        """Whether these limits need anything counted here."""
        return bool(limits.max_connections_per_client or limits.new_per_s or limits.new_per_client_per_s)

    @property
    def networks(self) -> int:
        """How many are remembered."""
        return len(self._open) + len(self._idle)

    @property
    def prefixes(self) -> tuple[int, int]:
        """The bits of an IPv4 and of an IPv6 network."""
        return self._v4, self._v6

    def configure(self, limits: Limits, now: float) -> None:
        """From now on; counts are kept, and buckets as full as they may be. The prefixes must be those of before.

        Nobody who is there is thrown out."""
        self._set(limits, now)

    def network(self, client: bytes) -> bytes:
        """What *client* is known by."""
        return network_of(client, self._v4, self._v6)

    def enter(self, client: bytes | None, now: float) -> Reason | None:
        """A client came.

        :returns: None, and it is counted until `leave`; or why it is refused: CLIENT_FULL, CLIENT_RATE, SERVICE_RATE.
        """
        pace = self._pace
        if client is None:
            return None if pace is None or pace.take(now) else Reason.SERVICE_RATE
        key = self.network(client)
        network = self._open.get(key)
        if network is None:
            network = self._idle.pop(key, None) or _Network(self._burst, now)
        refusal = self._refusal(network, now)
        if refusal is None:
            network.open += 1
            network.tokens -= 1
            self._open[key] = network
        elif not network.open:
            self._rest(key, network, now)
        return refusal

    def leave(self, client: bytes | None, now: float) -> None:
        """A client that was counted is gone.

        :raises Misuse: nobody of its network is there.
        """
        if client is None:
            return
        key = self.network(client)
        network = self._open.get(key)
        if network is None:
            raise Misuse("nobody of this network is there")
        network.open -= 1
        if not network.open:
            del self._open[key]
            self._rest(key, network, now)

    def _set(self, limits: Limits, now: float) -> None:
        self._v4, self._v6 = limits.client_ipv4_prefix, limits.client_ipv6_prefix
        self._most = limits.max_connections_per_client or float("inf")
        self._rate = limits.new_per_client_per_s
        self._burst = max(1.0, self._rate)
        rate = limits.new_per_s
        self._pace = TokenBucket(rate, max(1.0, rate), now) if rate else None

    def _refusal(self, network: _Network, now: float) -> Reason | None:
        if network.open >= self._most:
            return Reason.CLIENT_FULL
        if self._rate:
            self._fill(network, now)
            if network.tokens < 1:
                return Reason.CLIENT_RATE
        if self._pace is not None and not self._pace.take(now):
            return Reason.SERVICE_RATE
        return None

    def _fill(self, network: _Network, now: float) -> None:
        network.tokens = min(self._burst, network.tokens + max(0.0, now - network.at) * self._rate)
        network.at = now

    def _rest(self, key: bytes, network: _Network, now: float) -> None:
        """It has no connections: remember it as long as that makes a difference, and make room."""
        if not self._rate:
            return
        self._idle[key] = network
        for each in [each for each, _ in zip(self._idle, range(SWEPT), strict=False)]:
            self._fill(self._idle[each], now)
            if self._idle[each].tokens >= self._burst:
                del self._idle[each]
        while len(self._idle) > self._max_idle:
            del self._idle[next(iter(self._idle))]


def network_of(client: bytes, v4: int = V4_BITS, v6: int = V6_BITS) -> bytes:
    """What *client* is known by: a byte for the family, and as many bits of its address as are given."""
    if len(client) == 16:
        if not client.startswith(MAPPED):
            return b"6" + _cut(client, v6)
        client = client[12:]
    return b"4" + _cut(client, v4)


def _cut(packed: bytes, bits: int) -> bytes:
    """The first *bits*; the others are zero, or left out by the byte."""
    whole, rest = divmod(bits, 8)
    if not rest:
        return packed[:whole]
    return packed[:whole] + bytes((packed[whole] >> (8 - rest) << (8 - rest),))
