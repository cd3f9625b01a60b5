"""How values lie in registers: sizes, byte orders, text."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

from .planner import Block
from .point import ModbusPoint

CODES: Mapping[str, str] = {
    "int8l": "xb", "int8h": "bx", "uint8l": "xB", "uint8h": "Bx", "int16": "h", "uint16": "H", "int32": "i",
    "uint32": "I", "int64": "q", "uint64": "Q", "float16": "e", "float32": "f", "float64": "d", "bcd16": "H",
    "bcd32": "I", "bcd64": "Q",
}  # fmt: skip
"""The struct format of each type but strings, whose size the point tells."""
ENCODINGS: Mapping[str, str] = {"utf-16": "utf-16-be"}
"""Python's name of an encoding where it is not ours: a register has its high byte first."""


class Layout:
    """How the words of a block are arranged so that a single struct format reads all points.

    With its words in the right order, a value is either big- or little-endian (BADC is little-endian with the words
    exchanged). A block with both kinds gets its bytes permuted instead.
    """

    def __init__(self, block: Block, points: Sequence[ModbusPoint]) -> None:
        self.words: Callable[[Sequence[int]], Sequence[int]] | None = None
        self.bytes: Callable[[bytes], Sequence[int]] | None = None
        self.packed = block.count
        endians = {"<" if _is_little(point) else ">" for point in points if has_endian(point)}
        codes = [_code(point) for point in points]
        if len(endians) > 1:
            places = [2 * (point.start - block.start) + byte for point in points for byte in byte_places(point)]
            self.bytes = getter(places, 2 * block.count)
            self.format = ">" + "".join(codes)
            return
        endian = endians.pop() if endians else ">"
        order = [point.start - block.start + word for point in points for word in _word_places(point)]
        if order == sorted(set(order)):
            # nothing to exchange: what lies between the points is skipped by the format
            at, padded = 0, ""
            for point, code in zip(points, codes, strict=True):
                gap = point.start - block.start - at
                padded += f"{2 * gap}x{code}" if gap else code
                at = point.span.end - block.start
            tail = block.count - at
            self.format = endian + padded + (f"{2 * tail}x" if tail else "")
            return
        self.words = getter(order, block.count)
        self.packed = len(order)
        self.format = endian + "".join(codes)


def getter(indices: Sequence[int], length: int) -> Callable[[Sequence[int]], Sequence[int]] | None:
    """Picks these items in C; None if they are simply all of them."""
    if list(indices) == list(range(length)):
        return None
    if len(indices) == 1:
        return operator.itemgetter(slice(indices[0], indices[0] + 1))
    return operator.itemgetter(*indices)


def _code(point: ModbusPoint) -> str:
    return f"{2 * point.count}s" if point.data_type == "string" else CODES[point.data_type]


def has_endian(point: ModbusPoint) -> bool:
    """Whether the order of its bytes makes a difference to struct."""
    return point.data_type != "string" and point.width > 8  # noqa: PLR2004  # a byte has no order


def _is_little(point: ModbusPoint) -> bool:
    """Whether the bytes within each word are exchanged: B comes directly before A."""
    return "BA" in point.byte_order


def _word_places(point: ModbusPoint) -> list[int]:
    """The words of the point, in the order in which they make it a plain big- or little-endian number."""
    if not has_endian(point):
        return list(range(point.count))
    order = point.byte_order
    significance = [order[i : i + 2].translate(_SORT_PAIR) for i in range(0, len(order), 2)]
    places = sorted(range(len(significance)), key=lambda i: significance[i])
    return places[::-1] if _is_little(point) else places


_SORT_PAIR = str.maketrans("BDFH", "ACEG")


def byte_places(point: ModbusPoint) -> list[int]:
    """The bytes of the point, most significant first."""
    if not has_endian(point):
        return list(range(2 * point.count))
    order = point.byte_order
    return sorted(range(len(order)), key=lambda i: order[i])


def swapped(data: bytes) -> bytes:
    """The bytes of each word exchanged."""
    turned = bytearray(data)
    turned[::2], turned[1::2] = data[1::2], data[::2]
    return bytes(turned)


def trimmed(data: bytes, encoding: str, trim: str) -> str:
    """The text in the bytes, ended and stripped as `ModbusPoint.trim` says. Raises UnicodeDecodeError."""
    if trim == "none":
        return data.decode(encoding)
    if encoding == "utf-16-be":
        end = next((i for i in range(0, len(data), 2) if data[i : i + 2] == b"\0\0"), len(data))
        text = data[:end].decode(encoding)
    else:
        # what lies behind the end of a C string is left over from earlier and need not be text
        text = data.partition(b"\0")[0].decode(encoding)
    if trim == "nul":
        return text
    return text.strip(" ") if trim == "both" else text.rstrip(" ")
