"""`cluster.address`: what is no address is told in words that lead to one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import parse_address


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
        ):
            error = self.assertRaises(ValueError, parse_address, text)
            self.assertIn(words, str(error))
            self.assertNotIn("[http", str(error))
