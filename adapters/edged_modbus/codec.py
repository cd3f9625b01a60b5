"""Registers and bits to values, and back.

Pure. A decoder is compiled once for a block of reads. What it then does for each read is in C: put the words in
order, pack them, unpack all values at once. Only points that need more (bits, words for numbers, BCD, text, numbers
that mean "no value") cost a call each. Values come out typed but not scaled; float32 keeps the exact number that was
sent (230.1 arrives as 230.10000610351562; `decimals` rounds it later).
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from edged.adapter import ALL_GOOD, Quality, Reason, Value, bad

from .config import field_width, integer_range

if TYPE_CHECKING:
    from .config import ModbusPoint
    from .planner import Block

_Convert = Callable[[object], Value]
_CODES: Mapping[str, str] = {
    "int8l": "xb", "int8h": "bx", "uint8l": "xB", "uint8h": "Bx", "int16": "h", "uint16": "H", "int32": "i",
    "uint32": "I", "int64": "q", "uint64": "Q", "float16": "e", "float32": "f", "float64": "d", "bcd16": "H",
    "bcd32": "I", "bcd64": "Q",
}  # fmt: skip
_ENCODINGS: Mapping[str, str] = {"utf-16": "utf-16-be"}
_BAD_DECODE = bad(Reason.DECODE)


def compile_decoder(block: Block, points: Mapping[str, ModbusPoint]) -> Decoder:
    """A decoder for the reads of one block. `points` holds at least the block's own.

    Raises ValueError if one of them does not lie in the block.
    """
    chosen = [points[name] for name in block.points]
    for name, point in zip(block.points, chosen, strict=True):
        if point.table != block.table or point.start < block.start or point.span.end > block.span.end:
            raise ValueError(f"point {name!r} at {point.span} is not in the block {block.span}")
    return Decoder(block, chosen)


class Decoder:
    """Turns one block's registers, or bits, into the values of its points. Built by `compile_decoder`."""

    __slots__ = ("_arrange", "_count", "_floats", "_pack", "_permute", "_post", "_unpack", "points")

    points: tuple[str, ...]
    """The points, in the order of the values."""

    def __init__(self, block: Block, points: Sequence[ModbusPoint]) -> None:
        self.points = block.points
        self._count = block.count
        self._post = [(i, convert) for i, point in enumerate(points) if (convert := _converter(point))]
        if block.table.is_bits:
            self._arrange = _getter([point.start - block.start for point in points], block.count)
            return
        self._pack = struct.Struct(f">{block.count}H").pack
        layout = _Layout(block, points)
        self._arrange = layout.words
        self._pack = struct.Struct(f">{layout.packed}H").pack
        self._permute = layout.bytes
        self._unpack = struct.Struct(layout.format).unpack
        floats = [i for i, point in enumerate(points) if point.data_type.startswith("float")]
        only_numbers = all(point.data_type != "string" for point in points)
        # a sum over everything is cheaper than picking the floats, and integers do not disturb it
        self._floats = (floats, None if only_numbers else _getter(floats, len(points))) if floats else None

    def decode_registers(self, registers: Sequence[int]) -> tuple[Sequence[Value], Mapping[int, Quality]]:
        """The values of the points, and the quality of those that are not good, by their index.

        Raises ValueError if there is not exactly one 16-bit word for each register of the block.
        """
        if len(registers) != self._count:
            raise ValueError(f"{len(registers)} registers came instead of {self._count}")
        try:
            data = self._pack(*(registers if self._arrange is None else self._arrange(registers)))
        except struct.error:
            raise ValueError("a register is not a number from 0 to 65535") from None
        if self._permute is not None:
            data = bytes(self._permute(data))
        values = self._unpack(data)
        if self._floats is not None:
            indices, pick = self._floats
            if not math.isfinite(sum(values if pick is None else pick(values))):
                return self._convert(values, indices)
        return self._convert(values, ()) if self._post else (values, ALL_GOOD)

    def decode_bits(self, bits: Sequence[bool]) -> tuple[Sequence[Value], Mapping[int, Quality]]:
        """The same for coils and discrete inputs. Raises ValueError if their number is not that of the block."""
        if len(bits) != self._count:
            raise ValueError(f"{len(bits)} bits came instead of {self._count}")
        values = tuple(bits if self._arrange is None else self._arrange(bits))
        return self._convert(values, ()) if self._post else (values, ALL_GOOD)

    def _convert(self, raw: Sequence[object], floats: Sequence[int]) -> tuple[Sequence[Value], Mapping[int, Quality]]:
        """The slow path: a float may not be finite, or some values need a conversion."""
        values: list[Value] = list(raw)  # type: ignore[arg-type]  # what is no Value yet gets converted below
        quality: dict[int, Quality] = {}
        for i in floats:
            if not math.isfinite(values[i]):  # type: ignore[arg-type]  # these are the floats
                values[i] = None
                quality[i] = _BAD_DECODE
        for i, convert in self._post:
            value = values[i] = convert(raw[i])
            if value is None:
                quality[i] = _BAD_DECODE
        return values, quality or ALL_GOOD


class _Layout:
    """How the words of a block are arranged so that a single struct format reads all points.

    With its words in the right order, a value is either big- or little-endian (BADC is little-endian with the words
    exchanged). A block with both kinds gets its bytes permuted instead.
    """

    def __init__(self, block: Block, points: Sequence[ModbusPoint]) -> None:
        self.words: Callable[[Sequence[int]], Sequence[int]] | None = None
        self.bytes: Callable[[bytes], Sequence[int]] | None = None
        self.packed = block.count
        endians = {"<" if _is_little(point) else ">" for point in points if _has_endian(point)}
        codes = [_code(point) for point in points]
        if len(endians) > 1:
            places = [2 * (point.start - block.start) + byte for point in points for byte in _byte_places(point)]
            self.bytes = _getter(places, 2 * block.count)
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
        self.words = _getter(order, block.count)
        self.packed = len(order)
        self.format = endian + "".join(codes)


def _getter(indices: Sequence[int], length: int) -> Callable[[Sequence[int]], Sequence[int]] | None:
    """Picks these items in C; None if they are simply all of them."""
    if list(indices) == list(range(length)):
        return None
    if len(indices) == 1:
        return operator.itemgetter(slice(indices[0], indices[0] + 1))
    return operator.itemgetter(*indices)


def _code(point: ModbusPoint) -> str:
    return f"{2 * point.count}s" if point.data_type == "string" else _CODES[point.data_type]


def _has_endian(point: ModbusPoint) -> bool:
    return point.data_type != "string" and point.width > 8  # noqa: PLR2004  # a byte has no order


def _is_little(point: ModbusPoint) -> bool:
    """Whether the bytes within each word are exchanged: B comes directly before A."""
    return "BA" in point.byte_order


def _word_places(point: ModbusPoint) -> list[int]:
    """The words of the point, in the order in which they make it a plain big- or little-endian number."""
    if not _has_endian(point):
        return list(range(point.count))
    order = point.byte_order
    significance = [order[i : i + 2].translate(_SORT_PAIR) for i in range(0, len(order), 2)]
    places = sorted(range(len(significance)), key=lambda i: significance[i])
    return places[::-1] if _is_little(point) else places


_SORT_PAIR = str.maketrans("BDFH", "ACEG")


def _byte_places(point: ModbusPoint) -> list[int]:
    """The bytes of the point, most significant first."""
    if not _has_endian(point):
        return list(range(2 * point.count))
    order = point.byte_order
    return sorted(range(len(order)), key=lambda i: order[i])


# --- what is left to do for single points -----------------------------------------------------------------------------


def _converter(point: ModbusPoint) -> _Convert | None:
    """From what struct yields to the value; None for a raw value that has no meaning. None if nothing is to be done."""
    kind = point.data_type
    if kind == "string":
        return _text_converter(point)
    if kind.startswith("bcd"):
        return _from_bcd
    steps: list[_Convert] = []
    if point.invalid:
        steps.append(_invalid_filter(point))
    if point.bit is not None:
        steps.append(_bit_picker(point.bit, as_bool=not point.enum))
    elif point.bits is not None:
        steps.append(_bits_picker(point))
    if point.enum:
        steps.append(point.enum.get)  # type: ignore[arg-type]  # the step before it yields an int
    elif point.flags:
        steps.append(_flag_lister(point))
    return _chain(steps)


def _chain(steps: Sequence[_Convert]) -> _Convert | None:
    if len(steps) < 2:  # noqa: PLR2004  # nothing to chain
        return steps[0] if steps else None

    def convert(raw: object) -> Value:
        value: object = raw
        for step in steps:
            value = step(value)
            if value is None:
                return None
        return value  # type: ignore[return-value]  # a step's result

    return convert


def _invalid_filter(point: ModbusPoint) -> _Convert:
    none = frozenset(_signed(raw, point.width) if point.data_type.startswith("int") else raw for raw in point.invalid)
    return lambda raw: None if raw in none else raw  # type: ignore[return-value]  # an int


def _bit_picker(bit: int, *, as_bool: bool) -> _Convert:
    if as_bool:
        return lambda raw: bool(raw >> bit & 1)  # type: ignore[operator]  # an int
    return lambda raw: raw >> bit & 1  # type: ignore[operator]  # an int


def _bits_picker(point: ModbusPoint) -> _Convert:
    low, width = (point.bits or (0, 0))[0], field_width(point)
    mask = (1 << width) - 1
    if point.data_type.startswith("int"):
        return lambda raw: _signed(raw >> low & mask, width)  # type: ignore[operator]  # an int
    return lambda raw: raw >> low & mask  # type: ignore[operator]  # an int


def _flag_lister(point: ModbusPoint) -> _Convert:
    flags = sorted((1 << bit, text) for bit, text in point.flags.items())
    return lambda raw: ",".join([text for mask, text in flags if raw & mask])  # type: ignore[operator]  # an int


def _signed(raw: int, width: int) -> int:
    return raw - (1 << width) if raw >= 1 << width - 1 else raw


def _from_bcd(raw: object) -> int | None:
    try:
        return int(f"{raw:x}")
    except ValueError:
        return None


def _text_converter(point: ModbusPoint) -> _Convert:
    swap = point.order == "BA"
    encoding = _ENCODINGS.get(point.encoding, point.encoding)
    trim = point.trim

    def convert(raw: object) -> str | None:
        data: bytes = raw  # type: ignore[assignment]  # struct's `s`
        if swap:
            data = _swapped(data)
        try:
            return _trimmed(data, encoding, trim)
        except UnicodeDecodeError:
            return None

    return convert


def _swapped(data: bytes) -> bytes:
    turned = bytearray(data)
    turned[::2], turned[1::2] = data[1::2], data[::2]
    return bytes(turned)


def _trimmed(data: bytes, encoding: str, trim: str) -> str:
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


# --- the way back -----------------------------------------------------------------------------------------------------


def encode_value(point: ModbusPoint, value: Value, current: Sequence[int] | None = None) -> list[int] | list[bool]:
    """The registers (or the one bit) that read back as `value`, a raw value: the inverse of decoding.

    A point that is only a part of its registers keeps the other bits of `current` (0 without it). Raises ValueError
    if the point cannot have this value.
    """
    if point.table.is_bits:
        return [bool(_field(point, value))]
    if point.data_type == "string":
        return _words(_encoded_text(point, value))
    if point.data_type.startswith("float"):
        return _ordered(point, _encoded_float(point, value))
    if point.data_type.startswith("bcd"):
        return _ordered(
            point, int(str(_integer(value, 0, 10 ** (point.width // 4) - 1)), 16).to_bytes(point.width // 8, "big")
        )
    if not point.partial:
        return _ordered(point, (_field(point, value) & (1 << point.width) - 1).to_bytes(point.width // 8, "big"))
    keep, put = _masks(point, value)
    size = 2 * point.count
    before = 0 if current is None else int.from_bytes(_unordered(point, current), "big")
    return _ordered(point, (before & keep | put).to_bytes(size, "big"))


def mask_for(point: ModbusPoint, value: Value) -> tuple[int, int]:
    """(AND mask, OR mask) of function code 22 that write `value` to a point which is a part of one register.

    The register becomes (register AND and_mask) OR (or_mask AND NOT and_mask). Raises ValueError if the point cannot
    have this value, or is not a part of exactly one register.
    """
    if not point.partial or point.count != 1 or point.table.is_bits:
        raise ValueError(f"{point.span} is not a part of one register")
    keep, put = _masks(point, value)
    if point.order == "BA":
        keep, put = (int.from_bytes(mask.to_bytes(2, "big"), "little") for mask in (keep, put))
    return keep, put


def _masks(point: ModbusPoint, value: Value) -> tuple[int, int]:
    """What to keep and what to set, in the number that the registers make once they are in order."""
    full = (1 << 16 * point.count) - 1
    if point.data_type.endswith(("8l", "8h")):
        low = 8 if point.data_type.endswith("h") else 0
        width = point.width
    else:
        low = point.bit if point.bit is not None else (point.bits or (0, 0))[0]
        width = field_width(point)
    part = (1 << width) - 1
    if point.flags:
        part = sum(1 << bit for bit in point.flags)
    return full & ~(part << low), (_field(point, value) & part) << low


def _field(point: ModbusPoint, value: Value) -> int:
    """The number that stands for `value`, words included."""
    if point.enum:
        for number, text in point.enum.items():
            if text == value:
                return number
        raise ValueError(f"{value!r} is none of {', '.join(point.enum.values())}")
    if point.flags:
        return _flag_bits(point, value)
    if point.table.is_bits or point.bit is not None:
        if value not in (0, 1) or isinstance(value, str):
            raise ValueError(f"{value!r} is neither true nor false")
        return int(value)  # type: ignore[arg-type]  # 0 or 1, as just tested
    number = _integer(value, *integer_range(point))
    if number in point.invalid or number & (1 << point.width) - 1 in point.invalid:
        raise ValueError(f"{number} is what the device uses for `no value`")
    return number


def _flag_bits(point: ModbusPoint, value: Value) -> int:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a list of flags such as {','.join(point.flags.values())!r}")
    bits = {text: 1 << bit for bit, text in point.flags.items()}
    given = [text.strip() for text in value.split(",")] if value.strip() else []
    if unknown := [text for text in given if text not in bits]:
        raise ValueError(f"{unknown[0]!r} is none of the flags {', '.join(bits)}")
    return sum(bits[text] for text in set(given))


def _integer(value: Value, low: int, high: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a whole number")
    if not low <= value <= high:
        raise ValueError(f"{value} does not lie between {low} and {high}")
    return value


def _encoded_float(point: ModbusPoint, value: Value) -> bytes:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    try:
        return struct.pack(">" + _CODES[point.data_type], value)
    except (OverflowError, struct.error):
        raise ValueError(f"{value!r} is too large for {point.data_type}") from None


def _encoded_text(point: ModbusPoint, value: Value) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    encoding = _ENCODINGS.get(point.encoding, point.encoding)
    size = 2 * point.count
    try:
        data = value.encode(encoding)
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} cannot be written in {point.encoding}") from None
    if len(data) > size:
        raise ValueError(f"{value!r} is longer than the {size} bytes of the point")
    data = data.ljust(size, b"\0")
    if _trimmed(data, encoding, point.trim) != value:
        raise ValueError(f"{value!r} would not read back the same with `trim: {point.trim}`")
    return _swapped(data) if point.order == "BA" else data


def _ordered(point: ModbusPoint, data: bytes) -> list[int]:
    """Words on the wire of a value's bytes, which come most significant first."""
    if not _has_endian(point):
        return _words(data)
    wire = bytearray(len(data))
    for place, byte in zip(_byte_places(point), data, strict=True):
        wire[place] = byte
    return _words(bytes(wire))


def _unordered(point: ModbusPoint, words: Sequence[int]) -> bytes:
    data = struct.pack(f">{point.count}H", *words)
    return bytes(data[place] for place in _byte_places(point)) if _has_endian(point) else data


def _words(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 2}H", data))
