"""Telling the neighbours on a link that an address moved here, so that they do not wait for their caches to age."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

_ETHERNET = 1  # ARPHRD_ETHER
_ETH_P_IP, _ETH_P_ARP = 0x0800, 0x0806
_BROADCAST = b"\xff" * 6
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST = 1
_ALL_NODES = "ff02::1"
_ADVERTISEMENT = 136  # ICMPv6
_OVERRIDE = 0x20000000
_TARGET_LINK_ADDRESS = 2
#: RFC 4861: a receiver drops what may have been forwarded.
_HOPS = 255


def announce(device: str, address: IPv4Address | IPv6Address) -> None:
    """Send a gratuitous ARP request (RFC 5227) or an unsolicited neighbour advertisement (RFC 4861) on *device*.

    On a device that is no Ethernet (loopback, tunnels) there is nobody to tell.

    :raises OSError: no such device, not permitted, the link is down.
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        sock.bind((device, 0))
        _, _, _, hardware, mac = sock.getsockname()
        if hardware != _ETHERNET:
            return
        if isinstance(address, IPv4Address):
            own = address.packed
            packet = _ARP.pack(_ETHERNET, _ETH_P_IP, len(mac), len(own), _REQUEST, mac, own, bytes(6), own)
            sock.sendto(packet, (device, _ETH_P_ARP, 0, 0, _BROADCAST))
            return
    index = socket.if_nametoindex(device)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:  # the kernel adds the checksum
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
        sock.bind((str(address), 0, 0, index))
        sock.sendto(advertisement(address, mac), (_ALL_NODES, 0, 0, index))


def advertisement(address: IPv6Address, mac: bytes) -> bytes:
    """An unsolicited neighbour advertisement, its checksum left open."""
    option = struct.pack("!BB6s", _TARGET_LINK_ADDRESS, 1, mac)
    return struct.pack("!BBHI16s", _ADVERTISEMENT, 0, 0, _OVERRIDE, address.packed) + option
