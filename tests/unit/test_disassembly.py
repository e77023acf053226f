# SPDX-License-Identifier: Apache-2.0
"""Instructions as text, against encodings written out from RFC 9669."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpftop.kernel.disassembly import LENGTH_BYTES, disassemble


def insn(opcode: int, to: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, source << 4 | to, offset, immediate)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (insn(0xB7, 0, immediate=2), "r0 = 2"),
        (insn(0xB4, 1, immediate=-1), "w1 = -1"),
        (insn(0xBF, 6, 1), "r6 = r1"),
        (insn(0xBF, 6, 1, offset=8), "r6 = (s8)r1"),
        (insn(0x0F, 2, 3), "r2 += r3"),
        (insn(0x1C, 2, 3), "w2 -= w3"),
        (insn(0x37, 2, offset=1, immediate=7), "r2 s/= 7"),
        (insn(0xC7, 2, immediate=32), "r2 s>>= 32"),
        (insn(0x87, 4), "r4 = -r4"),
        (insn(0xDC, 1, immediate=16), "r1 = be16 r1"),
        (insn(0xD4, 1, immediate=32), "r1 = le32 r1"),
        (insn(0xD7, 1, immediate=64), "r1 = bswap64 r1"),
        (insn(0x61, 2, 1, offset=4), "r2 = *(u32 *)(r1 +4)"),
        (insn(0x99, 2, 1, offset=-8), ".unknown 0x99"),
        (insn(0x81, 2, 1, offset=-8), "r2 = *(s32 *)(r1 -8)"),
        (insn(0x7B, 10, 1, offset=-16), "*(u64 *)(r10 -16) = r1"),
        (insn(0x6A, 10, offset=-2, immediate=5), "*(u16 *)(r10 -2) = 5"),
        (insn(0xDB, 1, 2, offset=8, immediate=0), "lock *(u64 *)(r1 +8) += r2"),
        (insn(0xDB, 1, 2, offset=8, immediate=1), "r2 = fetch (u64 *)(r1 +8) += r2"),
        (insn(0xDB, 1, 2, immediate=0xE1), "r2 = xchg (u64 *)(r1 +0), r2"),
        (insn(0xDB, 1, 2, immediate=0xF1), "r0 = cmpxchg (u64 *)(r1 +0), r0, r2"),
        (insn(0x05, offset=-3), "goto -3"),
        (insn(0x06, immediate=70_000), "goto +70000"),
        (insn(0x15, 1, offset=9, immediate=8), "if r1 == 8 goto +9"),
        (insn(0xAE, 1, 2, offset=1), "if w1 < w2 goto +1"),
        (insn(0x85, immediate=1), "call 0x1"),
        (insn(0x85, source=1, immediate=12), "call pc+12"),
        (insn(0x95), "exit"),
        (insn(0x18, 1, 1, immediate=77) + insn(0), "r1 = map[id:77]"),
        (insn(0x18, 1, immediate=-1) + insn(0, immediate=1), "r1 = 0x1ffffffff ll"),
    ],
)
def test_an_instruction_reads_as_the_verifier_writes_it(code: bytes, text: str) -> None:
    assert disassemble(code) == [f"0: {text}"]


def test_a_constant_of_64_bits_takes_two_numbers() -> None:
    code = insn(0x18, 1, immediate=1) + insn(0) + insn(0x95)
    assert disassemble(code) == ["0: r1 = 0x1 ll", "2: exit"]


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_each_whole_instruction_has_a_line(code: bytes) -> None:
    lines = disassemble(code)
    whole = len(code) // LENGTH_BYTES
    assert whole / 2 <= len(lines) <= whole
