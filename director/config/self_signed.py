"""A certificate that vouches for itself, for an operator who asks for one (``director self-signed``)."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Clocks of browsers that are a little behind ours.
_LEEWAY = datetime.timedelta(hours=1)


def self_signed(names: Sequence[str], *, days: int, now: datetime.datetime) -> tuple[bytes, bytes]:
    """A certificate for *names* (DNS names or IP addresses; at least one) and its key, as PEM.

    It can sign no others: who trusts it, trusts this one server.

    :raises ValueError: a name that no certificate can hold.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        x509.CertificateBuilder(
            issuer_name=subject, subject_name=subject, public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - _LEEWAY, not_valid_after=now + datetime.timedelta(days=days),
        )
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), pem


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Make a file that nobody else could read for a moment.

    :raises FileExistsError: it is never overwritten.
    :raises OSError: it cannot be written; nothing is left.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
    except OSError:
        path.unlink()  # a full disk took a part of it
        raise


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
