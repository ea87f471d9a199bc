"""TLS of the ports that Twisted serves: what a listening side asks for, who the peer is, and renewed certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import LoopingCall
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from cluster.model import TLS
from cluster.pem import PemFiles
from cluster.renewal import LOOK_S, Renewed
from director.tls.profile import harden


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes each new connection's TLS of the certificates as they are on disk."""

    def __init__(self, tls: TLS, *, place: str) -> None:
        self.files = Renewed(place, (tls.certificate, tls.key, tls.client_ca), lambda files: _server_context(files, tls))

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self.files.current(), None)


def server_options(tls: TLS, *, place: str) -> ServerTLS:
    """TLS 1.2 or later for a listening side; with ``client_ca`` every peer must present a certificate it signed.

    :param place: of the key in the configuration, for errors.
    :raises ConfigError: a file cannot be read or is not what it should be.
    """
    return ServerTLS(tls, place=place)


def client_options(tls: TLS, *, place: str) -> tuple[Renewed[Any], Callable[[str], Any]]:
    """The same files for a dialling side: what watches over them, and the TLS of a connection to the peer whose certificate
    has that name.

    :raises ConfigError: a file cannot be read or is not what it should be.
    """
    assert tls.client_ca is not None
    authorities = tls.client_ca

    def read(files: PemFiles) -> tuple[Any, dict[str, Any]]:
        return files.authorities("client_ca", authorities), files.identity(tls.certificate, tls.key)

    renewed = Renewed(place, (tls.certificate, tls.key, authorities), read)

    def to(name: str) -> Any:
        trust, own = renewed.current()
        options = {"raiseMinimumTo": ssl.TLSVersion.TLSv1_2} | own
        return ssl.optionsForClientTLS(name, trustRoot=trust, extraCertificateOptions=options)

    return renewed, to


def _server_context(files: PemFiles, tls: TLS) -> Any:
    own = files.identity(tls.certificate, tls.key)
    trust = None if tls.client_ca is None else files.authorities("client_ca", tls.client_ca)
    if files.problems:
        return None
    context = ssl.CertificateOptions(trustRoot=trust, raiseMinimumTo=ssl.TLSVersion.TLSv1_2, **own).getContext()
    harden(context)
    return context


class Renewal(Service):
    """Looks at the certificates of every port now and then, so that a renewal, or one forgotten, is told though nobody
    connects.

    :param watched: all of them; asked at each look.
    """

    def __init__(self, watched: Callable[[], Iterable[Renewed[Any]]], *, reactor: Any) -> None:
        self.setName("certificates")
        self._watched = watched
        self._look = LoopingCall(self.look)
        self._look.clock = reactor

    @property
    def watched(self) -> tuple[Renewed[Any], ...]:
        return tuple(self._watched())

    @property
    def problems(self) -> tuple[str, ...]:
        """For the operator, a sentence each."""
        return tuple(each.problem for each in self.watched if each.problem)

    def startService(self) -> None:
        super().startService()
        if not self._look.running:
            self._look.start(LOOK_S)

    def stopService(self) -> None:
        super().stopService()
        if self._look.running:
            self._look.stop()

    def look(self) -> None:
        """Read what changed."""
        for each in self.watched:
            each.look()

    def again(self) -> tuple[list[str], list[str]]:
        """Read everything: the places of what is new, and why some of it is not used."""
        renewed = [each.place for each in self.watched if each.look(anyway=True)]
        return renewed, [each.broken for each in self.watched if each.broken]


def certificate_names(transport: Any) -> frozenset[str]:
    """The DNS names of the peer's certificate, which the transport has verified; empty without one."""
    certificate = getattr(transport, "getPeerCertificate", lambda: None)()
    if certificate is None:
        return frozenset()
    try:
        names = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return frozenset()
    return frozenset(name.lower() for name in names.value.get_values_for_type(x509.DNSName))
