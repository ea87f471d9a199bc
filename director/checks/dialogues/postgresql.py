"""PostgreSQL (its documentation, "Frontend/Backend Protocol", 3.0): is it there, and is it the primary or a replica.

Without a role, whoever asks for a password or lets us in has passed, as for ``pg_isready``; so has one that knows no such
user or database, but not one that starts, recovers or stops (57P03). With a role the director signs in and asks
``pg_is_in_recovery()``.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Callable

from cluster.model import Probe
from director.checks.dialogues.exchange import shown
from director.checks.dialogues.interface import Dialogue, ProbeFailed
from director.checks.dialogues.scram import Scram

#: Of one message of the server's; errors and parameters are far smaller.
MAX_MESSAGE_BYTES = 16_384
#: Messages of a whole conversation; a server sends about twenty.
MAX_MESSAGES = 200
#: "The database system is starting up", and the like: cannot_connect_now.
NOT_NOW = "57P03"

_QUESTION = b"SELECT pg_catalog.pg_is_in_recovery()\0"
_TERMINATE = b"X\0\0\0\4"
#: Numbers of authentication requests.
_OK, _CLEARTEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12


class PostgreSQL(Dialogue):
    """:param password: given where the server asks for one, in clear only over TLS.
    :param nonce: makes one for SCRAM.
    """

    before_tls = struct.pack("!II", 8, 80877103)  # SSLRequest
    agrees = b"S"

    def __init__(self, spec: Probe, password: str | None,
                 nonce: Callable[[], str] = lambda: secrets.token_urlsafe(18)) -> None:
        super().__init__()
        self._role = spec.role
        self._user = spec.user or "postgres"
        self._database = spec.database or self._user
        self._password = password
        self._secret = spec.tls is not None and spec.tls.verify
        self._nonce = nonce
        self._scram: Scram | None = None
        self._got = b""
        self._messages = 0
        self._recovers: bool | None = None
        self._asked = False

    def begin(self) -> bytes:
        words = ("user", self._user, "database", self._database, "application_name", "txdirector-probe")
        body = struct.pack("!I", 196608) + b"".join(word.encode() + b"\0" for word in words) + b"\0"
        return struct.pack("!I", len(body) + 4) + body

    def heard(self, data: bytes) -> bytes | None:
        self._got += data
        say = b""
        while len(self._got) >= 5:
            (length,) = struct.unpack_from("!I", self._got, 1)
            self._messages += 1
            if not 4 <= length <= MAX_MESSAGE_BYTES or self._got[:1] not in b"REKSNZTDCA" or self._messages > MAX_MESSAGES:
                raise ProbeFailed("not PostgreSQL")
            if len(self._got) <= length:
                self._messages -= 1
                break
            kind, body, self._got = self._got[:1], self._got[5:length + 1], self._got[length + 1:]
            answer = self._message(kind, body)
            if answer is None:
                return None
            say += answer
        return say

    def _message(self, kind: bytes, body: bytes) -> bytes | None:
        if kind == b"E":
            self._error(_fields(body))
            return None
        if kind == b"R":
            return self._authentication(body)
        if kind == b"D":
            self._recovers = body[-1:] == b"t"
        if kind != b"Z":
            return b""
        self.farewell = _TERMINATE
        if self._role == "any":
            self.seen = "ready"
            return None
        if not self._asked:
            self._asked = True
            return _message(b"Q", _QUESTION)
        if self._recovers is None:
            raise ProbeFailed("it does not say whether it is the primary")
        role = "replica" if self._recovers else "primary"
        if role != self._role:
            raise ProbeFailed(f"it is a {role}")
        self.seen = role
        return None

    def _error(self, fields: dict[str, str]) -> None:
        """It passes all the same, or this raises."""
        code, text = fields.get("C", ""), fields.get("M", "")
        if self._role == "any" and not self._asked and self._password is None and code != NOT_NOW:
            self.seen = f"answers ({code})"
            return
        raise ProbeFailed(shown(f"{code} {text}".encode("latin-1", "replace")))

    def _authentication(self, body: bytes) -> bytes | None:
        (request,) = struct.unpack_from("!I", body.ljust(4, b"\xff"))
        if request == _OK:
            return b""
        if self._password is None:
            if self._role == "any":
                self.seen = "asks for a password"
                return None
            raise ProbeFailed("asks for a password, and the probe has none")
        if request == _CLEARTEXT:
            if not self._secret:
                raise ProbeFailed("asks for the password in clear, and nobody knows who it is: only over verified TLS")
            return _message(b"p", self._password.encode() + b"\0")
        if request == _MD5:
            inner = hashlib.md5(self._password.encode() + self._user.encode(), usedforsecurity=False).hexdigest()
            outer = hashlib.md5(inner.encode() + body[4:8], usedforsecurity=False).hexdigest()
            return _message(b"p", b"md5" + outer.encode() + b"\0")
        if request == _SASL and b"SCRAM-SHA-256" in body[4:].split(b"\0"):
            self._scram = Scram(self._password, self._nonce())
            first = self._scram.first()
            return _message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
        if request == _SASL_CONTINUE and self._scram is not None:
            return _message(b"p", self._scram.final(body[4:]))
        if request == _SASL_FINAL and self._scram is not None:
            self._scram.verify(body[4:])
            return b""
        raise ProbeFailed(f"asks for an authentication of kind {request}")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _fields(body: bytes) -> dict[str, str]:
    """Of an error, by their letters."""
    return {part[:1].decode("latin-1"): part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}
