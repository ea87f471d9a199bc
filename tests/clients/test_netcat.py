"""``nc -N``, which says that it has sent all and goes on reading; as a server nc ends with its client's last byte."""

from __future__ import annotations

import hashlib
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from tests.clients.kit import CLIENT_S, Clients, free_ports, on_both_relays, random_file, run, sha256

FILE_BYTES = 100 << 20


class Netcat(Clients):
    __test__ = False
    needs = ("nc",)
    port: ClassVar[int]
    through: ClassVar[tuple[object, ...]]

    @classmethod
    def serve(cls) -> None:
        (cls.port,) = free_ports(1)
        cls.director = cls.direct(cls.port)
        cls.through = ("127.0.0.1", cls.director.port)

    def test_to_the_host(self) -> None:
        """The host gets all, and the end of it."""
        here, there = self.directory / "here", self.directory / "there"
        whole = random_file(here, FILE_BYTES)
        self.server("sh", "-c", f"exec nc -l -d 127.0.0.1 {self.port} > there", port=self.port)
        run("nc", "-N", *self.through, source=here)
        self.assertEqual(sha256(there), whole)

    def test_to_the_client(self) -> None:
        """So does the client."""
        there, here = self.directory / "there", self.directory / "here"
        whole = random_file(there, FILE_BYTES)
        self.server("sh", "-c", f"exec nc -l -N 127.0.0.1 {self.port} < there", port=self.port)
        run("nc", "-d", *self.through, target=here)
        self.assertEqual(sha256(here), whole)

    def test_an_answer_to_all(self) -> None:
        """The host begins its answer once the client has said all."""
        request, answer, back = (self.directory / name for name in ("request", "answer", "back"))
        asked = random_file(request, FILE_BYTES)
        whole = random_file(answer, FILE_BYTES)

        def serve() -> str:
            client, _ = listener.accept()
            with client, answer.open("rb") as file:
                client.settimeout(CLIENT_S)
                heard = hashlib.sha256()
                while data := client.recv(1 << 20):
                    heard.update(data)
                client.sendfile(file)
                return heard.hexdigest()

        with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", self.port)) as listener:
            listener.settimeout(CLIENT_S)
            served = pool.submit(serve)
            run("nc", "-N", *self.through, source=request, target=back)
            self.assertEqual(served.result(), asked)
        self.assertEqual(sha256(back), whole)


PythonNetcatTests, NativeNetcatTests = on_both_relays(Netcat)
