"""Values to registers and bits: the exact inverse of decoding. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from edged.adapter import Value

from .layout import CODES, ENCODINGS, byte_places, has_endian, swapped, trimmed
from .point import ModbusPoint, field_width, integer_range, signed_invalid


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
        return int(value)
    number = _integer(value, *integer_range(point))
    if point.bits is None and number in signed_invalid(point):
        raise ValueError(f"{number} is what the device uses for `no value`")
    return number


def _flag_bits(point: ModbusPoint, value: Value) -> int:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a list of flags such as {','.join(point.flags.values())!r}")  # noqa: TRY004  # the promised error
    bits = {text: 1 << bit for bit, text in point.flags.items()}
    given = [text.strip() for text in value.split(",")] if value.strip() else []
    if unknown := [text for text in given if text not in bits]:
        raise ValueError(f"{unknown[0]!r} is none of the flags {', '.join(bits)}")
    return sum(bits[text] for text in set(given))


def _integer(value: Value, low: int, high: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a whole number")  # noqa: TRY004  # the promised error
    if not low <= value <= high:
        raise ValueError(f"{value} does not lie between {low} and {high}")
    return value


def _encoded_float(point: ModbusPoint, value: Value) -> bytes:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number")  # noqa: TRY004  # the promised error
    try:
        if math.isfinite(value):
            return struct.pack(">" + CODES[point.data_type], float(value))
    except OverflowError:
        raise ValueError(f"{value} is too large for {point.data_type}") from None
    raise ValueError(f"{value} is not a finite number")


def _encoded_text(point: ModbusPoint, value: Value) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")  # noqa: TRY004  # the promised error
    encoding = ENCODINGS.get(point.encoding, point.encoding)
    size = 2 * point.count
    try:
        data = value.encode(encoding)
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} cannot be written in {point.encoding}") from None
    if len(data) > size:
        raise ValueError(f"{value!r} is longer than the {size} bytes of the point")
    data = data.ljust(size, b"\0")
    if trimmed(data, encoding, point.trim) != value:
        raise ValueError(f"{value!r} would not read back the same with `trim: {point.trim}`")
    return swapped(data) if point.order == "BA" else data


def _ordered(point: ModbusPoint, data: bytes) -> list[int]:
    """Words on the wire of a value's bytes, which come most significant first."""
    if not has_endian(point):
        return _words(data)
    wire = bytearray(len(data))
    for place, byte in zip(byte_places(point), data, strict=True):
        wire[place] = byte
    return _words(bytes(wire))


def _unordered(point: ModbusPoint, words: Sequence[int]) -> bytes:
    data = struct.pack(f">{point.count}H", *words)
    return bytes(data[place] for place in byte_places(point)) if has_endian(point) else data


def _words(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 2}H", data))
