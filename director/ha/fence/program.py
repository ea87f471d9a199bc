"""The program of the fence, which the kernel runs for every packet that enters or leaves an interface. Pure.

A packet is dropped that would have this machine answer for a virtual address, or that is such an answer, unless the
clock (CLOCK_BOOTTIME) is before the address's deadline:

    entering   ARP that asks for it; IPv4 and IPv6 to it; a neighbour solicitation that asks for it
    leaving    ARP that says it; IPv4 and IPv6 from it; a neighbour advertisement that says it

What others say of an address that is theirs passes, so that this machine reaches them: a new owner's announcement, answers
from the address. So does what this machine only forwards: what its routes lead elsewhere, and what came from elsewhere. Two
maps say what is fenced: from an address (16 bytes; IPv4 as in RFC 4291, 2.5.5.2) to a slot, and from the slot to the
deadline, nanoseconds. Whatever is no such address passes, after one look into the first map.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from director.ha.fence.assembler import BELOW, BYTE, DOUBLE, EQUAL, FRAME, UNEQUAL, WORD, Code

#: The kernel's functions (enum bpf_func_id).
_LOOKUP, _LOAD_RELATIVE, _ROUTE, _BOOT_CLOCK = 1, 68, 69, 125
_FROM_NETWORK_HEADER = 1  # BPF_HDR_START_NET: so tags and link headers of any length matter not
_PROTOCOL_AT, _CAME_BY_AT, _INTERFACE_AT = 16, 36, 40  # of struct __sk_buff: protocol, ingress_ifindex, ifindex
#: Answers of `_ROUTE` that lead elsewhere (BPF_FIB_LKUP_RET_*): SUCCESS, NO_NEIGH, FRAG_NEEDED.
_LEADS_ELSEWHERE = (0, 7, 8)
_PASS, _DROP = -1, 2  # TC_ACT_UNSPEC: whatever other filters say; TC_ACT_SHOT
_ETH_P_IP, _ETH_P_ARP, _ETH_P_IPV6 = (socket.htons(number) for number in (0x0800, 0x0806, 0x86DD))

# Where things are, from the network header on.
_IPV4_SOURCE, _IPV4_DESTINATION = 12, 16
_IPV6_NEXT_HEADER, _IPV6_SOURCE, _IPV6_DESTINATION = 6, 8, 24
_ICMPV6, _ICMPV6_TYPE_AT, _ND_TARGET_AT = 58, 40, 48
_SOLICITATION, _ADVERTISEMENT = 135, 136
_ARP_HARDWARE_BYTES_AT, _ARP_HEADER_BYTES = 4, 8

# Places on the stack.
_KEY, _SLOT, _BYTES = -16, -20, -24
#: struct bpf_fib_lookup, and in it: family, interface, source, destination.
_QUESTION, _QUESTION_BYTES = -96, 64
_FAMILY_AT, _BY_AT, _FROM_AT, _TO_AT = 0, 8, 16, 32
_CONTEXT = 6  # the register that keeps it

_MAPPED = struct.pack("=8xi", struct.unpack("=i", b"\0\0\xff\xff")[0])


def key(address: IPv4Address | IPv6Address) -> bytes:
    """Of the first map."""
    return _MAPPED + address.packed if address.version == 4 else address.packed


def classifier(addresses: int, deadlines: int, *, leaving: bool) -> bytes:
    """The program for packets that leave, or that enter; the maps by their descriptors."""
    code = Code()
    code.copy(_CONTEXT, 1)
    code.load(WORD, 8, _CONTEXT, _PROTOCOL_AT)
    code.jump("ipv4", EQUAL, 8, _ETH_P_IP)
    code.jump("ipv6", EQUAL, 8, _ETH_P_IPV6)
    code.jump("arp", EQUAL, 8, _ETH_P_ARP)
    code.label("pass")
    code.leave(_PASS)
    code.label("drop")
    code.leave(_DROP)

    code.label("ipv4")
    _read(code, _IPV4_SOURCE if leaving else _IPV4_DESTINATION, 4, _KEY + 12)
    _map_ipv4(code)
    _check(code, addresses, deadlines, "ipv4 checked", "ipv4 closed")
    code.jump("pass")
    code.label("ipv4 closed")
    _drop_unless_forwarded(code, socket.AF_INET, leaving=leaving)

    code.label("ipv6")
    _read(code, _IPV6_SOURCE if leaving else _IPV6_DESTINATION, 16, _KEY)
    _check(code, addresses, deadlines, "ipv6 checked", "ipv6 closed")
    for at, wanted in ((_IPV6_NEXT_HEADER, _ICMPV6), (_ICMPV6_TYPE_AT, _ADVERTISEMENT if leaving else _SOLICITATION)):
        _read(code, at, 1, _BYTES)
        code.load(BYTE, 1, FRAME, _BYTES)
        code.jump("pass", UNEQUAL, 1, wanted)
    _read(code, _ND_TARGET_AT, 16, _KEY)
    _check(code, addresses, deadlines, "target checked", "drop")
    code.jump("pass")
    code.label("ipv6 closed")
    _drop_unless_forwarded(code, socket.AF_INET6, leaving=leaving)

    # The addresses' places depend on how long those of the hardware are: header, sender's both, target's both.
    code.label("arp")
    _read(code, _ARP_HARDWARE_BYTES_AT, 1, _BYTES)
    code.load(BYTE, 8, FRAME, _BYTES)
    code.copy(2, 8)
    code.add(2, _ARP_HEADER_BYTES)
    _read(code, None, 4, _KEY + 12)
    if not leaving:  # asked for is what counts, unless the sender says that it is its own
        code.load(WORD, 7, FRAME, _KEY + 12)
        code.copy(2, 8)
        code.shift_left(2, 1)
        code.add(2, _ARP_HEADER_BYTES + 4)
        _read(code, None, 4, _KEY + 12)
        code.load(WORD, 1, FRAME, _KEY + 12)
        code.jump_compared("pass", EQUAL, 1, 7)
    _map_ipv4(code)
    _check(code, addresses, deadlines, "arp checked", "drop")
    code.jump("pass")
    return code.assemble()


def _read(code: Code, offset: int | None, length: int, place: int) -> None:
    """Copy so much of the packet onto the stack; None: from where register 2 says. What is too short for it is no packet of
    that kind."""
    code.copy(1, _CONTEXT)
    if offset is not None:
        code.set(2, offset)
    code.copy(3, FRAME)
    code.add(3, place)
    code.set(4, length)
    code.set(5, _FROM_NETWORK_HEADER)
    code.call(_LOAD_RELATIVE)
    code.jump("pass", UNEQUAL, 0, 0)


def _map_ipv4(code: Code) -> None:
    """Make a key of the IPv4 address that lies at its end."""
    for at in range(0, len(_MAPPED), 4):
        code.store_value(WORD, FRAME, _KEY + at, *struct.unpack_from("=i", _MAPPED, at))


def _check(code: Code, addresses: int, deadlines: int, open_label: str, closed: str) -> None:
    """To the label *closed*, if the address at `_KEY` is fenced and its deadline has passed."""
    _look_up(code, addresses, _KEY)
    code.jump(open_label, EQUAL, 0, 0)
    code.load(WORD, 1, 0, 0)
    code.store(WORD, FRAME, _SLOT, 1)
    _look_up(code, deadlines, _SLOT)
    code.jump("drop", EQUAL, 0, 0)
    code.load(DOUBLE, 7, 0, 0)
    code.call(_BOOT_CLOCK)
    code.jump_compared(open_label, BELOW, 0, 7)
    code.jump(closed)
    code.label(open_label)


def _drop_unless_forwarded(code: Code, family: socket.AddressFamily, *, leaving: bool) -> None:
    """Where to an address's packet goes that would be dropped is asked of the routes: nowhere else while it is here."""
    if leaving:
        code.load(WORD, 1, _CONTEXT, _CAME_BY_AT)
        code.jump("pass", UNEQUAL, 1, 0)
        code.jump("drop")
        return
    for at in range(0, _QUESTION_BYTES, 8):
        code.store_value(DOUBLE, FRAME, _QUESTION + at, 0)
    code.store_value(BYTE, FRAME, _QUESTION + _FAMILY_AT, family)
    code.load(WORD, 1, _CONTEXT, _INTERFACE_AT)
    code.store(WORD, FRAME, _QUESTION + _BY_AT, 1)
    source, destination, length = (_IPV4_SOURCE, _IPV4_DESTINATION, 4) if family == socket.AF_INET else (
        _IPV6_SOURCE, _IPV6_DESTINATION, 16)
    _read(code, source, length, _QUESTION + _FROM_AT)
    _read(code, destination, length, _QUESTION + _TO_AT)
    code.copy(1, _CONTEXT)
    code.copy(2, FRAME)
    code.add(2, _QUESTION)
    code.set(3, _QUESTION_BYTES)
    code.set(4, 0)
    code.call(_ROUTE)
    for answer in _LEADS_ELSEWHERE:
        code.jump("pass", EQUAL, 0, answer)
    code.jump("drop")


def _look_up(code: Code, table: int, place: int) -> None:
    code.map(1, table)
    code.copy(2, FRAME)
    code.add(2, place)
    code.call(_LOOKUP)
