"""iperf3 with its server, as fast as both can."""

from __future__ import annotations

import json

from tests.clients.kit import Clients, free_ports, on_both_relays, run

#: Of each run, long enough that pipes fill up and splicing begins, and streams beside iperf3's own connection.
SECONDS, STREAMS = 2, 4
MIN_BYTES = 10 << 20


class Iperf(Clients):
    __test__ = False
    needs = ("iperf3",)

    @classmethod
    def serve(cls) -> None:
        (port,) = free_ports(1)
        cls.server("iperf3", "-s", "-B", "127.0.0.1", "-p", port, port=port)
        cls.director = cls.direct(port)

    def measure(self, *arguments: str) -> None:
        before = self.director.accepted
        report = json.loads(run("iperf3", "-c", "127.0.0.1", "-p", self.director.port, "-t", SECONDS, "-P", STREAMS, "-J",
                                *arguments))
        self.assertNotIn("error", report)
        for stream in report["end"]["streams"]:
            self.assertGreater(stream["receiver"]["bytes"], MIN_BYTES)
        self.assertEqual(self.director.accepted - before, STREAMS + 1)

    def test_to_the_host(self) -> None:
        """Every stream goes on until the client ends it."""
        self.measure()

    def test_to_the_client(self) -> None:
        """So do those in the other direction."""
        self.measure("-R")


PythonIperfTests, NativeIperfTests = on_both_relays(Iperf)
