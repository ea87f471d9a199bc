"""Who may connect: sets of networks, asked once for every accepted connection.

A set keeps, for each distinct prefix length, the prefixes of that length as integers; a question costs one shift and
one hash lookup per distinct length, however many networks there are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cluster.errors import Misuse
from cluster.model import Access

#: The first 12 bytes of an IPv4 address mapped into IPv6 (RFC 4291, 2.5.5.2): how a dual-stack listener sees IPv4.
MAPPED = bytes(10) + b"\xff\xff"


#: Among networks that are trusted: clients of UNIX sockets.
UNIX_PEERS = "unix"


class Networks:
    """An immutable set of IP networks. ``packed in networks`` takes an address of 4 or 16 bytes.

    IPv4 mapped into IPv6 is IPv4, in addresses and in networks alike: ``10.0.0.0/8`` holds ``::ffff:10.1.2.3``, and
    ``::/0`` is all of IPv6 and nothing of IPv4.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(self, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
        v4: dict[int, set[int]] = {}
        v6: dict[int, set[int]] = {}
        for network in networks:
            address, length = network.network_address, network.prefixlen
            if address.version == 6 and address.ipv4_mapped is not None and length >= 96:
                address, length = address.ipv4_mapped, length - 96
            shift = address.max_prefixlen - length
            (v4 if address.version == 4 else v6).setdefault(shift, set()).add(int(address) >> shift)
        self._v4 = tuple((shift, frozenset(prefixes)) for shift, prefixes in sorted(v4.items()))
        self._v6 = tuple((shift, frozenset(prefixes)) for shift, prefixes in sorted(v6.items()))

    def __bool__(self) -> bool:
        return bool(self._v4 or self._v6)

    def __contains__(self, packed: bytes) -> bool:
        """:raises Misuse: unless *packed* has 4 or 16 bytes."""
        if len(packed) == 16:
            if packed.startswith(MAPPED):
                packed, table = packed[12:], self._v4
            else:
                table = self._v6
        elif len(packed) == 4:
            table = self._v4
        else:
            raise Misuse(f"an address has 4 or 16 bytes, not {len(packed)}")
        number = int.from_bytes(packed, "big")
        for shift, prefixes in table:  # noqa: SIM110 - a generator would double the cost
            if number >> shift in prefixes:
                return True
        return False


def parse_networks(texts: Iterable[str]) -> Networks:
    """Networks (``10.0.0.0/8``) or single addresses (``::1``). Bits beyond the prefix are ignored.

    :raises ValueError: naming the text that is neither.
    """
    networks = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise ValueError(f"{text!r} is neither a network nor an IP address") from None
    return Networks(networks)


class AccessList:
    """A service's `Access`, compiled: *deny* first, then *allow*, where an empty *allow* lets everyone in.

    :raises ValueError: naming the network that doesn't parse.
    """

    __slots__ = ("_allow", "_anybody", "_deny")

    def __init__(self, access: Access) -> None:
        self._deny = parse_networks(access.deny)
        self._allow = parse_networks(access.allow)
        self._anybody = not (self._deny or self._allow)

    def allows(self, client: bytes | None) -> bool:
        """Whether *client* (packed address) may connect. UNIX clients (None) always may: their socket's file mode
        guards them."""
        if client is None or self._anybody:
            return True
        if self._deny and client in self._deny:
            return False
        return not self._allow or client in self._allow
