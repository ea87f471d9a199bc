"""`cluster.address`: what is no address is told in words that lead to one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address, parse_address


class WordsTests(SynchronousTestCase):
    def test_what_people_write(self) -> None:
        """URLs, blanks, IPv6 without brackets, and two ports each have a hint of their own."""
        for text, words in (
            ("http://10.0.0.1:80", "without http://"),
            ("tcp://10.0.0.1:80/", "without tcp:// and without a path"),
            (" 10.0.0.1:80", "without blanks"),
            ("10.0.0.1:80 ", "without blanks"),
            ("2001:db8::1:80", "write an IPv6 address as [2001:db8::1]:80"),
            ("app.example:80:81", "'app.example:80' is neither an IP address nor a host name"),
            ("10.0.0.1", "expected host:port"),
            ("app.example\n:80", "neither an IP address nor a host name"),
            ("10.0.0.1\n:80", "neither an IP address nor a host name"),
            ("10.0.0.256:80", "'10.0.0.256' is not an IPv4 address"),
            ("[::1:80", "'[::1' is neither an IP address nor a host name"),
            ("::1]:80", "'::1]' is neither an IP address nor a host name"),
            ("[10.0.0.1]:80", "'10.0.0.1' is not an IPv6 address"),
            ("unix:run/app", "a UNIX socket's path is absolute"),
            ("unix:/" + "a" * 107, "at most 107 bytes"),
        ):
            error = self.assertRaises(ValueError, parse_address, text)
            self.assertIn(words, str(error))
            self.assertNotIn("[http", str(error))

    def test_ports(self) -> None:
        """1 to 65535, and 0 where any will do; beyond them the error says so."""
        for port in (1, 65535):
            self.assertEqual(parse_address(f"10.0.0.1:{port}").port, port)
        self.assertEqual(parse_address("10.0.0.1:0", any_port=True).port, 0)
        for port, any_port, words in ((0, False, "1 to 65535"), (65536, False, "1 to 65535"), (65536, True, "0 to 65535")):
            error = self.assertRaises(ValueError, parse_address, f"10.0.0.1:{port}", any_port=any_port)
            self.assertIn(f"the port must be {words}", str(error))
        for text in ("http", "", "+80", "8_0", " 80", "٨٠", "²", "080000", "1" * 5000):
            error = self.assertRaises(ValueError, parse_address, f"10.0.0.1:{text}")
            self.assertIn(f"{text!r} is not a port number", str(error))

    def test_longest_path(self) -> None:
        """A UNIX socket's path may have 107 bytes, whatever its characters."""
        self.assertEqual(parse_address("unix:/" + "a" * 106).path, "/" + "a" * 106)
        self.assertEqual(parse_address("unix:@" + "é" * 53).path, "@" + "é" * 53)
        self.assertRaises(ValueError, parse_address, "unix:@" + "é" * 54)

    def test_unix(self) -> None:
        """A UNIX socket has a path, no name and no port."""
        self.assertEqual(parse_address("unix:/run/app"), Address("", 0, "/run/app"))


class LoopbackTests(SynchronousTestCase):
    def test_who_can_reach_it(self) -> None:
        """Only this machine reaches its loopback addresses, ``localhost`` and UNIX sockets."""
        for text, only_here in (
            ("127.0.0.1:80", True), ("127.9.9.9:80", True), ("[::1]:80", True), ("localhost:80", True), ("unix:/run/x", True),
            ("10.0.0.1:80", False), ("[2001:db8::1]:80", False), ("app.example:80", False), ("0.0.0.0:80", False),
        ):
            self.assertIs(parse_address(text).is_loopback, only_here, text)
