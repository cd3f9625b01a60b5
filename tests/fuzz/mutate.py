"""Hostile input made of good input: what a line, a card, a stranger or an attacker makes of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_LONGEST = 8192
_EDGES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
_WORDS = (
    b"", b"\x00", b"\xff" * 8, b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b"''", b'"', b"\n", b": ",
    b"- ", b"&a ", b"*a", b"!!python/object ", b"<<: *a", b"\xc3", b"\xed\xa0\x80", b"99999999999999999999",
    b"2026-13-45", b"\\u0000", b"../..", b"${HOME}", b"!secret x", b"\t", b"9" * 400, b"[" * 300, b"{a: " * 60,
    b"(" * 200, b"%00", b"\r\n",
)  # fmt: skip


def mutated(source: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """`data` with one to six changes; `others` are what else may come in its place."""
    for _ in range(source.choice((1, 1, 1, 2, 3, 6))):
        data = source.choice(_WAYS)(source, data, others)
    return data[:_LONGEST]


def _place(source: random.Random, data: bytes) -> int:
    return source.randrange(len(data) + 1)


def _flip(source: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    if not data:
        return b"\x00"
    at = source.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << source.randrange(8),)) + data[at + 1 :]


def _edge(source: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    at = _place(source, data)
    return data[:at] + bytes((source.choice(_EDGES),)) + data[at + 1 :]


def _cut(source: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    begin, end = sorted((_place(source, data), _place(source, data)))
    return data[:begin] + data[end:]


def _end(source: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    return data[: _place(source, data)]


def _repeat(source: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    begin, end = sorted((_place(source, data), _place(source, data)))
    return data[:end] + data[begin:end] * source.choice((1, 1, 2, 50)) + data[end:]


def _word(source: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    at = _place(source, data)
    return data[:at] + source.choice(_WORDS) + data[at + source.choice((0, 0, 1, 4)) :]


def _noise(source: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    at = _place(source, data)
    return data[:at] + source.randbytes(source.choice((1, 2, 8, 40))) + data[at:]


def _splice(source: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = source.choice(others)
    return data[: _place(source, data)] + other[_place(source, other) :]


def _lines(source: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Lines of text change places, are lost, come twice, or come from elsewhere."""
    lines = data.split(b"\n")
    at = source.randrange(len(lines))
    match source.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, source.choice(source.choice(others).split(b"\n")))
        case 2:
            lines[at] = b"  " + lines[at]
        case _:
            lines.insert(source.randrange(len(lines)), lines[at])
    return b"\n".join(lines)


def _value(source: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    """What stands behind a colon or an equals sign becomes something else."""
    lines = data.split(b"\n")
    at = source.randrange(len(lines))
    for mark in (b": ", b"=", b":"):
        if mark in lines[at]:
            head, _, tail = lines[at].partition(mark)
            lines[at] = head + mark + source.choice(_WORDS) + tail[source.choice((0, 1, len(tail))) :]
            break
    return b"\n".join(lines)


_WAYS: Sequence[Callable[[random.Random, bytes, Sequence[bytes]], bytes]] = (
    _flip, _flip, _edge, _cut, _end, _repeat, _word, _word, _noise, _splice, _lines, _value,
)  # fmt: skip
