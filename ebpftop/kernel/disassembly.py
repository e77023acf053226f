# SPDX-License-Identifier: Apache-2.0
"""BPF instructions as text, after RFC 9669 and the notation of the verifier's log."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_INSTRUCTION = struct.Struct("<BBhi")
LENGTH_BYTES = _INSTRUCTION.size
"""Of one instruction; loads of 64-bit constants take two."""

_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)
_SIZES = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_SIGNED = {0x00: "s32", 0x08: "s16", 0x10: "s8"}
_ARITHMETIC = {
    0x00: "+=", 0x10: "-=", 0x20: "*=", 0x30: "/=", 0x40: "|=", 0x50: "&=", 0x60: "<<=",
    0x70: ">>=", 0x90: "%=", 0xA0: "^=", 0xB0: "=", 0xC0: "s>>=",
}  # fmt: skip
_COMPARISON = {
    0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&", 0x50: "!=", 0x60: "s>", 0x70: "s>=",
    0xA0: "<", 0xB0: "<=", 0xC0: "s<", 0xD0: "s<=",
}  # fmt: skip
_ATOMIC = {0x00: "+=", 0x40: "|=", 0x50: "&=", 0xA0: "^="}
_IMM, _MEM, _MEM_SIGNED, _ATOMIC_MODE = 0x00, 0x60, 0x80, 0xC0
_FETCH, _EXCHANGE, _COMPARE_EXCHANGE = 0x01, 0xE1, 0xF1
_JA, _CALL, _EXIT, _SWAP, _NEGATE = 0x00, 0x80, 0x90, 0xD0, 0x80
_FROM_REGISTER = 0x08
_PSEUDO_MAP, _PSEUDO_MAP_VALUE, _PSEUDO_CALL = 1, 2, 1


def disassemble(code: bytes) -> list[str]:
    """Return a line for each instruction: its number and what it does.

    Args:
        code: Whole instructions; what is cut off at the end is left out.
    """
    return [f"{number}: {text}" for number, text in _decoded(code)]


def _decoded(code: bytes) -> Iterator[tuple[int, str]]:
    number, count = 0, len(code) // LENGTH_BYTES
    while number < count:
        opcode, registers, offset, immediate = _INSTRUCTION.unpack_from(code, number * LENGTH_BYTES)
        wide = opcode == 0x18 and number + 1 < count
        upper = 0
        if wide:
            upper = _INSTRUCTION.unpack_from(code, (number + 1) * LENGTH_BYTES)[3]
        yield number, _text(opcode, registers & 15, registers >> 4, offset, immediate, upper)
        number += 2 if wide else 1


def _text(opcode: int, to: int, source: int, offset: int, immediate: int, upper: int) -> str:
    kind = opcode & 7
    if kind in (_ALU, _ALU64):
        return _arithmetic(opcode, to, source, offset, immediate)
    if kind in (_JMP, _JMP32):
        return _jump(opcode, to, source, offset, immediate)
    mode, size = opcode & 0xE0, opcode & 0x18
    if opcode == 0x18:
        return _constant(to, source, immediate, upper)
    where = f"{_SIZES[size]} *)(r%d {offset:+d})"
    if kind == _LDX and mode == _MEM:
        return f"r{to} = *({where % source}"
    if kind == _LDX and mode == _MEM_SIGNED and size in _SIGNED:
        return f"r{to} = *({_SIGNED[size]} *)(r{source} {offset:+d})"
    if kind == _ST and mode == _MEM:
        return f"*({where % to} = {immediate}"
    if kind == _STX and mode == _MEM:
        return f"*({where % to} = r{source}"
    if kind == _STX and mode == _ATOMIC_MODE:
        return _atomic(f"({where % to}", source, immediate)
    return f".unknown {opcode:#04x}"


def _constant(to: int, source: int, immediate: int, upper: int) -> str:
    if source == _PSEUDO_MAP:
        return f"r{to} = map[id:{immediate}]"
    if source == _PSEUDO_MAP_VALUE:
        return f"r{to} = map[id:{immediate}][0]+{upper}"
    return f"r{to} = {(upper & 0xFFFFFFFF) << 32 | immediate & 0xFFFFFFFF:#x} ll"


def _arithmetic(opcode: int, to: int, source: int, offset: int, immediate: int) -> str:
    letter = "r" if opcode & 7 == _ALU64 else "w"
    operation = opcode & 0xF0
    if operation == _NEGATE:
        return f"{letter}{to} = -{letter}{to}"
    if operation == _SWAP:
        if opcode & 7 == _ALU64:
            return f"r{to} = bswap{immediate} r{to}"
        return f"r{to} = {'be' if opcode & _FROM_REGISTER else 'le'}{immediate} r{to}"
    sign = _ARITHMETIC.get(operation)
    if sign is None:
        return f".unknown {opcode:#04x}"
    value = f"{letter}{source}" if opcode & _FROM_REGISTER else str(immediate)
    if operation == 0xB0 and offset and opcode & _FROM_REGISTER:
        return f"{letter}{to} = (s{offset}){value}"
    if operation in (0x30, 0x90) and offset == 1:
        sign = f"s{sign}"
    return f"{letter}{to} {sign} {value}"


def _jump(opcode: int, to: int, source: int, offset: int, immediate: int) -> str:
    operation = opcode & 0xF0
    letter = "r" if opcode & 7 == _JMP else "w"
    if operation == _JA:
        return f"goto {offset if opcode & 7 == _JMP else immediate:+d}"
    if operation == _CALL and opcode & 7 == _JMP:
        return f"call pc{immediate:+d}" if source == _PSEUDO_CALL else f"call {immediate:#x}"
    if operation == _EXIT and opcode & 7 == _JMP:
        return "exit"
    sign = _COMPARISON.get(operation)
    if sign is None:
        return f".unknown {opcode:#04x}"
    value = f"{letter}{source}" if opcode & _FROM_REGISTER else str(immediate)
    return f"if {letter}{to} {sign} {value} goto {offset:+d}"


def _atomic(where: str, source: int, immediate: int) -> str:
    if immediate == _EXCHANGE:
        return f"r{source} = xchg {where}, r{source}"
    if immediate == _COMPARE_EXCHANGE:
        return f"r0 = cmpxchg {where}, r0, r{source}"
    sign = _ATOMIC.get(immediate & ~_FETCH)
    if sign is None:
        return f".unknown atomic {immediate:#x}"
    if immediate & _FETCH:
        return f"r{source} = fetch {where} {sign} r{source}"
    return f"lock *{where} {sign} r{source}"
