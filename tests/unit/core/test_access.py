"""Access lists."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import Misuse
from cluster.model import Access
from director.core.access import AccessList, parse_networks


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def _near(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> st.SearchStrategy[bytes]:
    """Addresses around *network*'s borders: where an off-by-one would show."""
    size, width = network.num_addresses, network.max_prefixlen // 8
    first = int(network.network_address)
    return st.sampled_from([first - 1, first, first + size // 2, first + size - 1, first + size]).map(
        lambda number: (number % (1 << (8 * width))).to_bytes(width, "big"))


# Few prefixes of each family, so that networks nest and addresses hit them.
v4_networks = st.builds(lambda number, length: ipaddress.ip_network((number << 16, length), strict=False),
                        st.integers(0x0A00, 0x0A03), st.integers(0, 32))
v6_networks = st.builds(lambda number, length: ipaddress.ip_network((number << 64, length), strict=False),
                        st.integers(0x20010DB800000000, 0x20010DB800000003), st.integers(0, 128))
networks = v4_networks | v6_networks


class NetworksTests(SynchronousTestCase):
    @given(st.data(), st.lists(networks, max_size=8))
    def test_agrees_with_ipaddress(self, data: st.DataObject, chosen: list[ipaddress.IPv4Network]) -> None:
        """An address is in the set exactly when ``ipaddress`` finds it in one of the networks."""
        near = [_near(network) for network in chosen]
        address = data.draw(st.one_of(*near, st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)))
        ip = ipaddress.ip_address(address)
        expected = any(ip in network for network in chosen)
        mapped = ip.ipv4_mapped if ip.version == 6 else None
        if mapped is not None:
            expected = any(mapped in network for network in chosen)
        self.assertEqual(address in parse_networks(map(str, chosen)), expected)

    @given(v4_networks, st.binary(min_size=4, max_size=4))
    def test_mapped_is_ipv4(self, network: ipaddress.IPv4Network, address: bytes) -> None:
        """IPv4 mapped into IPv6 means the same as IPv4, in the network and in the address."""
        mapped_network = f"::ffff:{network.network_address}/{96 + network.prefixlen}"
        mapped_address = packed("::ffff:0:0")[:12] + address
        answers = {each in parse_networks([text])
                   for each in (address, mapped_address) for text in (str(network), mapped_network)}
        self.assertEqual(len(answers), 1)

    def test_all_of_ipv6_is_not_ipv4(self) -> None:
        """``::/0`` holds no IPv4 client, whichever way the listener saw it."""
        everything = parse_networks(["::/0"])
        self.assertIn(packed("2001:db8::1"), everything)
        self.assertNotIn(packed("10.0.0.1"), everything)
        self.assertNotIn(packed("::ffff:10.0.0.1"), everything)

    def test_single_addresses_and_host_bits(self) -> None:
        """An address alone is a network of one; bits beyond the prefix are ignored."""
        self.assertIn(packed("10.9.9.9"), parse_networks(["10.1.2.3/8"]))
        self.assertIn(packed("::1"), parse_networks(["::1"]))
        self.assertNotIn(packed("::2"), parse_networks(["::1"]))

    def test_error_names_the_text(self) -> None:
        """Of several texts the wrong one is named."""
        for bad in ("10.0.0.0/33", "example.org", "", "1.2.3", "::1/129"):
            error = self.assertRaises(ValueError, parse_networks, ["10.0.0.0/8", bad])
            self.assertIn(repr(bad), str(error))

    def test_other_lengths_are_misuse(self) -> None:
        """A packed address of any other length is a bug of the caller."""
        self.assertRaises(Misuse, parse_networks(["::/0"]).__contains__, b"12345")


class AccessListTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Deny is looked at first; an empty allow lets everyone in; UNIX clients always may."""
        table = [
            ((), (), "10.0.0.1", True),
            (("10.0.0.0/8",), (), "10.0.0.1", True),
            (("10.0.0.0/8",), (), "11.0.0.1", False),
            (("10.0.0.0/8",), (), "::1", False),
            ((), ("10.0.0.0/8",), "10.0.0.1", False),
            ((), ("10.0.0.0/8",), "11.0.0.1", True),
            (("10.0.0.0/8",), ("10.1.0.0/16",), "10.1.0.1", False),
            (("10.1.0.0/16",), ("10.0.0.0/8",), "10.1.0.1", False),
            (("10.0.0.0/8",), ("10.1.0.0/16",), "::ffff:10.2.0.1", True),
        ]
        for allow, deny, client, expected in table:
            access = AccessList(Access(allow=allow, deny=deny))
            self.assertIs(access.allows(packed(client)), expected, (allow, deny, client))
            self.assertTrue(access.allows(None))

    def test_bad_network(self) -> None:
        """A list that doesn't parse is refused when it is built, not when a client comes."""
        self.assertRaises(ValueError, AccessList, Access(deny=("nonsense",)))
