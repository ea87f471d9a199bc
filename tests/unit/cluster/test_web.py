"""Web addresses: their parts, and what is none."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.web import parse_url


class UrlTests(SynchronousTestCase):
    def test_parts(self) -> None:
        for text, parts in (
            ("http://a", (False, "a", 80, "/", "a")), ("https://[2001:db8::1]:8443/x", (True, "2001:db8::1", 8443, "/x", "[2001:db8::1]:8443")),
            ("https://A.example?q", (True, "a.example", 443, "/?q", "A.example")),
        ):
            self.assertEqual(parse_url(text), parts)

    def test_none(self) -> None:
        for text in ("", "a", "ftp://a/", "http://", "http:///x", "http://u:p@a/", "http://a/#x", "http://a:b/", "http://a:99999/",
                     "http://a/ b", "http://é/", "http://a/\r\nX: y", "http://[::1/"):
            self.assertRaises(ValueError, parse_url, text)
