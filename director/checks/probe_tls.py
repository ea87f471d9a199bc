"""TLS of probes: that of `director.tls.dialling`, as Twisted wants it."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from director.relay.openssl import in_words
from director.tls.dialling import Dialling


@implementer(IOpenSSLClientConnectionCreator)
class Handshake:
    """One connection's."""

    def __init__(self, dialling: Dialling) -> None:
        self._dialling = dialling
        self.refusal = dialling.refusal

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return self._dialling.connection(None)


def trouble(reason: BaseException) -> str:
    """Why a handshake failed, in OpenSSL's words; empty: it did not, the connection just ended."""
    failed = isinstance(reason, SSL.Error) and reason.args and isinstance(reason.args[0], list) and reason.args[0]
    return in_words(reason) if failed else ""
