"""From an engineering value to the requests that write it.

Pure.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from edged.adapter import PermanentError, Reason, Value

from . import pdu
from .codec import Decoder
from .encode import encode_value, mask_for
from .pdu import Request
from .planner import Block
from .point import INTEGERS, ModbusPoint

_UNSCALED = frozenset({"int8l", "int8h", "uint8l", "uint8h"}) | INTEGERS


def raw_value(point: ModbusPoint, value: Value) -> Value:
    """The value before scaling: the inverse of `scale`, `offset` or `map`, and a whole number where the type is one.

    Raises PermanentError `not-writable` or `range`.
    """
    if not point.writable:
        raise PermanentError("it is not writable: set `writable: true` if it may be written", reason="not-writable")
    if point.enum or point.flags or isinstance(value, str | bool) or value is None:
        return value
    if not math.isfinite(value):
        raise PermanentError(f"{value} is not a finite number", reason=Reason.RANGE)
    if point.range is not None and not point.range[0] <= value <= point.range[1]:
        low, high = point.range
        raise PermanentError(f"{value:g} is outside its range, {low:g} to {high:g}", reason=Reason.RANGE)
    raw = point.unscaled(value)
    whole = point.data_type in _UNSCALED or point.data_type.startswith("bcd")
    return round(raw) if whole and raw is not value else raw


def requests_for(point: ModbusPoint, raw: Value) -> list[Request[None]]:
    """The requests that would write it, best first; devices do not know all of them.

    A part of a register has only the one that masks (function 22). Raises PermanentError `range` if the point cannot
    have this value.
    """
    try:
        if point.partial:
            return [pdu.mask_write(point.start, *mask_for(point, raw))]
        data = encode_value(point, raw)
    except ValueError as exc:
        raise PermanentError(str(exc), reason=Reason.RANGE) from exc
    if point.table.is_bits:
        bits = [bool(bit) for bit in data]
        return [pdu.write_coil(point.start, bits[0]), pdu.write_coils(point.start, bits)]
    return requests_for_words(point.start, data)


def requests_for_words(start: int, words: Sequence[int]) -> list[Request[None]]:
    """The same for whole registers."""
    many = pdu.write_registers(start, words)
    return [pdu.write_register(start, words[0]), many] if len(words) == 1 else [many]


def merged_words(point: ModbusPoint, raw: Value, current: Sequence[int]) -> Sequence[int]:
    """The registers of a point that is a part of them, with the other bits as they are in `current`."""
    return encode_value(point, raw, current)


def payload_of(point: ModbusPoint, raw: Value) -> bytes:
    """What stands for a raw value on the wire: registers with the high byte first, a bit as one byte.

    Of a point that is a part of its registers, the other bits are 0. Raises PermanentError `range`.
    """
    try:
        data = encode_value(point, raw)
    except ValueError as exc:
        raise PermanentError(str(exc), reason=Reason.RANGE) from exc
    return bytes([data[0]]) if point.table.is_bits else struct.pack(f">{len(data)}H", *data)


def value_of(point: ModbusPoint, data: bytes) -> Value:
    """The raw value that a payload stands for; None if it means none. Raises PermanentError `raw`."""
    words = _words_of(point, data)
    decoder = Decoder(Block(point.table, point.start, point.count, ("it",)), [point], {"it": point})
    if point.table.is_bits:
        return decoder.decode_bits([bool(words[0])])[0][0]
    return decoder.decode_registers(words)[0][0]


def requests_for_payload(point: ModbusPoint, data: bytes) -> list[Request[None]]:
    """The requests that would write a payload, best first. Raises PermanentError `raw` or `not-writable`."""
    if not point.writable:
        raise PermanentError("it is not writable: set `writable: true` if it may be written", reason="not-writable")
    if point.partial:
        raise PermanentError("it is a part of a register and has no payload of its own: give a value", reason="raw")
    words = _words_of(point, data)
    if point.table.is_bits:
        return [pdu.write_coil(point.start, bool(words[0])), pdu.write_coils(point.start, [bool(words[0])])]
    return requests_for_words(point.start, words)


def _words_of(point: ModbusPoint, data: bytes) -> Sequence[int]:
    if point.table.is_bits:
        if data not in (b"\0", b"\1"):
            raise PermanentError(f"{data.hex()!r} is no bit: write 00 or 01", reason="raw")
        return [data[0]]
    if len(data) != 2 * point.count:
        raise PermanentError(
            f"it has {point.count} registers, so a payload has {2 * point.count} bytes, not {len(data)}", reason="raw"
        )
    return struct.unpack(f">{point.count}H", data)
