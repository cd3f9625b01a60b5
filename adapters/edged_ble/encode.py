"""Values on their way into a characteristic. Pure."""

from __future__ import annotations

import struct

from edged.adapter import Value

from .config import BlePoint

_INTEGERS = {
    "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint24": 3, "int24": 3, "uint32": 4, "int32": 4, "uint40": 5,
    "uint48": 6, "uint64": 8, "int64": 8,
}  # fmt: skip
_FLOATS = {"float32": "f", "float64": "d"}


def encode(point: BlePoint, value: Value) -> bytes:
    """The bytes to write for an engineering value. Raises ValueError."""
    kind = point.type or "uint8"
    if point.bit is not None or point.bits is not None or point.at:
        raise ValueError("only a value that fills its characteristic can be written")
    raw = raw_of(point, value)
    if kind in _INTEGERS:
        if isinstance(raw, str) or not float(raw).is_integer():
            raise ValueError(f"{value!r} does not fit {kind}")
        try:
            return int(raw).to_bytes(_INTEGERS[kind], point.order, signed=kind.startswith("int"))
        except OverflowError:
            raise ValueError(f"{value!r} does not fit {kind}") from None
    if kind in _FLOATS:
        if isinstance(raw, str):
            raise ValueError(f"{value!r} is not a number")
        try:
            return struct.pack(("<" if point.order == "little" else ">") + _FLOATS[kind], raw)
        except (OverflowError, struct.error):
            raise ValueError(f"{value!r} does not fit {kind}") from None
    if kind == "text" and isinstance(raw, str):
        return _sized(point, raw.encode())
    if kind == "hex" and isinstance(raw, str):
        return _sized(point, bytes.fromhex(raw))
    raise ValueError(f"a value of type {kind} cannot be written")


def _sized(point: BlePoint, data: bytes) -> bytes:
    if point.length is None:
        return data
    if len(data) > point.length:
        raise ValueError(f"it is longer than {point.length} bytes")
    return data.ljust(point.length, b"\0")


def raw_of(point: BlePoint, value: Value) -> float | str:
    """The way back through words, map, scale and offset. Raises ValueError."""
    if point.enum:
        for number, word in point.enum.items():
            if word == value:
                return number
        raise ValueError(f"{value!r} is none of {', '.join(point.enum.values())}")
    if value is None:
        raise ValueError("there is no value to write")
    if isinstance(value, str | bool):
        return value
    if point.range is not None and not point.range[0] <= value <= point.range[1]:
        raise ValueError(f"{value:g} is outside the range {point.range[0]:g} to {point.range[1]:g}")
    return point.unscaled(value)
