"""Who answers at the wrong port."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.misdialled import spoken, tls_trouble


class MisdialledTests(SynchronousTestCase):
    def test_by_the_first_bytes(self) -> None:
        """An alert or a hello of TLS, a request or an answer of HTTP, a banner; ours, and anything else, is nothing."""
        for name, beginnings in {
            "TLS": (b"\x15\x03\x01\x00\x02\x02\x46", b"\x16\x03\x01\x02\x00"), "HTTP": (b"HTTP/1.1 400 Bad", b"GET / HTTP/1.1"),
            "SSH": (b"SSH-2.0-x",), "": (b'{"type":"hello"}', b"", b"\x16", b"\x17\x03\x03", b"0123"),
        }.items():
            for first in beginnings:
                self.assertEqual(spoken(first), name, first)

    def test_by_tls(self) -> None:
        """No TLS at all is told apart from TLS that was refused; what is not TLS's trouble is none."""
        no_tls = SSL.Error([("SSL routines", "", "wrong version number")])
        unknown = SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")])
        self.assertEqual(tls_trouble(Failure(no_tls)), "the other side speaks no TLS (wrong version number)")
        self.assertEqual(tls_trouble(Failure(unknown)), "tlsv1 alert unknown ca")
        self.assertEqual(tls_trouble(Failure(SSL.ZeroReturnError())), "ZeroReturnError")
        self.assertEqual(tls_trouble(Failure(ConnectionLost())), "")
