"""redis-cli and redis-benchmark with Redis."""

from __future__ import annotations

import hashlib
import re
from typing import ClassVar

from tests.clients.kit import Clients, free_ports, on_both_relays, random_file, run, wait_until

REQUESTS = 20_000
VALUE_BYTES = 100 << 20
MESSAGES = 2000


class Redis(Clients):
    __test__ = False
    needs = ("redis-server", "redis-cli")
    port: ClassVar[int]
    cli: ClassVar[tuple[object, ...]]

    @classmethod
    def serve(cls) -> None:
        (cls.port,) = free_ports(1)
        cls.server("redis-server", "--port", cls.port, "--bind", "127.0.0.1", "--save", "", "--dir", cls.directory,
                   port=cls.port)
        cls.director = cls.direct(cls.port)
        cls.cli = ("redis-cli", "-p", cls.director.port)

    def setUp(self) -> None:
        self.beside("flushall")
        self.beside("config", "resetstat")

    def beside(self, *words: object) -> str:
        """What the server answers who asks without the director."""
        return run("redis-cli", "-p", self.port, *words).strip()

    def calls(self, name: str) -> int:
        [count] = re.findall(rf"cmdstat_{name}:calls=(\d+).*failed_calls=0", self.beside("info", "commandstats"))
        return int(count)

    def test_pipelines(self) -> None:
        """Every request of sixteen on the way at a time is made once, and none fails."""
        run("redis-benchmark", "-p", self.director.port, "-c", 20, "-P", 16, "-n", REQUESTS, "-q", "-t", "set,get")
        self.assertEqual((self.calls("set"), self.calls("get")), (REQUESTS, REQUESTS))

    def test_mass_insertion(self) -> None:
        """redis-cli writes everything and then reads what is left of the answers."""
        pairs = {f"key:{n}": f"value {n * n}" for n in range(REQUESTS)}
        given = "".join(f'set {key} "{value}"\r\n' for key, value in pairs.items())
        said = run(*self.cli, "--pipe", given=given.encode())
        self.assertIn(f"errors: 0, replies: {REQUESTS}", said)
        keys = run(*self.cli, "mget", *list(pairs)[::100]).splitlines()
        self.assertEqual(keys, list(pairs.values())[::100])
        self.assertEqual(self.beside("dbsize"), str(REQUESTS))

    def test_a_big_value(self) -> None:
        """100 MB are set, and got back, the same."""
        value, back = self.directory / "value", self.directory / "back"
        random_file(value, VALUE_BYTES)
        self.assertEqual(run(*self.cli, "-x", "set", "big", source=value).strip(), "OK")
        sha1 = hashlib.sha1(value.read_bytes()).hexdigest()
        self.assertEqual(self.beside("eval", "return redis.sha1hex(redis.call('get', 'big'))", "0"), sha1)
        run(*self.cli, "get", "big", target=back)
        self.assertEqual(hashlib.sha1(back.read_bytes().removesuffix(b"\n")).hexdigest(), sha1)

    def test_published(self) -> None:
        """Subscribers get every message, in order; they stay connected without a word of their own."""
        heard = [self.directory / f"heard{n}" for n in range(3)]
        subscribers = [self.client(*self.cli, "subscribe", "news", output=each) for each in heard]
        wait_until(lambda: self.beside("pubsub", "numsub", "news").split() == ["news", "3"], "three subscribe")
        sent = [f"message {n}" for n in range(MESSAGES)]
        run(*self.cli, "--pipe", given="".join(f'publish news "{each}"\r\n' for each in sent).encode())
        for each in heard:
            wait_until(lambda: each.read_text().endswith(f"{sent[-1]}\n"), "the last message comes")  # noqa: B023
            self.assertEqual(each.read_text().splitlines()[3:], [word for one in sent for word in ("message", "news", one)])
        for subscriber in subscribers:
            subscriber.terminate()
            subscriber.wait(timeout=20)


PythonRedisTests, NativeRedisTests = on_both_relays(Redis)
