"""Programs for the kernel's machine: instruction by instruction as its documentation encodes them."""

from __future__ import annotations

import struct
import sys
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from director.ha.fence.assembler import BELOW, DOUBLE, EQUAL, FRAME, WORD, Code


class AssemblerTests(SynchronousTestCase):
    @skipIf(sys.byteorder == "big", "written down for the other order")
    def test_encoding(self) -> None:
        """Registers, offsets and immediates are where they belong."""
        code = Code()
        code.copy(6, 1)
        code.load(DOUBLE, 7, 0, 8)
        code.store_value(WORD, FRAME, -4, -1)
        code.store(WORD, FRAME, -20, 3)
        code.shift_left(2, 1)
        code.call(125)
        code.leave(2)
        self.assertEqual(code.assemble().hex(" ", 8), " ".join((
            "bf16000000000000", "7907080000000000", "620afcffffffffff", "633aecff00000000", "6702000001000000",
            "850000007d000000", "b700000002000000", "9500000000000000")))

    def test_jumps(self) -> None:
        """A jump counts from the instruction after it, forward and back, over the two of a map."""
        code = Code()
        code.label("start")
        code.jump("end", EQUAL, 1, 0)
        code.map(1, 5)
        code.jump_compared("start", BELOW, 1, 2)
        code.label("end")
        code.leave(0)
        offsets = [struct.unpack_from("=h", code.assemble(), 8 * at + 2)[0] for at in range(6)]
        self.assertEqual(offsets, [3, 0, 0, -4, 0, 0])

    def test_nowhere(self) -> None:
        """A jump to a label that nobody set is no program."""
        code = Code()
        code.jump("nowhere")
        self.assertRaises(KeyError, code.assemble)
