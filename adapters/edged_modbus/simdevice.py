"""A simulated Modbus unit: registers that follow waveforms, and answers to request PDUs.

Pure: time comes in from outside. Addresses that no point of the configuration has do not exist (exception 2). What is
written to a writable point stays.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edged.adapter import Value
from edged.testing.waveforms import Kind, Waveform, seed_of, waveform

from .encode import encode_value
from .pdu import MAX_READ_WRITE_REGISTERS, MAX_WRITE_COILS, MAX_WRITE_REGISTERS, pack_bits, unpack_bits
from .planner import MAX_BITS, MAX_REGISTERS, Table
from .point import ModbusPoint, integer_range, signed_invalid

TICK = 0.1
"""Seconds for which the registers stand still."""
_FUNCTION, _ADDRESS, _VALUE = 1, 2, 3
_ON = 0xFF00
_TYPICAL: Mapping[str, tuple[float, float]] = {
    "V": (226.0, 234.0), "A": (0.2, 16.0), "W": (50.0, 3600.0), "kW": (0.05, 3.6), "VA": (50.0, 3700.0),
    "var": (-400.0, 400.0), "Hz": (49.95, 50.05), "°C": (18.0, 26.0), "%": (20.0, 80.0), "bar": (1.0, 8.0),
    "": (0.0, 100.0),
}  # fmt: skip
"""What a point without `range` shows, by its unit."""
_COUNTED = frozenset({"Wh", "kWh", "MWh", "varh", "kvarh", "m³", "l", "h"})


class _RefusedError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Area:
    """One table of the unit: from the first to the last address that exists. A register is two bytes, a bit one."""

    def __init__(self, points: Iterable[ModbusPoint], *, width: int) -> None:
        spans = [(point.span, point.writable) for point in points]
        self.base = min(span.start for span, _ in spans)
        self.width = width
        size = max(span.end for span, _ in spans) - self.base
        self.data = bytearray(size * width)
        self._exists, self._writable = bytearray(size), bytearray(size)
        for span, writable in spans:
            at = span.start - self.base
            self._exists[at : at + span.count] = b"\1" * span.count
            if writable:
                self._writable[at : at + span.count] = b"\1" * span.count

    def place(self, start: int, count: int, *, write: bool = False) -> slice:
        """Where these addresses are in `data`. Raises _RefusedError where one does not exist or is not writable."""
        at = start - self.base
        allowed = self._writable if write else self._exists
        if at < 0 or at + count > len(allowed) or allowed.find(0, at, at + count) >= 0:
            raise _RefusedError(_ADDRESS)
        return slice(at * self.width, (at + count) * self.width)

    def words(self, point: ModbusPoint) -> tuple[int, ...]:
        """The registers of a point."""
        return struct.unpack(f">{point.count}H", self.data[self.place(point.start, point.count)])

    def put(self, point: ModbusPoint, raw: Value) -> None:
        """Set a point."""
        if self.width == 1:
            self.data[self.place(point.start, 1)] = bytes(map(int, encode_value(point, raw)))
            return
        words = encode_value(point, raw, self.words(point) if point.partial else None)
        self.data[self.place(point.start, point.count)] = struct.pack(f">{point.count}H", *words)


@dataclass(slots=True)
class _Moving:
    """A point that follows a waveform."""

    area: _Area
    point: ModbusPoint
    raw: Callable[[float], Value]


class SimulatedUnit:
    """One unit. `answer` is all it does."""

    def __init__(self, points: Mapping[str, ModbusPoint], identity: Mapping[int, bytes], seed: int = 0) -> None:
        self._identity = dict(identity)
        self._areas: dict[Table, _Area] = {}
        self._moving: list[_Moving] = []
        self._tick = -1
        for table in Table:
            mine = {name: point for name, point in points.items() if point.table is table}
            if mine:
                self._areas[table] = _Area(mine.values(), width=1 if table.is_bits else 2)
        for name, point in points.items():
            area, wave = self._areas[point.table], raw_waveform(name, point, seed)
            area.put(point, wave(0.0))
            if not point.writable:
                self._moving.append(_Moving(area, point, wave))

    def answer(self, request: bytes, now: float) -> bytes:
        """The reply PDU to a request PDU at this time (seconds)."""
        handler = _HANDLERS.get(request[0])
        try:
            if handler is None:
                raise _RefusedError(_FUNCTION)
            return handler(self, request, now)
        except _RefusedError as exc:
            return bytes((request[0] | 0x80, exc.code))
        except (struct.error, IndexError):
            return bytes((request[0] | 0x80, _VALUE))

    def _area(self, table: Table) -> _Area:
        area = self._areas.get(table)
        if area is None:
            raise _RefusedError(_ADDRESS)
        return area

    def _refresh(self, now: float) -> None:
        tick = int(now / TICK)
        if tick != self._tick:
            self._tick = tick
            for moving in self._moving:
                moving.area.put(moving.point, moving.raw(tick * TICK))

    def _read_registers(self, request: bytes, now: float) -> bytes:
        function, start, count = struct.unpack(">BHH", request)
        if not 1 <= count <= MAX_REGISTERS:
            raise _RefusedError(_VALUE)
        area = self._area(Table.HOLDING if function == 3 else Table.INPUT)  # noqa: PLR2004  # the function code
        place = area.place(start, count)
        self._refresh(now)
        return bytes((function, 2 * count)) + area.data[place]

    def _read_bits(self, request: bytes, now: float) -> bytes:
        function, start, count = struct.unpack(">BHH", request)
        if not 1 <= count <= MAX_BITS:
            raise _RefusedError(_VALUE)
        area = self._area(Table.COIL if function == 1 else Table.DISCRETE)
        place = area.place(start, count)
        self._refresh(now)
        packed = pack_bits([bool(bit) for bit in area.data[place]])
        return bytes((function, len(packed))) + packed

    def _write_coil(self, request: bytes, _now: float) -> bytes:
        _, start, value = struct.unpack(">BHH", request)
        if value not in {0, _ON}:
            raise _RefusedError(_VALUE)
        area = self._area(Table.COIL)
        area.data[area.place(start, 1, write=True)] = b"\1" if value else b"\0"
        return request

    def _write_register(self, request: bytes, _now: float) -> bytes:
        _, start, _ = struct.unpack(">BHH", request)
        area = self._area(Table.HOLDING)
        area.data[area.place(start, 1, write=True)] = request[3:5]
        return request

    def _write_coils(self, request: bytes, _now: float) -> bytes:
        _, start, count, size = struct.unpack_from(">BHHB", request)
        data = request[6:]
        if not 1 <= count <= MAX_WRITE_COILS or not size == len(data) == (count + 7) // 8:
            raise _RefusedError(_VALUE)
        area = self._area(Table.COIL)
        area.data[area.place(start, count, write=True)] = bytes(unpack_bits(data, count))
        return request[:5]

    def _write_registers(self, request: bytes, _now: float) -> bytes:
        _, start, count, size = struct.unpack_from(">BHHB", request)
        self._put(start, count, size, request[6:], MAX_WRITE_REGISTERS)
        return request[:5]

    def _put(self, start: int, count: int, size: int, data: bytes, most: int) -> None:
        if not 1 <= count <= most or not size == len(data) == 2 * count:
            raise _RefusedError(_VALUE)
        area = self._area(Table.HOLDING)
        area.data[area.place(start, count, write=True)] = data

    def _mask_write(self, request: bytes, _now: float) -> bytes:
        _, start, and_mask, or_mask = struct.unpack(">BHHH", request)
        area = self._area(Table.HOLDING)
        place = area.place(start, 1, write=True)
        before = int.from_bytes(area.data[place], "big")
        area.data[place] = (before & and_mask | or_mask & ~and_mask & 0xFFFF).to_bytes(2, "big")
        return request

    def _read_write(self, request: bytes, now: float) -> bytes:
        _, read_start, read_count, start, count, size = struct.unpack_from(">BHHHHB", request)
        self._put(start, count, size, request[10:], MAX_READ_WRITE_REGISTERS)
        reply = self._read_registers(struct.pack(">BHH", 3, read_start, read_count), now)
        return b"\x17" + reply[1:]

    def _identify(self, request: bytes, _now: float) -> bytes:
        _, interface, level, first = struct.unpack(">BBBB", request)
        if interface != 14 or not 1 <= level <= 4:  # noqa: PLR2004  # the specification's numbers (6.21)
            raise _RefusedError(_VALUE)
        wanted = {1: range(3), 2: range(7), 3: range(256), 4: range(first, first + 1)}[level]
        objects = [(number, text) for number, text in sorted(self._identity.items()) if number in wanted]
        objects = [item for item in objects if item[0] >= first] or objects
        if not objects:
            raise _RefusedError(_ADDRESS)
        body = b"".join(bytes((number, len(text))) + text for number, text in objects)
        return bytes((43, 14, level, 0x83, 0, 0, len(objects))) + body


_Handler = Callable[[SimulatedUnit, bytes, float], bytes]
# ruff: noqa: SLF001  # the methods of the class above
_HANDLERS: Mapping[int, _Handler] = {
    1: SimulatedUnit._read_bits,
    2: SimulatedUnit._read_bits,
    3: SimulatedUnit._read_registers,
    4: SimulatedUnit._read_registers,
    5: SimulatedUnit._write_coil,
    6: SimulatedUnit._write_register,
    15: SimulatedUnit._write_coils,
    16: SimulatedUnit._write_registers,
    22: SimulatedUnit._mask_write,
    23: SimulatedUnit._read_write,
    43: SimulatedUnit._identify,
}


def raw_waveform(name: str, point: ModbusPoint, seed: int) -> Callable[[float], Value]:
    """What a point shows over time, before scaling: by its type, range and unit, and always the same for a seed."""
    number = seed_of(seed, name)
    if point.enum:
        keys = list(point.enum)
        step = waveform("counter", 0, max(len(keys) - 1, 1), period=20, seed=number)
        return lambda t: point.enum[keys[int(step(t)) % len(keys)]]
    if point.flags:
        words = list(point.flags.values())
        count = waveform("counter", 0, 2 ** min(len(words), 8) - 1, period=10, seed=number)
        return lambda t: ",".join(word for i, word in enumerate(words) if int(count(t)) >> i & 1)
    if point.data_type == "string":
        text = name[: 2 * point.count // (2 if point.encoding == "utf-16" else 1)].strip()
        return lambda _: text
    if point.table.is_bits or point.bit is not None:
        switch = waveform("square", 0, 1, period=20 + number % 40, seed=number)
        return lambda t: bool(switch(t))
    return _numbers(point, number)


def _numbers(point: ModbusPoint, seed: int) -> Callable[[float], Value]:
    low, high = sorted(point.unscaled(limit) for limit in _shown(point))
    whole = not point.data_type.startswith("float")
    if whole:
        least, most = (0, 10 ** (point.width // 4) - 1) if point.data_type.startswith("bcd") else integer_range(point)
        low, high = max(math.ceil(low), least), min(math.floor(high), most)
        if low >= high:
            low, high = least, most
    kind: Kind = ("sine", "random-walk", "ramp")[seed % 3]
    if point.unit in _COUNTED:
        kind, high = "counter", (min(high, low + 1_000_000) if whole else low + 1_000_000)
    wave: Waveform = waveform(kind, low, high, period=1.0 if kind == "counter" else 30 + seed % 90, seed=seed)
    if point.writable:
        middle = (low + high) / 2
        return lambda _: round(middle) if whole else middle
    if not whole:
        return wave
    invalid = signed_invalid(point)
    return lambda t: value if (value := round(wave(t))) not in invalid else low


def _shown(point: ModbusPoint) -> tuple[float, float]:
    """The lowest and highest value to show, after scaling."""
    if point.range is not None:
        low, high = point.range
        return low, high
    if point.map is not None:
        return point.map.to
    return _TYPICAL.get(point.unit, _TYPICAL[""])
