"""Registers and bits to values, and back.

Pure. A decoder is compiled once for a block of reads. What it then does for each read is in C: put the words in
order, pack them, unpack all values at once. Only points that need more (bits, words for numbers, BCD, text, numbers
that mean "no value") cost a call each. Values come out typed but not scaled; float32 keeps the exact number that was
sent (230.1 arrives as 230.10000610351562; `decimals` rounds it later).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from edged.adapter import ALL_GOOD, Quality, Reason, Value, bad

from .encode import encode_value, mask_for
from .layout import ENCODINGS, Layout, getter, swapped, trimmed
from .planner import Block
from .point import ModbusPoint, field_width, signed_invalid

__all__ = ["Decoder", "compile_decoder", "encode_value", "mask_for"]

_Convert = Callable[[Any], Value]
_BAD_DECODE = bad(Reason.DECODE)


def compile_decoder(block: Block, points: Mapping[str, ModbusPoint]) -> Decoder:
    """A decoder for the reads of one block. `points` holds at least the block's own.

    Devices of one profile share their points, and so their decoders. Raises ValueError if a point does not lie in the
    block.
    """
    found = _decoders.get((id(points), block))
    if found is not None:
        return found
    chosen = [points[name] for name in block.points]
    for name, point in zip(block.points, chosen, strict=True):
        if point.table != block.table or point.start < block.start or point.span.end > block.span.end:
            raise ValueError(f"point {name!r} at {point.span} is not in the block {block.span}")
    decoder = _decoders[id(points), block] = Decoder(block, chosen, points)
    return decoder


class Decoder:
    """Turns one block's registers, or bits, into the values of its points. Built by `compile_decoder`."""

    __slots__ = (
        "__weakref__", "_arrange", "_count", "_floats", "_made_of", "_pack", "_permute", "_post", "_unpack", "points",
    )  # fmt: skip

    points: tuple[str, ...]
    """The points, in the order of the values."""

    def __init__(self, block: Block, points: Sequence[ModbusPoint], made_of: Mapping[str, ModbusPoint]) -> None:
        self.points = block.points
        self._made_of = made_of  # held, so that its id stays its own
        self._count = block.count
        self._post = [(i, convert) for i, point in enumerate(points) if (convert := _converter(point))]
        if block.table.is_bits:
            self._arrange = getter([point.start - block.start for point in points], block.count)
            return
        layout = Layout(block, points)
        self._arrange = layout.words
        self._pack = struct.Struct(f">{layout.packed}H").pack
        self._permute = layout.bytes
        self._unpack = struct.Struct(layout.format).unpack
        floats = [i for i, point in enumerate(points) if point.data_type.startswith("float")]
        only_numbers = all(point.data_type != "string" for point in points)
        # a sum over everything is cheaper than picking the floats, and integers do not disturb it
        self._floats = (floats, None if only_numbers else getter(floats, len(points))) if floats else None

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

    def _convert(self, raw: Sequence[Any], floats: Sequence[int]) -> tuple[Sequence[Value], Mapping[int, Quality]]:
        """The slow path: a float may not be finite, or some values need a conversion."""
        values: list[Value] = list(raw)
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


_decoders: WeakValueDictionary[tuple[int, Block], Decoder] = WeakValueDictionary()


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
        steps.append(point.enum.get)
    elif point.flags:
        steps.append(_flag_lister(point))
    return _chain(steps)


def _chain(steps: Sequence[_Convert]) -> _Convert | None:
    if len(steps) < 2:  # noqa: PLR2004  # nothing to chain
        return steps[0] if steps else None

    def convert(raw: Any) -> Value:
        value: Value = raw
        for step in steps:
            value = step(value)
            if value is None:
                return None
        return value

    return convert


def _invalid_filter(point: ModbusPoint) -> _Convert:
    none = signed_invalid(point)
    return lambda raw: None if raw in none else raw


def _bit_picker(bit: int, *, as_bool: bool) -> _Convert:
    if as_bool:
        return lambda raw: bool(raw >> bit & 1)
    return lambda raw: raw >> bit & 1


def _bits_picker(point: ModbusPoint) -> _Convert:
    low, width = (point.bits or (0, 0))[0], field_width(point)
    mask = (1 << width) - 1
    if point.data_type.startswith("int"):
        return lambda raw: _signed(raw >> low & mask, width)
    return lambda raw: raw >> low & mask


def _flag_lister(point: ModbusPoint) -> _Convert:
    flags = sorted((1 << bit, text) for bit, text in point.flags.items())
    return lambda raw: ",".join([text for mask, text in flags if raw & mask])


def _signed(raw: int, width: int) -> int:
    return raw - (1 << width) if raw >= 1 << width - 1 else raw


def _from_bcd(raw: int) -> int | None:
    try:
        return int(f"{raw:x}")
    except ValueError:
        return None


def _text_converter(point: ModbusPoint) -> _Convert:
    swap = point.order == "BA"
    encoding = ENCODINGS.get(point.encoding, point.encoding)
    trim = point.trim

    def convert(raw: bytes) -> str | None:
        data = swapped(raw) if swap else raw
        try:
            return trimmed(data, encoding, trim)
        except UnicodeDecodeError:
            return None

    return convert
