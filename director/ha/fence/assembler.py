"""Programs for the kernel's machine (eBPF), assembled here: there is no compiler on the machines that run directors.

Instructions as in the kernel's Documentation/bpf/standardization/instruction-set.rst; jumps name labels. Pure.
"""

from __future__ import annotations

import struct
import sys

#: A place on the stack is named by its distance from `FRAME`, which is negative.
FRAME = 10

BYTE, WORD, DOUBLE = 0x10, 0x00, 0x18  # sizes
ALWAYS, EQUAL, BELOW, UNEQUAL = 0x00, 0x10, 0xA0, 0x50  # jumps; BELOW is of unsigned numbers

_LOAD, _STORE_IMMEDIATE, _STORE, _JUMP, _ALU64 = 0x61, 0x62, 0x63, 0x05, 0x07
_LOAD_IMMEDIATE64 = 0x18
_MOVE, _ADD, _SHIFT_LEFT = 0xB0, 0x00, 0x60
_CALL, _EXIT = 0x85, 0x95
_REGISTER = 0x08  # the operand is a register
_PSEUDO_MAP = 1  # an immediate of 64 bits that names a map by its descriptor
_INSTRUCTION = struct.Struct("=BBhi")


class Code:
    """A program that is being written, instruction after instruction. Registers are given by their numbers."""

    def __init__(self) -> None:
        # code, destination, source, offset or label, immediate
        self._instructions: list[tuple[int, int, int, int | str, int]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """Jumps to *name* arrive at the next instruction."""
        assert name not in self._labels, name
        self._labels[name] = len(self._instructions)

    def set(self, register: int, value: int) -> None:
        self._add(_ALU64 | _MOVE, register, immediate=value)

    def copy(self, register: int, source: int) -> None:
        self._add(_ALU64 | _MOVE | _REGISTER, register, source)

    def add(self, register: int, value: int) -> None:
        self._add(_ALU64 | _ADD, register, immediate=value)

    def shift_left(self, register: int, bits: int) -> None:
        self._add(_ALU64 | _SHIFT_LEFT, register, immediate=bits)

    def load(self, size: int, register: int, base: int, offset: int) -> None:
        self._add(_LOAD | size, register, base, offset)

    def store(self, size: int, base: int, offset: int, source: int) -> None:
        self._add(_STORE | size, base, source, offset)

    def store_value(self, size: int, base: int, offset: int, value: int) -> None:
        self._add(_STORE_IMMEDIATE | size, base, 0, offset, value)

    def map(self, register: int, descriptor: int) -> None:
        self._add(_LOAD_IMMEDIATE64, register, _PSEUDO_MAP, immediate=descriptor)
        self._add(0, 0)

    def jump(self, label: str, when: int = ALWAYS, register: int = 0, value: int = 0) -> None:
        """To *label*, when *register* compares so to *value*."""
        self._add(_JUMP | when, register, 0, label, value)

    def jump_compared(self, label: str, when: int, register: int, other: int) -> None:
        """To *label*, when *register* compares so to the register *other*."""
        self._add(_JUMP | when | _REGISTER, register, other, label)

    def call(self, function: int) -> None:
        """One of the kernel's functions, by its number; it keeps registers 6 to 9."""
        self._add(_CALL, 0, immediate=function)

    def leave(self, value: int) -> None:
        self.set(0, value)
        self._add(_EXIT, 0)

    def assemble(self) -> bytes:
        """:raises KeyError: a jump to a label that is nowhere."""
        assembled = b""
        for at, (code, destination, source, offset, immediate) in enumerate(self._instructions):
            distance = self._labels[offset] - at - 1 if isinstance(offset, str) else offset
            registers = source << 4 | destination if sys.byteorder == "little" else destination << 4 | source
            assembled += _INSTRUCTION.pack(code, registers, distance, immediate)
        return assembled

    def _add(self, code: int, destination: int, source: int = 0, offset: int | str = 0, immediate: int = 0) -> None:
        self._instructions.append((code, destination, source, offset, immediate))
