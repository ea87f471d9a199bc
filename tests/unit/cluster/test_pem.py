"""PEM files as people have them: each that is of no use gives one problem in one line, and never an exception."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from twisted.trial.unittest import SynchronousTestCase

from cluster.pem import MAX_BYTES, PemFiles
from tests.integration.pki import Authority


class OddFiles(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority(self.folder)
        self.certificate, self.key = self.authority.issue("d1.example")
        self.chain = Path(self.certificate).read_bytes() + Path(self.authority.path).read_bytes()

    def file(self, content: bytes) -> str:
        path = self.folder / "odd.pem"
        path.write_bytes(content)
        return str(path)

    def said(self, certificate: str | None = None, key: str | None = None) -> tuple[str, str]:
        """Place and message of the one problem."""
        files = PemFiles("tls")
        files.identity(certificate or self.certificate, key or self.key)
        self.assertEqual(len(files.problems), 1, files.problems)
        (problem,) = files.problems
        self.assertNotIn("\n", problem.message)
        return problem.place, problem.message

    def test_good_ones(self) -> None:
        """With a chain, with the line ends of another system, with text around; and how long they hold."""
        for content in (self.chain, self.chain.replace(b"\n", b"\r\n"), b"subject: d1\n" + self.chain):
            files = PemFiles("tls")
            own = files.identity(self.file(content), self.key)
            self.assertEqual((files.problems, len(own["extraCertChain"])), ([], 1))
            assert files.expires is not None

    def test_certificates(self) -> None:
        """Nothing in it, another thing, in the wrong order, cut off, of another key, no file, no end."""
        (other, _), pipe = self.authority.issue("d2.example"), str(self.folder / "pipe")
        os.mkfifo(pipe)
        backwards = Path(self.authority.path).read_bytes() + Path(self.certificate).read_bytes()
        for path in (self.file(b""), self.key, str(self.folder), str(self.folder / "none"), pipe, "/dev/zero"):
            self.assertEqual(self.said(certificate=path)[0], "tls.certificate", path)
        for content in (b"\0" * 100, self.chain[:200], b"x" * (MAX_BYTES + 1)):
            self.assertEqual(self.said(certificate=self.file(content))[0], "tls.certificate", content[:9])
        self.assertIn("is larger than", self.said(certificate=self.file(b"\n" * MAX_BYTES + self.chain))[1])
        for path in (str(self.folder / "none"), pipe, "/dev/zero"):
            self.assertIn("No such file" if path.endswith("none") else "is not a file", self.said(certificate=path)[1])
        self.assertIn("must come first", self.said(certificate=self.file(backwards))[1])
        self.assertIn("is not the key of", self.said(certificate=other)[1])

    def test_keys(self) -> None:
        """With a passphrase, of a kind that signs nothing, a certificate in its place, of another system."""
        private = ec.generate_private_key(ec.SECP256R1())
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        locked = private.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret"))
        older = private.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL,
                                      serialization.BestAvailableEncryption(b"secret"))
        exchange = x25519.X25519PrivateKey.generate().private_bytes(pem, pkcs8, serialization.NoEncryption())
        rsa_key = rsa.generate_private_key(65537, 2048).private_bytes(pem, pkcs8, serialization.NoEncryption())
        public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        ssh = private.private_bytes(pem, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        for content in (b"", locked, older, exchange, rsa_key, public, ssh, self.chain):
            self.assertEqual(self.said(key=self.file(content))[0], "tls.key", content[:40])

    def test_pairs_that_cannot_serve(self) -> None:
        """Certificate and key belong together, but OpenSSL serves with no such key: too short, or one that signs nothing."""
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        for key in (rsa.generate_private_key(65537, 1024), x25519.X25519PrivateKey.generate()):
            certificate, path = self.authority.issue_for(key.public_key(), "d3.example"), self.folder / "d3.key.pem"
            path.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
            self.assertRegex(self.said(certificate, str(path))[1], r" cannot be served with: [a-z][a-z ;]+\Z")

    def test_a_certificate_of_an_unknown_kind_of_key(self) -> None:
        """Its key's algorithm is none that is known here: told like everything else."""
        der = Path(self.certificate).read_bytes()
        text = b"".join(der.splitlines()[1:-1])
        raw = base64.b64decode(text)
        known, unknown = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d027f")
        self.assertIn(known, raw)
        odd = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(raw.replace(known, unknown)) + (
            b"-----END CERTIFICATE-----\n")
        self.assertIn(self.said(certificate=self.file(odd))[0], ("tls.certificate", "tls.key"))
        files = PemFiles("tls")
        files.identity(self.file(Path(self.certificate).read_bytes() + odd), self.key)
        self.assertEqual(files.problems, [])  # an issuer's key does not concern us

    def test_authorities(self) -> None:
        """The same for whom we trust."""
        for path in (self.file(b""), self.key, str(self.folder), "/dev/zero"):
            files = PemFiles("tls")
            self.assertIsNone(files.authorities("ca", path))
            self.assertEqual([problem.place for problem in files.problems], ["tls.ca"])
