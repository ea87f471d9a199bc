"""The filter, run by a small interpreter of its instructions over packets; the kernel's is in the integration tests."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from director.traffic.turning_away import MAX_ADDRESSES, program

SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
NET = 0xFFF00000


def passes(code: bytes, to: str, flags: int) -> bool:
    address = ip_address(to)
    header = bytes((0x45,)) + bytes(15) + address.packed if address.version == 4 else (
        bytes((0x60,)) + bytes(23) + address.packed)
    tcp = bytes(13) + bytes((flags,)) + bytes(6)
    at, value = 0, 0
    while True:
        what, yes, no, number = struct.unpack_from("HBBI", code, 8 * at)
        data, offset = (header, number - NET) if number >= NET else (tcp, number)
        at += 1
        if what == 0x30:
            value = data[offset]
        elif what == 0x20:
            value = int.from_bytes(data[offset : offset + 4], "big")
        elif what == 0x54:
            value &= number
        elif what == 0x15:
            at += yes if value == number else no
        else:
            return bool(number)


class TurningAwayTests(SynchronousTestCase):
    def test_new_clients_of_some_addresses(self) -> None:
        """Only those, of either family; whoever is connected, or nearly, comes in."""
        some = [ip_address(each) for each in ("10.0.0.100", "10.0.0.101", "2001:db8::1", "2001:db8::2")]
        code = program(some)
        for address in some:
            self.assertFalse(passes(code, str(address), SYN), address)
            self.assertTrue(passes(code, str(address), ACK), address)
            self.assertTrue(passes(code, str(address), SYN_ACK), address)
        for other in ("10.0.0.102", "10.1.0.100", "2001:db8::3", "2001:db8:1::1", "2001:db9::1"):
            self.assertTrue(passes(code, other, SYN), other)

    def test_bounds(self) -> None:
        """As many as jumps reach; none turns nobody away."""
        many = [ip_address(f"2001:db8::{number:x}") for number in range(1, MAX_ADDRESSES + 1)]
        code = program(many)
        self.assertFalse(any(passes(code, str(each), SYN) for each in many))
        v4 = [ip_address(f"10.0.0.{number}") for number in range(1, MAX_ADDRESSES + 1)]
        self.assertTrue(passes(program(v4), "2001:db8::1", SYN))
        self.assertFalse(any(passes(program(v4), str(each), SYN) for each in v4))
        self.assertTrue(passes(program(()), "10.0.0.100", SYN))
        self.assertRaises(ValueError, program, [*many, ip_address("10.0.0.1")])
