"""A socket filter that turns new clients of some addresses away, unanswered, while those of others come in.

A classic BPF program over TCP's header, attached to a listening socket (socket(7)): it drops what has SYN without ACK and is
sent to one of the addresses. So handshakes that are under way are finished, and whoever is turned away tries again after a
second.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

#: Instructions: load a byte, load a word, and with a mask, compare, return.
_BYTE, _WORD, _AND, _EQUAL, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x06
#: Where the IP header begins, from TCP's (SKF_NET_OFF).
_IP = 0xFFF00000
_FLAGS, _SYN, _SYN_ACK = 13, 0x02, 0x12
#: Of the destination in an IPv4 and an IPv6 header.
_TO_V4, _TO_V6 = 16, 24
_ALL = 0xFFFFFFFF
#: A jump is at most 255 instructions; more addresses than that are never turned away at once, for they move one by one.
MAX_ADDRESSES = 24


def program(addresses: Collection[IPv4Address | IPv6Address]) -> bytes:
    """The instructions, as the kernel takes them (``struct sock_filter``)."""
    if len(addresses) > MAX_ADDRESSES:
        raise ValueError(f"{len(addresses)} addresses, not more than {MAX_ADDRESSES} are turned away at once")
    code = [(_BYTE, 0, 0, _FLAGS), (_AND, 0, 0, _SYN_ACK), (_EQUAL, 1, 0, _SYN), (_RETURN, 0, 0, _ALL),
            (_BYTE, 0, 0, _IP), (_AND, 0, 0, 0xF0)]
    v4 = [each for each in addresses if each.version == 4]
    of_v4 = [(_WORD, 0, 0, _IP + _TO_V4)]
    for each in v4:
        of_v4 += [(_EQUAL, 0, 1, int(each)), (_RETURN, 0, 0, 0)]
    of_v4.append((_RETURN, 0, 0, _ALL))
    of_v6: list[tuple[int, int, int, int]] = []
    for address in addresses:
        if address.version == 6:
            words = struct.unpack("!4I", address.packed)
            for number, word in enumerate(words):
                # each pair that is left of this address, and its return
                of_v6 += [(_WORD, 0, 0, _IP + _TO_V6 + 4 * number), (_EQUAL, 0, 2 * (3 - number) + 1, word)]
            of_v6.append((_RETURN, 0, 0, 0))
    of_v6.append((_RETURN, 0, 0, _ALL))
    code.append((_EQUAL, 0, len(of_v4), 0x40))
    return b"".join(struct.pack("HBBI", *each) for each in [*code, *of_v4, *of_v6])
