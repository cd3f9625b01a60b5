"""What a Modbus server shows of the points of other devices: registers and bits from values, and values from writes.

Pure. One unit at a time; addresses count from zero. Modbus Application Protocol V1.1b3, sections 6 and 7.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edged.adapter import Value

from .encode import encode_value
from .pdu import MAX_WRITE_COILS, MAX_WRITE_REGISTERS, pack_bits, unpack_bits
from .planner import MAX_BITS, MAX_REGISTERS, Table
from .point import ModbusPoint
from .write import value_of

FUNCTION, ADDRESS, VALUE, FAILURE, BUSY, NO_ANSWER = 1, 2, 3, 4, 6, 11
"""Exception codes (section 7): illegal function, data address or value, server failure, busy, target did not answer."""
_ON = 0xFF00
_READS = {1: Table.COIL, 2: Table.DISCRETE, 3: Table.HOLDING, 4: Table.INPUT}
_WRITES = {5: Table.COIL, 6: Table.HOLDING, 15: Table.COIL, 16: Table.HOLDING}


class RefusedError(Exception):
    """A request that is answered with an exception."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A point of a device and where it is shown."""

    device: str
    point: str
    place: ModbusPoint

    def __str__(self) -> str:
        """Its address."""
        return f"{self.device or '(kept free)'}/{self.point}"


@dataclass(frozen=True, slots=True)
class Reading:
    """A request to read."""

    function: int
    table: Table
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Writing:
    """A request to write: bits as one byte each, registers with the high byte first."""

    table: Table
    start: int
    count: int
    data: bytes
    echo: bytes
    """The reply if it is carried out."""


class Unit:
    """The points that are shown under one unit identifier."""

    def __init__(self, shown: Iterable[Shown]) -> None:
        """Raises ValueError where two overlap."""
        self._tables: dict[Table, list[Shown]] = {}
        for one in shown:
            self._tables.setdefault(one.place.table, []).append(one)
        self._starts: dict[Table, list[int]] = {}
        for table, ones in self._tables.items():
            ones.sort(key=lambda one: one.place.start)
            for before, after in pairwise(ones):
                if after.place.start < before.place.span.end:
                    raise ValueError(f"{before} ({before.place.span}) and {after} ({after.place.span}) overlap")
            self._starts[table] = [one.place.start for one in ones]

    def within(self, table: Table, start: int, count: int) -> Sequence[Shown]:
        """The points of which some is in the range.

        Raises RefusedError where it reaches beyond the first or the last address that is shown.
        """
        ones = self._tables.get(table)
        if not ones or start < ones[0].place.start or start + count > ones[-1].place.span.end:
            raise RefusedError(ADDRESS)
        first = bisect_left(self._starts[table], start)
        if first and ones[first - 1].place.span.end > start:
            first -= 1
        return ones[first : bisect_left(self._starts[table], start + count)]


def parse(request: bytes) -> Reading | Writing:
    """The request of a PDU. Raises RefusedError."""
    function = request[0]
    try:
        if function in _READS:
            _, start, count = struct.unpack(">BHH", request)
            table = _READS[function]
            _check(1 <= count <= (MAX_BITS if table.is_bits else MAX_REGISTERS), VALUE)
            return Reading(function, table, start, count)
        if function in _WRITES:
            return _write(function, request)
    except struct.error:
        raise RefusedError(VALUE) from None
    raise RefusedError(FUNCTION)


def _write(function: int, request: bytes) -> Writing:
    table = _WRITES[function]
    if function in {5, 6}:
        _, start, value = struct.unpack(">BHH", request)
        if function == 6:  # noqa: PLR2004  # the function code
            return Writing(table, start, 1, request[3:5], request)
        _check(value in {0, _ON}, VALUE)
        return Writing(table, start, 1, b"\1" if value else b"\0", request)
    _, start, count, size = struct.unpack_from(">BHHB", request)
    data = request[6:]
    if table.is_bits:
        _check(1 <= count <= MAX_WRITE_COILS and size == len(data) == (count + 7) // 8, VALUE)
        data = bytes(unpack_bits(data, count))
    else:
        _check(1 <= count <= MAX_WRITE_REGISTERS and size == len(data) == 2 * count, VALUE)
    return Writing(table, start, count, data, request[:5])


def _check(fits: bool, code: int) -> None:  # noqa: FBT001  # what is checked, not a switch
    if not fits:
        raise RefusedError(code)


def answer(reading: Reading, shown: Sequence[Shown], values: Mapping[Shown, Value], *, sentinel: bool) -> bytes:
    """The reply to a read; a point that is missing in `values` has none that may be shown.

    Then the reply is exception 11, or with `sentinel` the number that means "no value" stands in its place. Between
    the points there are zeros. Raises RefusedError.
    """
    width = 1 if reading.table.is_bits else 2
    data = bytearray(reading.count * width)
    for one in shown:
        cells = _cells(one.place, values[one]) if one in values else None
        if cells is None:
            cells = _nothing(one.place) if sentinel else None
        if cells is None:
            raise RefusedError(NO_ANSWER)
        begin = max(one.place.start, reading.start)
        end = min(one.place.span.end, reading.start + reading.count)
        at, of = (begin - reading.start) * width, (begin - one.place.start) * width
        data[at : at + (end - begin) * width] = cells[of : of + (end - begin) * width]
    if width == 1:
        packed = pack_bits([bool(bit) for bit in data])
        return bytes((reading.function, len(packed))) + packed
    return bytes((reading.function, len(data))) + data


def _cells(place: ModbusPoint, value: Value) -> bytes | None:
    """A value as it stands in the table; None where it does not fit there."""
    try:
        cells = encode_value(place, _raw(place, value))
    except (ValueError, OverflowError):
        return None
    return bytes(cells) if place.table.is_bits else struct.pack(f">{len(cells)}H", *cells)


def _raw(place: ModbusPoint, value: Value) -> Value:
    """The number before scaling; a whole one where the type is. A switch in a register is 0 or 1."""
    if place.table.is_bits or place.enum or value is None or isinstance(value, str):
        return value
    raw = place.unscaled(value)
    return raw if place.data_type.startswith("float") else round(raw)


def _nothing(place: ModbusPoint) -> bytes | None:
    """What means "no value", as SunSpec has it: not a number, the lowest signed and the highest unsigned integer.

    None for a single bit, which has no third state.
    """
    if place.table.is_bits:
        return None
    size = 2 * place.count
    if place.data_type == "string":
        return bytes(size)
    if place.data_type.startswith("float"):
        code = {2: ">e", 4: ">f", 8: ">d"}[size]
        data = struct.pack(code, math.nan)
    elif place.data_type.startswith("int"):
        data = b"\x80" + bytes(size - 1)
    else:
        data = b"\xff" * size
    order = place.byte_order
    return bytes(data["ABCDEFGH".index(letter)] for letter in order)


def written(writing: Writing, shown: Sequence[Shown]) -> list[tuple[Shown, Value]]:
    """The points that a write means, and their values.

    Raises RefusedError where it touches an address that no point has (2), or only a part of one (3).
    """
    width = 1 if writing.table.is_bits else 2
    found: list[tuple[Shown, Value]] = []
    at = writing.start
    for one in shown:
        _check(one.place.start <= at, ADDRESS)
        _check(one.place.start == at and one.place.span.end <= writing.start + writing.count, VALUE)
        of = (at - writing.start) * width
        raw = value_of(one.place, writing.data[of : of + one.place.count * width])
        _check(raw is not None, VALUE)
        found.append((one, _scaled(one.place, raw)))
        at = one.place.span.end
    _check(at == writing.start + writing.count, ADDRESS)
    return found


def _scaled(place: ModbusPoint, raw: Value) -> Value:
    if isinstance(raw, str | bool) or raw is None or (place.scale, place.offset) == (1.0, 0.0):
        return raw
    return float(f"{raw * place.scale + place.offset:.15g}")  # 70 steps of 0.1 are 7, and not a bit beyond a limit of 7
