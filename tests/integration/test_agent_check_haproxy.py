"""agent-check against a real HAProxy: our grammar is its, and it understands our agent."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cluster.agent_check import Answer, first_line, parse
from tests.integration.agent_check_haproxy import DEADLINE_S, HAProxy

ROOT = Path(__file__).parents[2]
WEIGHT, MAXIMUM = 200, 50  # as the server is configured
RESET = b"up ready 100% maxconn:50\n"
#: Every word, and every way in which a line can be odd.
LINES = (
    b"75%\n", b"75%\r\n", b"75%\rdown\n", b"75%", b"down", b"", b"\n", b"75%\ndown\n", b"0%\n", b"007%\n", b"300%\n",
    b"99999999999999999999%\n", b"-5%\n", b"+5%\n", b"5x%\n", b"50%x\n", b"50% 5x%\n", b"10% 20%\n", b"5 %\n", b"50\n",
    b"maxconn:30\n", b"MaxConn:8\n", b"maxconn:\n", b"maxconn:x\n", b"maxconn:9x\n", b"maxconn: 9\n",
    b"maxconn:5 maxconn:x\n", b"up\n", b"down\n", b"FAIL\n", b"Stopped\n", b"ready\n", b"drain\n", b"MAINT\n",
    b"down # disk full\n", b"fail #a,b 10%\n", b"stopped\t#\n", b"drain #why\n", b"#50%\n", b"down#why\n", b"up down\n",
    b"down up\n", b"drain ready\n", b"maint drain\n", b"drain down\n", b"ready up 50% maxconn:7\n",
    b" ,50%,,maxconn:7\t,up, \n", b"nonsense\n", b"\xff\xfe up 50%\n", b"50%\0\n", b"\x00\n", b"50%\x0bup\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * 3000 + b" 50%\n", b"x" * 20_000 + b" 50%\n",
)
WORDS = (b"up", b"down", b"fail", b"stopped", b"ready", b"drain", b"maint", b"40%", b"60%", b"7x%", b"maxconn:9", b"maxconn:y",
         b"#", b"# so", b"up#", b"%", b",", b"12", b"Up,Ready")


class Script:
    """A responder that says what it is told, and a host that takes connections."""

    def __init__(self) -> None:
        self.agent = socket.create_server(("127.0.0.1", 0))
        self.host = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.line = RESET
        self.said = 0
        for serve in (self._answer, self._accept):
            threading.Thread(target=serve, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                asking = self.agent.accept()[0]
            except OSError:
                return
            with asking:
                try:
                    asking.sendall(self.line)
                    self.said += 1
                except OSError:
                    continue  # HAProxy has closed: the line is too long for it

    def _accept(self) -> None:
        while True:
            try:
                self.host.accept()[0].close()
            except OSError:
                return

    def say(self, line: bytes) -> None:
        """Until it was said twice, so that the first is understood."""
        self.line, end = line, self.said + 3
        give_up = time.monotonic() + DEADLINE_S
        while self.said < end:
            assert time.monotonic() < give_up, "HAProxy asks no more"
            time.sleep(0.005)

    def stop(self) -> None:
        for each in (self.agent, self.host):
            each.shutdown(socket.SHUT_RDWR)
            each.close()


class Grammar(SynchronousTestCase):
    def setUp(self) -> None:
        self.script = Script()
        self.addCleanup(self.script.stop)
        self.haproxy = HAProxy(self.script.host.getsockname()[1], self.script.agent.getsockname()[1])
        self.addCleanup(self.haproxy.stop)
        self.haproxy.until(lambda row: row.get("status") == "UP" and row.get("agent_status") == "L7OK")

    def check(self, data: bytes) -> None:
        """HAProxy makes of *data* what `parse` does."""
        self.script.say(RESET)
        self.haproxy.until(lambda row: (row["status"], row["weight"], row["slim"]) == ("UP", str(WEIGHT), str(MAXIMUM)))
        self.script.say(data)
        line = first_line(data)
        answer = Answer() if line is None else parse(line)

        def same(row: dict[str, str]) -> bool:
            status, agent = row["status"], row["last_agt"].lower()
            if answer.admin == "maint":
                return status == "MAINT"
            if answer.health in ("down", "fail", "stopped"):
                why = f" ({answer.why.lower()})" if answer.why else ""
                return status == "DOWN (agent)" and agent.startswith(f"via agent : {answer.health}{why}")
            weight = WEIGHT if answer.percent is None else min(256, WEIGHT * answer.percent // 100)
            most = MAXIMUM if answer.max_connections is None else answer.max_connections
            up = status.startswith("DRAIN") if answer.admin == "drain" else status == "UP"
            told = "error" in agent or "warns" in agent or answer.health is not None
            return (up and (row["weight"], row["slim"]) == (str(weight), str(most or ""))
                    and (not answer.unknown or told) and (line is not None or "incomplete" in agent or "empty" in agent))

        try:
            self.haproxy.until(same)
        except AssertionError as error:
            raise AssertionError(f"{data[:60]!r} is {answer}: {error}") from error

    def test_every_word_and_every_oddity(self) -> None:
        for line in LINES:
            self.check(line)

    def test_words_in_any_order(self) -> None:
        """Lines made of words by chance."""
        chance = random.Random(97)
        for _ in range(40):
            self.check(b" ".join(chance.choices(WORDS, k=chance.randint(1, 5))) + b"\n")


class Agent(SynchronousTestCase):
    def test_our_agent(self) -> None:
        """HAProxy takes the agent's headroom as weight. It drains while the agent leaves, goes on doing so when the agent has
        gone, and is ready again when it is back."""
        script = Script()
        self.addCleanup(script.stop)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        haproxy = HAProxy(script.host.getsockname()[1], port, more="agent-send hello\\n")
        self.addCleanup(haproxy.stop)

        def start() -> subprocess.Popen[bytes]:
            agent = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "--agent-check", f"127.0.0.1:{port}", "--leave-deadline", "2",
                 "--interval", "0.2", "--port", str(script.host.getsockname()[1])],
                cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(agent.wait)
            self.addCleanup(agent.kill)
            return agent

        haproxy.until(lambda row: row.get("status") == "UP")
        agent = start()
        row = haproxy.until(lambda row: row["agent_status"] == "L7OK" and row["weight"] != str(WEIGHT))
        self.assertTrue(WEIGHT * 5 // 100 <= int(row["weight"]) < WEIGHT, row["weight"])
        hold = socket.create_connection(("127.0.0.1", script.host.getsockname()[1]))  # something is in flight
        self.addCleanup(hold.close)
        agent.send_signal(signal.SIGTERM)
        haproxy.until(lambda row: row["status"] == "DRAIN (agent)")
        agent.wait(DEADLINE_S)
        self.assertEqual(haproxy.server()["status"], "DRAIN (agent)")
        start()
        haproxy.until(lambda row: row["status"] == "UP")
