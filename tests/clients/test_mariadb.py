"""mariadb with MariaDB, which blocks whoever connects a hundred times and says nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import ClassVar

from tests.clients.kit import Clients, Director, free_ports, on_both_relays, run, sha256, wait_until

USER = "mysql"
PARALLEL = 20
#: Of a result: lines, each of 32 times the 32 digits of an MD5.
LINES = 50_000
PROBES = 1000
#: Whom MariaDB sees: it counts no errors of 127.0.0.1, nor of an address that it finds no name for.
DIRECTOR = "127.0.0.3"
#: Runs a server that has a file of ours for /etc/hosts.
OWN_HOSTS_FILE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)),
                  "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


class MariaDB(Clients):
    __test__ = False
    needs = ("mariadbd", "mariadb", "unshare")
    socket: ClassVar[Path]
    port: ClassVar[int]

    @classmethod
    def serve(cls) -> None:
        folder = cls.folder("mariadb", USER)
        data, cls.socket = folder / "data", folder / "socket"
        run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db",
            "--auth-root-authentication-method=normal", "--skip-log-bin", user=USER)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{DIRECTOR} director\n")
        (cls.port,) = free_ports(1)
        cls.server(*OWN_HOSTS_FILE, folder / "hosts", "mariadbd", "--no-defaults", f"--datadir={data}",
                   f"--socket={cls.socket}", f"--port={cls.port}", "--bind-address=127.0.0.1",
                   f"--user={USER if os.geteuid() == 0 else 'root'}", port=cls.port)
        cls.beside("create user tester@'%'; grant select on *.* to tester@'%'")
        cls.director = cls.direct(cls.port)

    @classmethod
    def beside(cls, statement: str) -> str:
        """What the server answers who asks without the director."""
        return run("mariadb", "--no-defaults", "-u", "root", "-S", cls.socket, "-BN", "-e", statement).strip()

    def asking(self, statement: str, director: Director | None = None) -> tuple[object, ...]:
        port = (director or self.director).port
        return ("mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", port, "-u", "tester", "--quick", "-BN",
                "-e", statement)

    def test_at_the_same_time(self) -> None:
        """Twenty clients wait for answers at once, and each gets its own."""
        clients = [self.client(*self.asking(f"select sha2('{n}', 256) from (select sleep(1)) as later"))
                   for n in range(PARALLEL)]
        for n, each in enumerate(clients):
            said, complaint = each.communicate(timeout=60)
            self.assertEqual(said.strip(), hashlib.sha256(str(n).encode()).hexdigest(), complaint)

    def test_a_big_result(self) -> None:
        """50 MB of rows come whole."""
        rows = self.directory / "rows"
        run(*self.asking(f"select repeat(md5(seq), 32) from mysql.seq_1_to_{LINES}"), target=rows)
        expected = hashlib.sha256()
        for n in range(1, LINES + 1):
            expected.update(hashlib.md5(str(n).encode()).hexdigest().encode() * 32 + b"\n")
        self.assertEqual(sha256(rows), expected.hexdigest())

    def test_probes(self) -> None:
        """A thousand of the default probes, and no client meanwhile, do not have the director blocked."""
        director = self.direct(self.port, group=f'source = ["{DIRECTOR}"]\nhealth.interval_s = 0.002')
        wait_until(lambda: director.total("txdirector_host_probes_total", 'result="success"') >= PROBES,
                   f"{PROBES} probes pass")
        self.assertEqual(run(*self.asking("select 1", director)).strip(), "1")


PythonMariaDBTests, NativeMariaDBTests = on_both_relays(MariaDB)
