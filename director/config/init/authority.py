"""A cluster's own small authority: what it signs, and for whom. Pure but for the randomness of keys.

Certificates carry names (RFC 5280, subject alternative names) and what they are for (extended key usage): an agent's does
not serve, the admin's does not dial.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVES = ExtendedKeyUsageOID.SERVER_AUTH
DIALS = ExtendedKeyUsageOID.CLIENT_AUTH

#: The authority outlives what it signs many times over: to replace it means to visit every machine.
AUTHORITY_DAYS = 3650
#: Clocks of machines that are a little behind ours.
_LEEWAY = datetime.timedelta(hours=1)
#: The longest common name (RFC 5280, ub-common-name).
_COMMON_NAME = 64


class Signed(NamedTuple):
    """PEM."""

    certificate: bytes
    key: bytes


class NotOurs(ValueError):
    """A certificate or a key that has nothing to do with this authority; the text says why."""


class Authority:
    """Signs with *key*, in the name of *certificate*."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def made(cls, *, now: datetime.datetime) -> Authority:
        """A new one. It signs no other authorities."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"txdirector authority {secrets.token_hex(4)}")
        builder = _builder(name, name, key.public_key(), now, now + datetime.timedelta(days=AUTHORITY_DAYS))
        for extension, critical in (
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_usage(signs_certificates=True), True),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, pem: Signed) -> Authority:
        """:raises NotOurs: this is none."""
        try:
            certificate, key = x509.load_pem_x509_certificate(pem.certificate), load_pem_private_key(pem.key, None)
        except (ValueError, TypeError) as error:
            raise NotOurs("no certificate and key of an authority") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
            raise NotOurs("the key is not the certificate's")
        return cls(certificate, key)

    @property
    def pem(self) -> Signed:
        return Signed(self.certificate.public_bytes(Encoding.PEM), _private(self._key))

    @property
    def ends(self) -> datetime.datetime:
        return self.certificate.not_valid_after_utc

    def issue(self, names: Sequence[str], purposes: Sequence[x509.ObjectIdentifier], *, days: int,
              now: datetime.datetime) -> Signed:
        """A certificate with a new key for *names*, DNS names or IP addresses, the first of which is also its subject.

        It ends when the authority does, at the latest.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        signed = self._sign(
            _name(names[0]), key.public_key(), x509.SubjectAlternativeName([_general_name(name) for name in names]),
            x509.ExtendedKeyUsage(purposes), days=days, now=now,
        )
        return Signed(signed, _private(key))

    def renew(self, pem: bytes, *, days: int, now: datetime.datetime) -> bytes:
        """The same certificate, valid from now on: the same names, purposes and key.

        :raises NotOurs: this authority did not sign it, or nobody did.
        """
        try:
            old = x509.load_pem_x509_certificate(pem)
            old.verify_directly_issued_by(self.certificate)
            names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            purposes = old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
            raise NotOurs("no certificate that this authority signed") from error
        return self._sign(old.subject, old.public_key(), names, purposes, days=days, now=now)

    def _sign(self, subject: x509.Name, key: CertificatePublicKeyTypes, names: x509.SubjectAlternativeName,
              purposes: x509.ExtendedKeyUsage, *, days: int, now: datetime.datetime) -> bytes:
        ends = min(now + datetime.timedelta(days=days), self.ends)
        builder = _builder(self.certificate.subject, subject, key, now, ends)
        for extension, critical in (
            (names, False),
            (purposes, False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(signs_certificates=False), True),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _builder(issuer: x509.Name, subject: x509.Name, key: CertificatePublicKeyTypes, now: datetime.datetime,
             ends: datetime.datetime) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=key,
                                   serial_number=x509.random_serial_number(),
                                   not_valid_before=now - _LEEWAY, not_valid_after=ends)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_COMMON_NAME])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
