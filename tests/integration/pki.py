"""A small certificate authority for tests."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)
_SIGNS = x509.KeyUsage(key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
                       key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                       decipher_only=False)


class Authority:
    """Signs certificates into *folder*; its own is ``ca``.pem."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.path = str(folder / f"{name}.pem")
        own = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        ).add_extension(_SIGNS, critical=True).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        Path(self.path).write_bytes(self._pem(own))

    def issue(self, *names: str, days: float = 1.0) -> tuple[str, str]:
        """Paths of a certificate for *names* (DNS names or IP addresses), valid for *days*, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate_path, key_path = self.issue_for(key.public_key(), *names, days=days), self.folder / f"{names[0]}.key.pem"
        key_path.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ))
        return certificate_path, str(key_path)

    def issue_for(self, key: CertificatePublicKeyTypes, *names: str, days: float = 1.0) -> str:
        """Path of a certificate for somebody else's *key*."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        certificate = self._builder(subject, key, days).add_extension(alternatives, critical=False)
        path = self.folder / f"{names[0]}.crt.pem"
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        path.write_bytes(self._pem(certificate.add_extension(issuer, False).add_extension(purposes, False)))
        return str(path)

    def _builder(self, subject: x509.Name, key: CertificatePublicKeyTypes, days: float = 1.0) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return x509.CertificateBuilder(
            issuer_name=self._name, subject_name=subject, public_key=key,
            serial_number=x509.random_serial_number(), not_valid_before=now - _DAY, not_valid_after=now + days * _DAY,
        )

    def _pem(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
