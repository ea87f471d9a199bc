"""What `director init` writes is run: real directors and agents see each other over TLS, renewed certificates are taken."""

from __future__ import annotations

import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
from typing import Any

from cryptography import x509

from director.config.init.layout import AGENTS_PORT
from director.ctl.client import CallFailed, Client
from tests.etcd_server import EtcdCluster
from tests.integration.test_cli import CliTestCase, address, listening, until

PASSWORD = re.compile(r"with the password (\S+) ")


def own_network() -> str:
    """The first three numbers of loopback addresses that nobody else listens on: the ports in the files are fixed."""
    while True:
        network = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        with socket.socket() as sock:
            try:
                sock.bind((f"{network}.1", AGENTS_PORT))
            except OSError:
                continue
        return network


class InitTestCase(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.cluster = self.directory / "cluster"
        self.network = own_network()

    def command(self, *words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "director", *words], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def made(self, *options: str) -> None:
        """A cluster's files; its first user is then known."""
        output = self.command("init", str(self.cluster), *options)
        (self.password,) = PASSWORD.findall(output)

    def node(self, name: str) -> str:
        path = str(self.cluster / f"directors/{name}/director.toml")
        self.assertTrue(self.command("check", path).startswith("OK\n"))
        return path

    def admin(self, number: int) -> Client:
        return Client(f"https://{self.network}.{number}:7401", user="admin", password=self.password,
                      ca=str(self.cluster / "authority/ca.pem"))

    def agent(self, name: str) -> Any:
        return self.start("-m", "agent.cli", "--config", str(self.cluster / f"agents/{name}/agent.toml"))

    def heard(self, client: Client) -> list[str]:
        """The hosts whose agent is connected to that director."""
        return [each["name"] for each in client.get("hosts") if each["agent_connected"]]

    def shown(self) -> x509.Certificate:
        """What the agents' port of the first director shows; it asks for a certificate, which we have."""
        context = ssl.create_default_context(cafile=str(self.cluster / "authority/ca.pem"))
        here = self.cluster / "agents/app1"
        context.load_cert_chain(here / "agent.crt.pem", here / "agent.key.pem")
        with (socket.create_connection((f"{self.network}.1", AGENTS_PORT), timeout=30) as sock,
              context.wrap_socket(sock, server_hostname=f"{self.network}.1") as wrapped):
            shown = wrapped.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown)


class AloneTests(InitTestCase):
    def test_one_director(self) -> None:
        """It runs on its own store, its agent reports over TLS, a client is served, and its admin knows the first user only."""
        with listening() as backend:
            self.made("--director", f"lb1={self.network}.1", "--host", f"app1={address(backend)}",
                      "--listen", f"{self.network}.1:8080")
            running = self.start("-m", "director", "run", self.node("lb1"))
            running.says("ready\n")
            self.agent("app1")
            client = self.admin(1)
            until(lambda: self.heard(client) == ["app1"])
            visitor = socket.create_connection((f"{self.network}.1", 8080), timeout=30)
            self.addCleanup(visitor.close)
            host, _ = backend.accept()
            while True:  # probes connect, too, and say nothing
                host.settimeout(30)
                visitor.sendall(b"ping")
                if host.recv(4) == b"ping":
                    break
                host.close()
                host, _ = backend.accept()
            host.close()
            stranger = Client(f"https://{self.network}.1:7401", user="admin", password="guessed",
                              ca=str(self.cluster / "authority/ca.pem"))
            self.assertRaises(CallFailed, stranger.get, "hosts")

    def test_renewed(self) -> None:
        """A running director shows renewed certificates, and the same agent connects anew."""
        self.made("--director", f"lb1={self.network}.1", "--host", "app1=127.0.0.1:1", "--listen", f"{self.network}.1:8080",
                  "--days", "3")
        running = self.start("-m", "director", "run", self.node("lb1"))
        running.says("ready\n")
        before = self.shown()
        self.command("init", "--renew", "--days", "9", str(self.cluster))
        self.admin(1).post("process", "reload")
        after = self.shown()
        self.assertEqual((after.public_key(), after.subject), (before.public_key(), before.subject))
        self.assertGreater(after.not_valid_after_utc, before.not_valid_after_utc)
        self.agent("app1")
        until(lambda: self.heard(self.admin(1)) == ["app1"])

    def test_added(self) -> None:
        """One more host: with the lines told, a director hears its agent."""
        self.made("--director", f"lb1={self.network}.1", "--host", "app1=127.0.0.1:1", "--listen", f"{self.network}.1:8080")
        output = self.command("init", "--add", str(self.cluster), "--host", "app2=127.0.0.1:2")
        path = self.node("lb1")
        with open(path, "a", encoding="utf-8") as file:
            file.write(output.partition("\n\n")[2].partition("Next:")[0])
        running = self.start("-m", "director", "run", self.node("lb1"))
        running.says("ready\n")
        self.admin(1).put("services", "web", "groups", "main", "hosts", "app2", address="127.0.0.1:2")
        self.agent("app2")
        until(lambda: self.heard(self.admin(1)) == ["app2"])

    def test_strangers(self) -> None:
        """An agent without a certificate of this authority, with another's, or with another agent's token is not heard."""
        self.made("--director", f"lb1={self.network}.1", "--host", "app1=127.0.0.1:1", "--host", "app2=127.0.0.1:2",
                  "--listen", f"{self.network}.1:8080")
        running = self.start("-m", "director", "run", self.node("lb1"))
        running.says("ready\n")
        mine = self.cluster / "agents/app1"
        shutil.copy(self.cluster / "agents/app2/token", mine / "token")
        other = self.agent("app1")
        other.says("refused|forbidden|may not")
        (mine / "agent.toml").write_text(re.sub("(?m)^(certificate|key) = .*\n", "", (mine / "agent.toml").read_text()))
        self.agent("app1")
        running.says("(?i)did not return a certificate")
        self.assertEqual(self.heard(self.admin(1)), [])


class ClusterTests(InitTestCase):
    def test_two_directors(self) -> None:
        """With etcd: the services are put there once, the directors link over TLS, and each hears the agent."""
        etcd = EtcdCluster().start()
        self.addCleanup(etcd.stop)
        with listening() as backend:
            self.made("--director", f"lb1={self.network}.1", "--director", f"lb2={self.network}.2", "--etcd", etcd.endpoints[0],
                      "--host", f"app1={address(backend)}", "--listen", "127.0.0.1:0")
            self.assertIn("cluster main: web", self.command(
                "bootstrap", "--config", self.node("lb1"), str(self.cluster / "services.toml")))
            for name in ("lb1", "lb2"):
                self.start("-m", "director", "run", self.node(name)).says("ready\n")
            self.agent("app1")
            clients = [self.admin(number) for number in (1, 2)]
            until(lambda: [self.heard(client) for client in clients] == [["app1"], ["app1"]])
            until(lambda: all(self.linked(client) for client in clients))

    def linked(self, client: Client) -> bool:
        """Whether that director sees both, and holds a connection to the other."""
        members = client.get("cluster")["members"]
        return len(members) == 2 and sum(each.get("linked") is True for each in members) == 1
