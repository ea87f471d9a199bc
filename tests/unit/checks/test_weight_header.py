"""The header by which a host says its weight: its name, its grammar."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Probe
from director.checks.weight_header import HEADER, MOST, name_of, weight_in

NAME = HEADER.lower().encode()


class WeightTests(SynchronousTestCase):
    def test_name(self) -> None:
        """Google's, or another one; only where asked for."""
        for probe, name in ((Probe(kind="http"), b""), (Probe(kind="http", weight_header=True), NAME),
                            (Probe(kind="http", weight_header="X-My-Weight"), b"x-my-weight"), (Probe(weight_header=True), b"")):
            self.assertEqual(name_of(probe), name)

    def test_numbers(self) -> None:
        """Decimal numbers from 0 to 1000, whatever the spelling of the name and the blanks around."""
        for value, weight in ((b"0", 0.0), (b"1", 1.0), (b"3", 3.0), (b"1000", 1000.0), (b"0.25", 0.25), (b"007", 7.0), (b"2.", 2.0)):
            for line in (b"X-Load-Balancing-Endpoint-Weight: %s\r", b"x-load-balancing-ENDPOINT-weight:\t %s  "):
                fields = b"Server: x: y\r\n" + line % value + b"\nX: 1"
                self.assertEqual(weight_in(fields, NAME), (weight, f"weight {weight:g}"))

    def test_nonsense(self) -> None:
        """Nothing else counts, and the operator reads so."""
        for value in (b"", b"-1", b"1001", b"1e2", b"inf", b"nan", b"0x10", b"1,5", b"1 2", b".5", b"9" * 400, b"\xff", b"+1"):
            self.assertEqual(weight_in(HEADER.encode() + b": " + value + b"\r", NAME), (None, "a weight that is none"), value)
        twice = HEADER.encode() + b": 1\r\n" + HEADER.encode() + b": 1\r"
        self.assertEqual(weight_in(twice, NAME)[0], None)
        for fields in (b"", b"X: 1\r\nY: 2", HEADER.encode() + b" : 1", HEADER.encode() + b"s: 1", b"\r\n 1"):
            self.assertEqual(weight_in(fields, NAME), (None, "no weight"), fields)

    @given(st.binary(max_size=200), st.binary(max_size=30))
    def test_anything(self, before: bytes, value: bytes) -> None:
        """Whatever a host sends, what comes of it is within bounds, or nothing."""
        weight, words = weight_in(before + b"\n" + NAME + b":" + value, NAME)
        self.assertTrue(words)
        self.assertTrue(weight is None or 0 <= weight <= MOST)
