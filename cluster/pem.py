"""Certificates and keys from PEM files, as problems instead of exceptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto
from twisted.internet import ssl

from cluster.errors import Problem

T = TypeVar("T")


class PemFiles:
    """Reads files and collects what is wrong with them in `problems`.

    :param place: dotted key of the table that names the files.
    """

    def __init__(self, place: str) -> None:
        self.problems: list[Problem] = []
        self._place = place

    def identity(self, certificate: str, key: str) -> dict[str, Any]:
        """Arguments of Twisted's ``CertificateOptions`` that make *certificate*, with its chain, and *key* ours."""
        chain = self._read("certificate", certificate, x509.load_pem_x509_certificates)
        private = self._read("key", key, lambda data: load_pem_private_key(data, None))
        if chain is None or private is None:
            return {}
        if chain[0].public_key() != private.public_key():
            self.problems.append(Problem(f"{self._place}.key", f"{key} is not the key of {certificate}"))
        return {"certificate": chain[0], "extraCertChain": chain[1:], "privateKey": private}

    def authorities(self, field: str, path: str) -> Any:
        """A trust root of every certificate in *path*; None when there is none."""
        certificates = self._read(field, path, x509.load_pem_x509_certificates)
        if certificates is None:
            return None
        return ssl.trustRootFromCertificates(
            [ssl.Certificate(crypto.X509.from_cryptography(each)) for each in certificates]
        )

    def _read(self, field: str, path: str, parse: Callable[[bytes], T]) -> T | None:
        try:
            with open(path, "rb") as file:
                return parse(file.read())
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: the key has a passphrase
            self.problems.append(Problem(f"{self._place}.{field}", f"{path}: {error}"))
        return None
