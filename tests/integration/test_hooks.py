"""Hooks of a whole director: a real program and a real web server are told, and neither can hold it up."""

from __future__ import annotations

import json
import os
import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cluster.model import AdminState, HostRef, Order
from director.service import DirectorService
from tests.integration.kit import DirectorTestCase, closed_port, service, until
from tests.integration.pki import Authority

REF = HostRef("web", "main", "b")
ORDER = Order(state=AdminState.DRAIN, who="ann", why="kernel", at=1.0)
QUICK = {"health": {"interval_s": 0.1, "suspect_after_s": 0.3, "timeout_s": 0.5, "suspect_interval_s": 0.1, "fall": 1, "rise": 1}}


def alive(group: str) -> bool:
    """Whether any process of the group runs."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, found, *_ = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if found == group and state not in "ZX":
            return True
    return False


class WebServer:
    """Keeps what is posted."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.status = 204
        self.posts: list[tuple[str, str | None, dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posts.append((self.path, self.headers["Authorization"], json.loads(body)))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class HooksTests(DirectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.told = self.folder / "told"

    def program(self, text: str) -> str:
        path = self.folder / "hook"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    async def begin(self, **hooks: dict[str, Any]) -> DirectorService:
        """A director with a host that answers and one that does not."""
        site = await self.backend("a")
        data = service({"a": site.address, "b": f"127.0.0.1:{closed_port()}"}, group=QUICK)
        data["node"] = {"name": "d1", "hooks": hooks}
        return await self.director(data)

    def count(self, director: DirectorService, outcome: str) -> float:
        return director.registry.get_sample_value("txdirector_hook_records_total", {"hook": "h", "outcome": outcome}) or 0.0

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.told.read_text().splitlines()] if self.told.exists() else []

    async def test_a_program(self) -> None:
        """Is run without a shell with each record on its standard input, one after the other."""
        program = self.program(f'[ "$1" = "a b;c" ] && [ -z "$SECRET" ] && cat >> {self.told}\n')
        os.environ["SECRET"] = "x"
        self.addCleanup(os.environ.pop, "SECRET")
        director = await self.begin(h={"command": [program, "a b;c"]})
        await until(lambda: self.records(), "b is down")
        director.node.set_order(REF, "operator", ORDER)
        director.node.set_order(REF, "operator", ORDER)
        director.node.set_order(REF, "operator", None)
        await until(lambda: len(self.records()) == 3, "b was ordered, and is not any more")
        down, drain, up = self.records()
        self.assertEqual([each["number"] for each in (down, drain, up)], [1, 2, 3])
        self.assertEqual((down["director"], down["event"], down["host"], down["after"]), ("d1", "host_down", "b", "down"))
        self.assertIn("refused", down["why"].lower())
        self.assertEqual((drain["event"], drain["after"], drain["who"], drain["why"]), ("host_ordered", "drain", "ann", "kernel"))
        self.assertEqual((up["before"], up["after"]), ("drain", "up"))
        await until(lambda: self.count(director, "done") == 3, "all were counted")

    async def test_a_program_that_hangs(self) -> None:
        """Is killed with all that it began; clients are served meanwhile, and the next one is run."""
        program = self.program(f"echo $$ >> {self.told}; sleep 100 & sleep 100\n")
        director = await self.begin(h={"command": [program], "timeout_s": 0.5})
        await until(self.told.exists, "it has begun")
        self.assertEqual(await self.served_by(director), "a")
        director.node.set_order(REF, "operator", ORDER)
        await until(lambda: self.count(director, "failed") == 2, "both failed")
        groups = self.told.read_text().split()
        await until(lambda: not any(alive(group) for group in groups), "nothing is left of either")

    async def test_a_program_that_says_too_much_or_fails(self) -> None:
        program = self.program("yes\n")
        director = await self.begin(h={"command": [program]})
        await until(lambda: self.count(director, "failed") == 1, "it was cut")
        self.program("exit 3\n")
        director.node.set_order(REF, "operator", ORDER)
        await until(lambda: self.count(director, "failed") == 2, "it failed")

    async def test_a_post(self) -> None:
        """By TLS, whose certificate is verified, with the token; a status that is no success is a failure."""
        authority = Authority(self.folder)
        certificate, key = authority.issue("127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server = WebServer(context)
        self.addCleanup(server.close)
        token = self.folder / "token"
        token.write_text("s3cret\n")
        url = f"https://127.0.0.1:{server.port}/hook?x=1"
        director = await self.begin(h={"url": url, "ca": authority.path, "token_file": str(token)}, strange={"url": url})
        await until(lambda: self.count(director, "done") == 1, "b is down")
        ((path, authorization, record),) = server.posts
        self.assertEqual((path, authorization, record["event"]), ("/hook?x=1", "Bearer s3cret", "host_down"))
        server.status = 503
        director.node.set_order(REF, "operator", ORDER)
        await until(lambda: self.count(director, "failed") == 1, "it was refused")
        failed = {"hook": "strange", "outcome": "failed"}  # whose certificate nobody on this machine trusts
        await until(lambda: director.registry.get_sample_value("txdirector_hook_records_total", failed) == 2, "not trusted")
        self.assertEqual(len(server.posts), 2)

    async def test_nobody_listens(self) -> None:
        director = await self.begin(h={"url": f"http://127.0.0.1:{closed_port()}/"})
        await until(lambda: self.count(director, "failed") == 1, "refused")

    async def test_last_words(self) -> None:
        """What happens at the stop is delivered before the end."""
        server = WebServer()
        self.addCleanup(server.close)
        director = await self.begin(h={"url": f"http://localhost:{server.port}/", "on": ["host_ordered"]})
        director.node.set_order(REF, "operator", ORDER)
        await director.stopService()
        self.assertEqual([record["event"] for _, _, record in server.posts], ["host_ordered"])
