"""psql and pgbench with PostgreSQL."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import ClassVar

from tests.clients.kit import Clients, free_ports, on_both_relays, random_file, run, sha256, wait_until

USER = "postgres"
#: Lines of a copied table and bytes, given as hexadecimal digits, in each.
LINES, LINE_BYTES = 50_000, 1000


class PostgreSQL(Clients):
    __test__ = False
    needs = ("postgres", "pgbench")
    socket: ClassVar[Path]
    port: ClassVar[int]
    through: ClassVar[tuple[object, ...]]

    @classmethod
    def serve(cls) -> None:
        folder = cls.folder("postgresql", USER)
        run("initdb", "-D", folder / "data", "-U", USER, "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8", user=USER)
        (cls.port,) = free_ports(1)
        cls.server("postgres", "-D", folder / "data", "-p", cls.port, "-h", "127.0.0.1", "-k", folder, "-F", port=cls.port,
                   user=USER)
        cls.socket = folder
        wait_until(cls.answers, "PostgreSQL has recovered")
        cls.director = cls.direct(cls.port)
        cls.through = ("-h", "127.0.0.1", "-p", cls.director.port, "-U", USER)

    @classmethod
    def answers(cls) -> bool:
        try:
            return cls.beside("select 1") == "1"
        except AssertionError:
            return False

    @classmethod
    def beside(cls, statement: str) -> str:
        """What the server answers who asks without the director."""
        return run("psql", "-X", "-A", "-t", "-h", cls.socket, "-p", cls.port, "-U", USER, "-c", statement, USER).strip()

    def bench(self, *arguments: object) -> None:
        """Every transaction is made once, as the server's own books have it."""
        run("pgbench", "-i", "-q", "-n", *self.through, USER)
        said = run("pgbench", "-n", *arguments, *self.through, USER)
        made = re.search(r"transactions actually processed: (\d+)/\1\n", said)
        assert made, said
        books = self.beside("select (select count(*) from pgbench_history),"
                            " (select sum(delta) from pgbench_history) = (select sum(abalance) from pgbench_accounts),"
                            " (select sum(delta) from pgbench_history) = (select sum(bbalance) from pgbench_branches)")
        self.assertEqual(books, f"{made[1]}|t|t")

    def test_kept_connections(self) -> None:
        """pgbench, eight clients that stay connected."""
        self.bench("-c", 8, "-j", 2, "-t", 200)

    def test_new_connections(self) -> None:
        """pgbench that connects for every transaction."""
        before = self.director.accepted
        self.bench("-C", "-c", 4, "-j", 2, "-t", 50)
        self.assertGreaterEqual(self.director.accepted - before, 200)

    def test_cancel(self) -> None:
        """An interrupt of psql ends its query, by a second connection."""
        before = self.director.accepted
        psql = self.client("psql", "-X", *self.through, "-c", "select pg_sleep(600)", USER)
        asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
        wait_until(lambda: self.beside(asleep) == "1", "the query runs")
        psql.send_signal(signal.SIGINT)
        _, complaint = psql.communicate(timeout=20)
        self.assertIn("canceling statement due to user request", complaint)
        self.assertEqual(self.beside(asleep), "0")
        self.assertEqual(self.director.accepted - before, 2)

    def test_copy(self) -> None:
        """100 MB go into a table and come back the same."""
        binary, lines, back = (self.directory / name for name in ("binary", "lines", "back"))
        random_file(binary, LINES * LINE_BYTES)
        with binary.open("rb") as source, lines.open("w") as target:
            for _ in range(LINES):
                target.write(source.read(LINE_BYTES).hex() + "\n")
        self.beside("create unlogged table copied (line text)")
        run("psql", "-X", *self.through, "-c", "copy copied from stdin", USER, source=lines)
        arrived = "select encode(sha256(convert_to(string_agg(line, e'\\n') || e'\\n', 'UTF8')), 'hex') from copied"
        self.assertEqual(self.beside(arrived), sha256(lines))
        run("psql", "-X", *self.through, "-c", "copy copied to stdout", USER, target=back)
        self.assertEqual(sha256(back), sha256(lines))


PythonPostgreSQLTests, NativePostgreSQLTests = on_both_relays(PostgreSQL)
