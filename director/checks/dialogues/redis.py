"""Redis and what speaks its protocol (RESP 2, redis.io, "Redis serialization protocol specification").

Without a role a ``PING`` has to be answered. With one, ``ROLE`` says who is primary and who is a replica; a replica has
passed only while it is connected to its primary, for what it has else grows old.
"""

from __future__ import annotations

from cluster.model import Probe
from director.checks.dialogues.exchange import shown
from director.checks.dialogues.interface import Dialogue, ProbeFailed

#: What is looked at of an answer is shorter.
MAX_ANSWER_BYTES = 4096
#: Items of an array that are looked at: those that say what a replica's link is. A primary's first one is enough, after
#: which come its replicas.
ITEMS = 4

#: Simple strings and bulk strings are bytes, errors are `ProbeFailed`.
Scalar = bytes | int | ProbeFailed | None
Value = Scalar | list[Scalar]
#: Of a 64-bit number, with its sign.
MAX_DIGITS = 20

_ROLES = {b"master": "primary", b"slave": "replica", b"sentinel": "sentinel"}


class Redis(Dialogue):
    """:param password: said first, where there is one."""

    def __init__(self, spec: Probe, password: str | None) -> None:
        super().__init__()
        self._role = spec.role
        self._asked: list[list[str]] = [["PING" if spec.role == "any" else "ROLE"]]
        if password is not None:
            self._asked.insert(0, ["AUTH", *([spec.user] if spec.user else []), password])
        self._got = b""

    def begin(self) -> bytes:
        return _command(*self._asked[0])

    def heard(self, data: bytes) -> bytes | None:
        self._got += data
        parsed = parse(self._got)
        if parsed is None:
            if len(self._got) >= MAX_ANSWER_BYTES:
                raise ProbeFailed(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return b""
        answer, end = parsed
        self._got = self._got[end:]
        if isinstance(answer, ProbeFailed):
            raise answer
        if len(self._asked) > 1:
            self._asked.pop(0)
            return _command(*self._asked[0])
        self._judge(answer)
        return None

    def _judge(self, answer: Value) -> None:
        if self._role == "any":
            if answer != b"PONG":
                raise ProbeFailed("PING was not answered with PONG")
            self.seen = "PONG"
            return
        word = answer[0] if isinstance(answer, list) and answer else None
        role = _ROLES.get(word, "") if isinstance(word, bytes) else ""
        if role != self._role:
            raise ProbeFailed(f"it is a {role}" if role else "its answer to ROLE is none")
        assert isinstance(answer, list)
        if role == "replica":
            link = answer[3] if len(answer) > 3 else None
            if link != b"connected":
                raise ProbeFailed(f"its link to its primary: {shown(link) if isinstance(link, bytes) else 'none'}")
        self.seen = role


def parse(data: bytes) -> tuple[Value, int] | None:
    """The answer that *data* begins with, and where it ends, or where enough of it has been seen; None while that has not
    come.

    :raises ProbeFailed: that is no such protocol.
    """
    if not data.startswith(b"*"):
        return _scalar(data, 0)
    head = _line(data, 0)
    if head is None:
        return None
    items: list[Scalar] = []
    number, after = head
    while len(items) < min(number, ITEMS if items[:1] == [b"slave"] or not items else 1):
        item = _scalar(data, after)
        if item is None:
            return None
        items.append(item[0])
        after = item[1]
    return items, after


def _scalar(data: bytes, start: int) -> tuple[Scalar, int] | None:
    kind = data[start:start + 1]
    if kind in (b":", b"$"):
        head = _line(data, start)
        if head is None or kind == b":" or head[0] < 0:
            return head if head is None or kind == b":" else (None, head[1])
        length, after = head
        return (data[after:after + length], after + length + 2) if len(data) >= after + length + 2 else None
    if kind not in (b"", b"+", b"-"):
        raise ProbeFailed("not Redis")
    end = data.find(b"\r\n", start)
    if end < 0:
        return None
    text = data[start + 1:end]
    return (text if kind == b"+" else ProbeFailed(shown(text))), end + 2


def _line(data: bytes, start: int) -> tuple[int, int] | None:
    """The number in a line, and where that ends."""
    end = data.find(b"\r\n", start)
    if end < 0:
        return None
    digits = data[start + 1:end]
    if not digits.removeprefix(b"-").isdigit() or len(digits) > MAX_DIGITS:
        raise ProbeFailed("not Redis")
    return int(digits), end + 2


def _command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
