"""Probes of real servers by their own protocols: a service follows the primary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.clients.kit import Clients, free_ports, run, wait_until
from tests.integration.pki import Authority

PASSWORD = "p%s wörd"

SERVICE = """
[services.{service}]
listen = ["127.0.0.1:{port}"]
"""
#: A group whose hosts are looked at often, and believed at once.
GROUP = """
on_down = "cut"
[services.{service}.groups.main.health]
rise = 1
fall = 1
interval_s = 0.1
suspect_interval_s = 0.1
down_interval_s = 0.1
slow_start_s = 0
flap_hold_s = 0
probe = {{ timeout_s = 5.0, {probe} }}
"""


class Checks(Clients):
    """The relay is of no importance."""

    __test__ = False
    relay = "python"
    ports: ClassVar[tuple[int, int]]
    #: By service: where it listens.
    listeners: ClassVar[dict[str, int]]

    @classmethod
    def follow(cls, probes: Mapping[str, str]) -> None:
        """A director with a service for each of *probes*; the first is called ``all``."""
        cls.listeners = dict(zip(probes, free_ports(len(probes)), strict=True))
        hosts = "".join(f'hosts.host{number} = "127.0.0.1:{port}"\n' for number, port in enumerate(cls.ports))
        more = "".join(
            SERVICE.format(service=name, port=cls.listeners[name]) + f"[services.{name}.groups.main]\n{hosts}"
            + GROUP.format(service=name, probe=probe) for name, probe in probes.items() if name != "all")
        cls.director = cls.direct(*cls.ports, group=GROUP.format(service="all", probe=probes["all"]), more=more,
                                  node=f'probe_passwords = "{cls.directory}"')
        cls.listeners["all"] = cls.director.port

    def up(self, service: str) -> int:
        """How many of its hosts have passed."""
        return int(self.director.total("txdirector_group_available_hosts", f'service="{service}"'))


class RedisTests(Checks):
    __test__ = True
    needs = ("redis-server", "redis-cli")

    @classmethod
    def serve(cls) -> None:
        cls.ports = (one, other) = tuple(free_ports(2))  # type: ignore[assignment]
        (cls.directory / "monitor").write_text("secret\n")
        acl = ("--user", "monitor", "on", ">secret", "+ping", "+role")
        for port in cls.ports:
            cls.server("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", cls.directory, *acl, port=port)
        cls.cli(other, "replicaof", "127.0.0.1", one)
        signed = 'kind = "redis", user = "monitor", password = "monitor"'
        cls.follow({"all": f'{signed}, role = "primary"', "readers": f'{signed}, role = "replica"'})

    @classmethod
    def cli(cls, port: int, *words: object) -> str:
        return run("redis-cli", "-p", port, *words).strip()

    def through(self, service: str) -> str:
        """The port of the server that a client gets to."""
        return self.cli(self.listeners[service], "config", "get", "port").splitlines()[-1]

    def test_follows(self) -> None:
        """Clients get to the primary, and readers to the replica, whichever that is now."""
        one, other = self.ports
        for primary, replica in ((one, other), (other, one)):
            self.cli(primary, "replicaof", "no", "one")
            self.cli(replica, "replicaof", "127.0.0.1", primary)
            for service, port in (("all", primary), ("readers", replica)):
                wait_until(lambda: self.up(service) == 1 and self.through(service) == str(port), service)  # noqa: B023


class PostgreSQLTests(Checks):
    __test__ = True
    needs = ("postgres", "psql")
    data: ClassVar[list[Path]]

    @classmethod
    def serve(cls) -> None:
        folder = cls.folder("postgresql", "postgres")
        cls.ports = tuple(free_ports(2))  # type: ignore[assignment]
        cls.data = [folder / "one", folder / "other"]
        cls.sockets = folder
        authority = Authority(cls.directory)
        certificate, key = authority.issue("127.0.0.1")
        for name, path in (("server.crt", certificate), ("server.key", key)):
            (folder / name).write_bytes(Path(path).read_bytes())
            run("chown", "postgres", folder / name)
            run("chmod", "600", folder / name)
        (cls.directory / "monitor").write_text(PASSWORD)
        (cls.directory / "wrong").write_text("wrong")
        run("initdb", "-D", cls.data[0], "-U", "postgres", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8", user="postgres")
        (cls.data[0] / "pg_hba.conf").write_text(
            "local all all trust\nlocal replication all trust\nhost replication all 127.0.0.1/32 trust\n"
            "host all postgres 127.0.0.1/32 trust\nhost all hashed 127.0.0.1/32 md5\n"
            "hostssl all clear 127.0.0.1/32 password\nhost all monitor 127.0.0.1/32 scram-sha-256\n")
        cls.start(0)
        quoted = PASSWORD.replace("'", "''")
        cls.beside(0, f"set password_encryption = 'scram-sha-256'; create role monitor login password '{quoted}'; "
                      f"create role clear login password '{quoted}'")
        cls.beside(0, f"set password_encryption = 'md5'; create role hashed login password '{quoted}'")
        run("pg_basebackup", "-h", cls.sockets, "-p", cls.ports[0], "-U", "postgres", "-D", cls.data[1], "-R", "-c", "fast",
            "--no-sync", user="postgres")
        cls.start(1)
        cls.ca = authority.path
        cls.follow({
            "all": cls.probe(), "hashed": cls.probe("hashed"), "clear": cls.probe("clear", tls=True), "tls": cls.probe(tls=True),
            "trusted": cls.probe("postgres"), "readers": cls.probe(role="replica"), "anybody": 'kind = "postgresql"',
            "wrong": cls.probe(password="wrong"),
        })

    @classmethod
    def probe(cls, user: str = "monitor", password: str = "monitor", role: str = "primary", tls: bool = False) -> str:
        secure = f', tls = {{ ca = "{cls.ca}" }}' if tls else ""
        return f'kind = "postgresql", user = "{user}", password = "{password}", database = "postgres", role = "{role}"{secure}'

    @classmethod
    def start(cls, number: int) -> None:
        tls = [word for name in ("ssl=on", f"ssl_cert_file={cls.sockets}/server.crt", f"ssl_key_file={cls.sockets}/server.key",
                                 "wal_level=replica") for word in ("-c", name)]
        cls.server("postgres", "-D", cls.data[number], "-p", cls.ports[number], "-h", "127.0.0.1", "-k", cls.sockets, "-F", *tls,
                   port=cls.ports[number], user="postgres")
        wait_until(lambda: cls.answers(number), "PostgreSQL has recovered")

    @classmethod
    def answers(cls, number: int) -> bool:
        try:
            return cls.beside(number, "select 1") == "1"
        except AssertionError:
            return False

    @classmethod
    def beside(cls, number: int, statement: str) -> str:
        return cls.psql(cls.sockets, cls.ports[number], statement)

    @classmethod
    def psql(cls, host: object, port: int, statement: str) -> str:
        return run("psql", "-X", "-A", "-t", "-q", "-h", host, "-p", port, "-U", "postgres", "-c", statement, "postgres").strip()

    def through(self, service: str) -> str:
        return self.psql("127.0.0.1", self.listeners[service], "select inet_server_port()")

    def test_follows(self) -> None:
        """The service's clients get to the primary; when that has gone and the replica was promoted, to the new one, whatever
        the password is asked for by, over TLS or not."""
        one, other = map(str, self.ports)
        followers = ("all", "hashed", "clear", "tls", "trusted")
        for service, port in (*((each, one) for each in followers), ("readers", other)):
            wait_until(lambda: self.up(service) == 1, service)  # noqa: B023
            self.assertEqual(self.through(service), port)
        wait_until(lambda: self.up("anybody") == 2, "both answer")
        run("pg_ctl", "-D", self.data[0], "stop", "-m", "immediate", user="postgres")
        wait_until(lambda: self.up("all") == 0, "the old primary is out")
        self.beside(1, "select pg_promote()")
        for service in followers:
            wait_until(lambda: self.up(service) == 1, service)  # noqa: B023
            self.assertEqual(self.through(service), other)
        wait_until(lambda: self.up("readers") == 0 and self.up("anybody") == 1, "no replica is left")
        self.assertEqual(self.up("wrong"), 0)
