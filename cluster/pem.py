"""Certificates and keys from PEM files, as problems instead of exceptions."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet import ssl

from cluster.errors import Problem

T = TypeVar("T")
#: A machine's whole list of authorities has a quarter of this.
MAX_BYTES = 1 << 20
#: What the libraries raise about content: a TypeError is a key with a passphrase, an `SSL.Error` what OpenSSL does not serve
#: with (a key too small, or of a kind that signs nothing).
_UNFIT = (ValueError, TypeError, UnsupportedAlgorithm, SSL.Error, crypto.Error)


class PemFiles:
    """Reads files and collects what is wrong with them in `problems`.

    :param place: dotted key of the table that names the files.
    :ivar expires: POSIX seconds until which our own certificate is valid; None without one.
    """

    def __init__(self, place: str) -> None:
        self.problems: list[Problem] = []
        self.expires: float | None = None
        self._place = place

    def identity(self, certificate: str, key: str) -> dict[str, Any]:
        """Arguments of Twisted's ``CertificateOptions`` that make *certificate*, with its chain, and *key* ours."""
        chain = self._read("certificate", certificate, x509.load_pem_x509_certificates)
        private = self._read("key", key, lambda data: load_pem_private_key(data, None))
        if chain is None or private is None:
            return {}
        own: dict[str, Any] = {"certificate": chain[0], "extraCertChain": chain[1:], "privateKey": private}
        try:
            public = private.public_key()
            owners = [number for number, each in enumerate(chain) if _public_key(each) == public]
            if not owners:
                self._wrong("key", f"{key} is not the key of {certificate}")
            elif owners[0] != 0:
                self._wrong("certificate", f"{certificate}: the certificate of {key} must come first, then its issuer's")
            else:
                ssl.CertificateOptions(**own).getContext()  # whether OpenSSL can serve with them
                self.expires = chain[0].not_valid_after_utc.timestamp()
        except _UNFIT as error:
            self._wrong("certificate", f"{certificate} and {key} cannot be served with: {_text(error)}")
        return own

    def authorities(self, field: str, path: str) -> Any:
        """A trust root of every certificate in *path*; None when there is none."""
        return self._read(field, path, _trust_root)

    def certificates(self, field: str, path: str) -> list[x509.Certificate]:
        """Every one in *path*; none when there is a problem."""
        return self._read(field, path, x509.load_pem_x509_certificates) or []

    def _read(self, field: str, path: str, parse: Callable[[bytes], T]) -> T | None:
        try:
            return parse(_content(path))
        except (OSError, *_UNFIT) as error:
            self._wrong(field, f"{path}: {_text(error)}")
        return None

    def _wrong(self, field: str, message: str) -> None:
        self.problems.append(Problem(f"{self._place}.{field}", message))


def _content(path: str) -> bytes:
    """Raises OSError; ValueError when *path* is no ordinary file, which might have no end, or never begin."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    return content


def _trust_root(data: bytes) -> Any:
    certificates: Sequence[x509.Certificate] = x509.load_pem_x509_certificates(data)
    return ssl.trustRootFromCertificates(
        [ssl.Certificate(crypto.X509.from_cryptography(each)) for each in certificates]
    )


def _public_key(certificate: x509.Certificate) -> Any:
    """None for a kind of key that is not known here: an authority's in the chain does not concern us."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _text(error: Exception) -> str:
    """In one line: OpenSSL's errors are lists of (library, function, reason)."""
    if isinstance(error, SSL.Error | crypto.Error) and error.args and isinstance(error.args[0], list):
        return "; ".join(str(each[-1]) for each in error.args[0]) or type(error).__name__
    if isinstance(error, OSError):
        return str(error.strerror or error)
    return " ".join(str(error).split()) or type(error).__name__
