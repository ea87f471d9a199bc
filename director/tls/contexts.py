"""A service's certificates, as OpenSSL contexts: which one a client sees, by the name that it asks for.

Sessions are resumed by tickets, whose keys are those of one set of contexts: a renewal ends them, and each director has its
own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID
from OpenSSL import SSL, crypto
from OpenSSL._util import lib

from cluster.errors import Problem
from cluster.model import ServiceTLS
from cluster.pem import PemFiles
from cluster.renewal import Renewed
from cluster.validate import join
from director.core.tls_extensions import Spoken
from director.tls.profile import harden

#: OpenSSL refuses to resume sessions of clients with certificates unless the application has a name: any will do.
_SESSION_ID = b"txdirector"


class ServerContexts:
    """Of one service.

    :param pairs: names, in lower case, and a context that has them; of two with one name the first is taken.
    """

    def __init__(self, pairs: list[tuple[list[str], SSL.Context]]) -> None:
        self._of: dict[str, SSL.Context] = {}
        for names, context in pairs:  # there must be a callback, so that a session remembers the name that was asked for
            context.set_tlsext_servername_callback(self._named if len(pairs) > 1 else lambda connection: None)
            for name in names:
                self._of.setdefault(name, context)
        self._default = pairs[0][1]

    def connection(self, fd: int) -> SSL.Connection:
        """The server's side on a connected, non-blocking socket, before its handshake."""
        tls = SSL.Connection(self._default, fd)  # type: ignore[arg-type]  # what has a number, or is one
        tls.set_accept_state()
        return tls

    def context_of(self, name: str) -> SSL.Context:
        """That of a server name in lower case: an exact one, else ``*.`` in place of its first label, else the default."""
        return self._of.get(name) or self._of.get(f"*.{name.partition('.')[2]}") or self._default

    def _named(self, connection: SSL.Connection) -> None:
        name = connection.get_servername()
        if name is not None:
            context = self.context_of(name.decode("ascii", "replace").lower())
            if context is not self._default:
                connection.set_context(context)


def server_contexts(tls: ServiceTLS, *, place: str) -> Renewed[ServerContexts]:
    """Of the files that *tls* names, read again when they change.

    :param place: of *tls* in the configuration.
    :raises ConfigError: a file cannot be read or is not what it should be.
    """
    return Renewed(place, list(_paths(tls)), lambda files: _read(tls, place, files))


def file_problems(tls: ServiceTLS, *, place: str) -> list[Problem]:
    """What is wrong with those files."""
    files = PemFiles(place)
    _read(tls, place, files)
    return files.problems


def _paths(tls: ServiceTLS) -> Iterator[str]:
    for each in tls.certificates:
        yield from (each.certificate, each.key)
    if tls.client_ca is not None:
        yield tls.client_ca


def _read(tls: ServiceTLS, place: str, files: PemFiles) -> Any:
    """None when *files* has problems, then."""
    pairs: list[tuple[list[str], SSL.Context]] = []
    expires: list[float] = []
    authorities = [] if tls.client_ca is None else files.certificates("client_ca", tls.client_ca)
    for i, each in enumerate(tls.certificates):
        own = PemFiles(join(place, "certificates", i))
        identity = own.identity(each.certificate, each.key)
        files.problems += own.problems
        if not own.problems:
            pairs.append((_names(identity["certificate"]), _context(tls, identity, authorities)))
            if own.expires is not None:
                expires.append(own.expires)
    files.expires = min(expires, default=None)
    return None if files.problems else ServerContexts(pairs)


def _context(tls: ServiceTLS, identity: dict[str, Any], authorities: list[x509.Certificate]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    harden(context, tls.min_version)
    context.use_certificate(identity["certificate"])
    for issuer in identity["extraCertChain"]:
        context.add_extra_chain_cert(issuer)
    context.use_privatekey(identity["privateKey"])
    context.set_session_id(_SESSION_ID)
    if tls.client_ca is not None:
        store = context.get_cert_store()
        assert store is not None
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
            context.add_client_ca(authority)
        required = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if tls.client_certificate == "required" else 0
        context.set_verify(SSL.VERIFY_PEER | required)
    if tls.alpn:
        ours = [text.encode("ascii") for text in tls.alpn]
        context.set_alpn_select_callback(
            lambda connection, theirs: next((each for each in ours if each in theirs), SSL.NO_OVERLAPPING_PROTOCOLS))
    return context


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return []
    assert isinstance(found.value, x509.SubjectAlternativeName)
    return [name.lower() for name in found.value.get_values_for_type(x509.DNSName)]


def spoken(connection: SSL.Connection) -> Spoken:
    """What a client's handshake has come to."""
    certificate = connection.get_peer_certificate()
    return Spoken(
        version=connection.get_protocol_version_name(), cipher=connection.get_cipher_name() or "",
        protocol=connection.get_alpn_proto_negotiated(), server_name=connection.get_servername() or b"",
        certified=certificate is not None, common_name=None if certificate is None else _common_name(certificate),
        resumed=_resumed(connection),
    )


def _common_name(certificate: crypto.X509) -> str | None:
    try:
        [*names] = certificate.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:  # it is malformed where OpenSSL does not look
        return None
    return str(names[-1].value) if names else None


def _resumed(connection: SSL.Connection) -> bool:
    """pyOpenSSL has no name for it."""
    return bool(lib.SSL_session_reused(connection._ssl))
