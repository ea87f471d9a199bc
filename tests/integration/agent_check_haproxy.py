"""A real HAProxy that asks one responder, and its stats socket as witness."""

from __future__ import annotations

import csv
import io
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
DEADLINE_S = 20.0
CONFIG = """
global
    stats socket {directory}/stats level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
backend main
    server host 127.0.0.1:{host} weight 200 maxconn 50 check inter 100ms rise 1 fall 1 \
agent-check agent-addr 127.0.0.1 agent-port {agent} agent-inter 20ms {more}
"""


class HAProxy:
    """Asks the responder at the port *agent* fifty times a second, about the server at the port *host*."""

    def __init__(self, host: int, agent: int, more: str = "") -> None:
        if HAPROXY is None:
            raise SkipTest("needs HAProxy: apt-get install haproxy")
        self.directory = tempfile.mkdtemp(dir="/tmp")  # a short path: UNIX sockets live in it
        config = Path(self.directory) / "haproxy.cfg"
        config.write_text(CONFIG.format(directory=self.directory, host=host, agent=agent, more=more))
        self.process = subprocess.Popen([HAPROXY, "-db", "-f", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory)

    def command(self, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE_S)
            sock.connect(f"{self.directory}/stats")
            sock.sendall(line.encode() + b"\n")
            data = b""
            while chunk := sock.recv(65536):
                data += chunk
        return data.decode("utf-8", "backslashreplace")

    def server(self) -> dict[str, str]:
        """The row of ``show stat`` about the server; empty before there is one."""
        try:
            rows = csv.DictReader(io.StringIO(self.command("show stat").removeprefix("# ")))
        except OSError:
            return {}
        return next((row for row in rows if row["svname"] == "host"), {})

    def until(self, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """The first row of which it *holds*."""
        give_up = time.monotonic() + DEADLINE_S
        while not holds(row := self.server()):
            if time.monotonic() > give_up:
                shown = {key: row.get(key) for key in ("status", "weight", "slim", "agent_status", "last_agt", "check_status")}
                raise AssertionError(f"HAProxy never saw it so; it sees {shown}")
            time.sleep(0.02)
        return row
