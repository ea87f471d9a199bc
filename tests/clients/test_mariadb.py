"""mariadb with MariaDB."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from tests.clients.kit import Clients, free_ports, on_both_relays, run, sha256

USER = "mysql"
PARALLEL = 20
#: Of a result: lines, each of 32 times the 32 digits of an MD5.
LINES = 50_000


class MariaDB(Clients):
    __test__ = False
    needs = ("mariadbd", "mariadb")
    socket: ClassVar[Path]

    @classmethod
    def serve(cls) -> None:
        folder = cls.folder("mariadb", USER)
        data, cls.socket = folder / "data", folder / "socket"
        run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db",
            "--auth-root-authentication-method=normal", "--skip-log-bin", user=USER)
        (port,) = free_ports(1)
        cls.server("mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={cls.socket}", f"--port={port}",
                   "--bind-address=127.0.0.1", port=port, user=USER)
        cls.beside("create user tester@'%'; grant select on *.* to tester@'%'")
        cls.director = cls.direct(port)

    @classmethod
    def beside(cls, statement: str) -> str:
        """What the server answers who asks without the director."""
        return run("mariadb", "--no-defaults", "-u", "root", "-S", cls.socket, "-BN", "-e", statement).strip()

    def asking(self, statement: str) -> tuple[object, ...]:
        return ("mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", self.director.port, "-u", "tester", "--quick", "-BN",
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


PythonMariaDBTests, NativeMariaDBTests = on_both_relays(MariaDB)
