"""TLS of the ports that Twisted serves: what a listening side asks for, and who the peer is."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from twisted.internet import ssl

from cluster.errors import ConfigError
from cluster.model import TLS
from cluster.pem import PemFiles


def server_options(tls: TLS, *, place: str) -> ssl.CertificateOptions:
    """TLS 1.2 or later for a listening side; with ``client_ca`` every peer must present a certificate it signed.

    :param place: of the key in the configuration, for errors.
    :raises ConfigError: a file cannot be read or is not what it should be.
    """
    files = PemFiles(place)
    own = files.identity(tls.certificate, tls.key)
    trust = None if tls.client_ca is None else files.authorities("client_ca", tls.client_ca)
    if files.problems:
        raise ConfigError(files.problems)
    return ssl.CertificateOptions(trustRoot=trust, raiseMinimumTo=ssl.TLSVersion.TLSv1_2, **own)


def certificate_names(transport: Any) -> frozenset[str]:
    """The DNS names of the peer's certificate, which the transport has verified; empty without one."""
    certificate = getattr(transport, "getPeerCertificate", lambda: None)()
    if certificate is None:
        return frozenset()
    try:
        names = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return frozenset()
    return frozenset(name.lower() for name in names.value.get_values_for_type(x509.DNSName))
