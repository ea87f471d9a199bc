"""mosquitto_pub and mosquitto_sub with Mosquitto."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tests.clients.kit import Clients, free_ports, on_both_relays, random_file, run, sha256, wait_until

MESSAGES = 500
RETAINED_BYTES = 20 << 20

MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
persistence false
user root
max_queued_messages 0
"""


class Mqtt(Clients):
    __test__ = False
    needs = ("mosquitto", "mosquitto_pub")
    log: ClassVar[Path]
    through: ClassVar[tuple[object, ...]]

    @classmethod
    def serve(cls) -> None:
        (port,) = free_ports(1)
        configuration = cls.directory / "mosquitto.conf"
        configuration.write_text(MOSQUITTO.format(port=port))
        cls.log = cls.server("mosquitto", "-v", "-c", configuration, port=port)
        cls.director = cls.direct(port)
        cls.through = ("-h", "127.0.0.1", "-p", cls.director.port)

    def test_published(self) -> None:
        """Every subscriber gets each message exactly once, in order."""
        heard: list[Path] = [self.directory / f"heard{n}" for n in range(3)]
        subscribers = [self.client("mosquitto_sub", *self.through, "-q", 2, "-t", "news/#", "-C", MESSAGES, output=each)
                       for each in heard]
        wait_until(lambda: self.log.read_text().count("Sending SUBACK") >= len(heard), "three subscribe")
        sent = "".join(f"message {n}\n" for n in range(MESSAGES))
        run("mosquitto_pub", *self.through, "-q", 2, "-t", "news/all", "-l", given=sent.encode())
        for each, subscriber in zip(heard, subscribers, strict=True):
            self.assertEqual(subscriber.wait(timeout=30), 0)
            self.assertEqual(each.read_text(), sent)

    def test_a_retained_message(self) -> None:
        """20 MB in one message are there for who comes later, and are the same."""
        message, back = self.directory / "message", self.directory / "back"
        whole = random_file(message, RETAINED_BYTES)
        run("mosquitto_pub", *self.through, "-q", 1, "-r", "-t", "kept", "-f", message)
        run("mosquitto_sub", *self.through, "-q", 1, "-t", "kept", "-C", 1, "-N", target=back)
        self.assertEqual(sha256(back), whole)


PythonMqttTests, NativeMqttTests = on_both_relays(Mqtt)
