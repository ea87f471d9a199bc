"""`director.config.init.authority`: what is signed has the right names, purposes and dates."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.trial.unittest import SynchronousTestCase

from director.config.init.authority import AUTHORITY_DAYS, DIALS, SERVES, Authority, NotOurs, Signed

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


class AuthorityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = Authority.made(now=NOW)

    def test_issued(self) -> None:
        """Names and addresses, purposes, dates; the key is the certificate's, and it signs nothing."""
        pem = self.authority.issue(("lb1.directors.internal", "10.0.0.1", "fd00::1"), (SERVES, DIALS), days=30, now=NOW)
        certificate = read(pem.certificate)
        certificate.verify_directly_issued_by(self.authority.certificate)
        names = alternatives(certificate)
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["lb1.directors.internal"])
        self.assertEqual(names.get_values_for_type(x509.IPAddress),
                         [ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1")])
        self.assertEqual(list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value), [SERVES, DIALS])
        self.assertFalse(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        self.assertFalse(certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign)
        self.assertEqual(certificate.not_valid_after_utc, NOW + 30 * DAY)
        self.assertLess(certificate.not_valid_before_utc, NOW)
        self.assertEqual(load_pem_private_key(pem.key, None).public_key(), certificate.public_key())

    def test_two(self) -> None:
        """Two authorities differ in name and key; one does not take the other's for its own."""
        other = Authority.made(now=NOW)
        self.assertNotEqual(other.certificate.subject, self.authority.certificate.subject)
        foreign = other.issue(("a",), (DIALS,), days=1, now=NOW)
        self.assertRaises(NotOurs, self.authority.renew, foreign.certificate, days=1, now=NOW)

    def test_renewed(self) -> None:
        """The same but for dates and number, again and again."""
        pem = self.authority.issue(("a.agents.internal",), (DIALS,), days=30, now=NOW)
        later = NOW + 20 * DAY
        again = Authority.read(self.authority.pem)
        renewed = again.renew(again.renew(pem.certificate, days=30, now=later), days=30, now=later)
        old, new = read(pem.certificate), read(renewed)
        self.assertEqual((new.subject, new.public_key(), alternatives(new)), (old.subject, old.public_key(), alternatives(old)))
        for kind in (x509.ExtendedKeyUsage, x509.BasicConstraints, x509.KeyUsage, x509.AuthorityKeyIdentifier):
            self.assertEqual(new.extensions.get_extension_for_class(kind), old.extensions.get_extension_for_class(kind))
        self.assertEqual(new.not_valid_after_utc, later + 30 * DAY)
        self.assertNotEqual(new.serial_number, old.serial_number)

    def test_never_beyond_the_authority(self) -> None:
        """No certificate outlives who signed it."""
        late = NOW + (AUTHORITY_DAYS - 5) * DAY
        pem = self.authority.issue(("a",), (DIALS,), days=30, now=late)
        self.assertEqual(read(pem.certificate).not_valid_after_utc, self.authority.ends)

    def test_not_ours(self) -> None:
        """What is no authority, or no certificate, is told from one."""
        other = Authority.made(now=NOW).pem
        for pem in (Signed(b"", b""), Signed(self.authority.pem.certificate, b"x"),
                    Signed(self.authority.pem.certificate, other.key)):
            self.assertRaises(NotOurs, Authority.read, pem)
        for content in (b"", b"x", self.authority.pem.key, self.authority.pem.certificate):
            self.assertRaises(NotOurs, self.authority.renew, content, days=1, now=NOW)
