"""The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding, as PostgreSQL asks for it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from director.checks.dialogues.interface import ProbeFailed

#: PostgreSQL's default is 4,096. More than this would keep the director for a tenth of a second, at a stranger's word.
MAX_ITERATIONS = 200_000

_GS2 = b"n,,"


class Scram:
    """One authentication.

    :param nonce: printable, without commas, and new each time.
    """

    def __init__(self, password: str, nonce: str, user: str = "") -> None:
        self._password = password.encode()  # PostgreSQL takes what SASLprep refuses as it is, so ASCII and UTF-8 do
        self._nonce = nonce.encode("ascii")
        self._first = b"n=%s,r=%s" % (user.encode(), self._nonce)
        self._signature = b""

    def first(self) -> bytes:
        """The client's first message."""
        return _GS2 + self._first

    def final(self, challenge: bytes) -> bytes:
        """The answer to the server's first message.

        :raises ProbeFailed: it is none.
        """
        try:
            fields = dict(part.split(b"=", 1) for part in challenge.split(b","))
            nonce, salt, iterations = fields[b"r"], base64.b64decode(fields[b"s"], validate=True), int(fields[b"i"])
        except (KeyError, ValueError, binascii.Error):
            raise ProbeFailed("its SCRAM challenge is none") from None
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce) or not 1 <= iterations <= MAX_ITERATIONS:
            raise ProbeFailed("its SCRAM challenge is not to be trusted")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        key = hmac.digest(salted, b"Client Key", "sha256")
        bare = b"c=%s,r=%s" % (base64.b64encode(_GS2), nonce)
        said = b",".join((self._first, challenge, bare))
        proof = bytes(a ^ b for a, b in zip(key, hmac.digest(hashlib.sha256(key).digest(), said, "sha256"), strict=True))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), said, "sha256")
        return bare + b",p=" + base64.b64encode(proof)

    def verify(self, final: bytes) -> None:
        """Whether the server knew the password, too.

        :raises ProbeFailed: it did not.
        """
        if not hmac.compare_digest(final, b"v=" + base64.b64encode(self._signature)):
            raise ProbeFailed("it does not know the password itself")
