"""A server that really works: ``python -m bench.live.burner PORT``. As a simulated host (`bench.live.hosts`), but a
request burns its seconds of processor time here; so a cgroup's quota, or whoever else uses the core, makes it slow.

A line ``served`` is answered with the count of requests.
"""

from __future__ import annotations

import socketserver
import sys
import time
from itertools import count

served = count()


class Serving(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        for line in self.rfile:
            if line == b"served\n":
                self.wfile.write(b"%d\n" % next(served))
                continue
            ends = time.thread_time() + float(line)
            while time.thread_time() < ends:
                pass
            next(served)
            self.wfile.write(b"ok\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 1000

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes is no news."""


if __name__ == "__main__":
    sys.setswitchinterval(0.001)  # requests share the core as processes do
    Server(("127.0.0.1", int(sys.argv[1])), Serving).serve_forever()
