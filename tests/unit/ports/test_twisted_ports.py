"""Ports for Twisted's protocols."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from director.ports.twisted_ports import Secured


@implementer(IOpenSSLServerConnectionCreator)
class Anything:
    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None)


class Choosy(Factory[Protocol]):
    noisy = False
    refuses = False

    def buildProtocol(self, addr: Any) -> Protocol | None:
        return None if self.refuses else Protocol()


class SecuredTests(SynchronousTestCase):
    def test_a_refusal(self) -> None:
        """A factory that refuses a connection does so over TLS, too; others are made as ever."""
        choosy = Choosy()
        factory = Secured(Anything(), False, choosy)
        made = factory.buildProtocol(None)
        made.makeConnection(StringTransport())
        self.assertIsInstance(made.wrappedProtocol, Protocol)
        choosy.refuses = True
        self.assertIsNone(factory.buildProtocol(None))
