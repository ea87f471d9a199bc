"""A client that never gives up, and tells what it saw: ``python -m deploy.lab.client HOST PORT PER_SECOND``.

It opens a connection at a steady rate, whatever became of the others, says nothing, finishes, and reads what the backend
says until its end. Each attempt becomes one line of JSON on standard output when it is over:

    {"began": monotonic seconds, "took": seconds, "answer": what was said, or null, "error": why not, or null}

When standard input closes no more are begun; those that are open come out, and it ends.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import sys
import time

#: An attempt that takes longer has failed for its user. Room for two lost SYNs: they are repeated after 1 and 3 seconds.
TIMEOUT_S = 5.0


class Attempt:
    """One connection, from its begin to its line of output."""

    def __init__(self, where: tuple[str, int]) -> None:
        self.began = time.monotonic()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._error = self.sock.connect_ex(where)
        self._received = b""
        self._finished = False

    def advance(self, events: int) -> bool:
        """Go on after *events*; whether it is over."""
        try:
            if self._error not in (0, errno.EINPROGRESS):
                return self.end(errno.errorcode[self._error])
            if events & selectors.EVENT_WRITE and not self._finished:
                self.sock.shutdown(socket.SHUT_WR)
                self._finished = True
            if events & selectors.EVENT_READ:
                data = self.sock.recv(4096)
                self._received += data
                if not data:
                    return self.end(None)
        except BlockingIOError:
            pass
        except OSError as error:
            return self.end(errno.errorcode.get(error.errno or 0, str(error)))
        return False

    def end(self, error: str | None) -> bool:
        self.sock.close()
        answer = self._received.decode().strip() or None
        if error is None and answer is None:
            error = "closed without an answer"
        took = round(time.monotonic() - self.began, 6)
        print(json.dumps({"began": self.began, "took": took, "answer": answer, "error": error}), flush=True)
        return True

    @property
    def wants(self) -> int:
        return selectors.EVENT_READ if self._finished else selectors.EVENT_READ | selectors.EVENT_WRITE


def main() -> None:
    where, every = (sys.argv[1], int(sys.argv[2])), 1.0 / float(sys.argv[3])
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    due, running, open_ = time.monotonic(), True, 0
    while running or open_:
        now = time.monotonic()
        while running and now >= due:
            due = max(due + every, now - 1.0)
            attempt = Attempt(where)
            if not attempt.advance(0):
                selector.register(attempt.sock, attempt.wants, attempt)
                open_ += 1
        for key, events in selector.select(max(0.0, min(due - now, 0.05))):
            attempt = key.data
            if attempt is None:
                running = False
                selector.unregister(sys.stdin)
                continue
            selector.unregister(attempt.sock)
            if attempt.advance(events):
                open_ -= 1
            else:
                selector.register(attempt.sock, attempt.wants, attempt)
        for key in list(selector.get_map().values()):
            if key.data is not None and time.monotonic() - key.data.began > TIMEOUT_S:
                selector.unregister(key.data.sock)
                open_ -= key.data.end("timed out")


if __name__ == "__main__":
    main()
