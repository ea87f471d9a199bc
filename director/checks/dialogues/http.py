"""The status of an answer to a GET, and the weight in its headers."""

from __future__ import annotations

import re
from urllib.parse import quote

from cluster.address import Address
from cluster.model import Probe
from director.checks.dialogues.interface import Dialogue, ProbeFailed
from director.checks.weight_header import name_of, weight_in

#: What may come before and in a status line. Informational responses with their headers fit.
MAX_HEAD_BYTES = 8192

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_FIELD_VALUE = re.compile(r"[!-~]+")
#: Characters of a path and query that stand for themselves (RFC 3986); ``%`` because paths may come encoded.
_PATH_SAFE = "/?:@!$&'()*+,;=-._~%"


class Http(Dialogue):
    """With a `weight_header` the answer's headers are waited for, too."""

    def __init__(self, target: Address, spec: Probe) -> None:
        super().__init__()
        self._request = _request(target, spec)
        self._expect = spec.expect
        self._weight_header = name_of(spec)
        self._head = b""
        self._passed = False  # by its status, while the headers are still to come

    def begin(self) -> bytes:
        return self._request

    def heard(self, data: bytes) -> bytes | None:
        self._head += data
        answer = answer_in(self._head)
        if answer is None:
            return b""
        status, after = answer
        if status not in self._expect and (self._expect or not 200 <= status < 400):
            raise ProbeFailed(f"HTTP {status}")
        self._passed, self.seen = True, f"HTTP {status}"
        if self._weight_header:
            end = _HEADERS_END.search(self._head, after - 2)
            if end is None and len(self._head) < MAX_HEAD_BYTES:
                return b""  # whatever becomes of the headers, the status has come
            self.weight, words = weight_in(self._head[after:end.start()] if end is not None else b"", self._weight_header)
            self.seen += f", {words}"
        return None

    def passed_anyway(self) -> bool:
        return self._passed


def answer_in(head: bytes) -> tuple[int, int] | None:
    """The status that an HTTP/1 response begins with, informational ones skipped, and where its line ends; None while it has
    not all come.

    :raises ProbeFailed: when it is not HTTP/1.
    """
    start = 0
    while True:
        line = _STATUS_LINE.match(head, start)
        if line is None:
            beginning = head[start:start + 5]
            if len(head) >= MAX_HEAD_BYTES or b"\n" in head[start:] or not b"HTTP/".startswith(beginning):
                raise ProbeFailed("not HTTP")
            return None
        status = int(line[1])
        if status >= 200 or status == 101:
            return status, line.end()
        end = _HEADERS_END.search(head, line.end() - 2)
        if end is None:
            if len(head) >= MAX_HEAD_BYTES:
                raise ProbeFailed("not HTTP")
            return None
        start = end.end()


def _request(target: Address, spec: Probe) -> bytes:
    asked = spec.host_header if spec.host_header is not None else spec.tls.server_name if spec.tls is not None else None
    host = asked if asked is not None else "localhost" if target.is_unix else str(target)
    if not _FIELD_VALUE.fullmatch(host):
        raise ProbeFailed(f"host_header {host!r} can't be sent")
    path = quote(spec.path if spec.path.startswith("/") else "/" + spec.path, safe=_PATH_SAFE)
    return (f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: txdirector-probe\r\nAccept: */*\r\n"
            "Connection: close\r\n\r\n").encode("ascii")
