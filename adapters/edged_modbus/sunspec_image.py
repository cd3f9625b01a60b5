"""A simulated SunSpec device: a three-phase inverter with two inputs, as a map of registers that moves.

Pure: time comes in from outside. Its models are 1 (common), 103 (inverter, integers with scale factors), 160 (inputs).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from edged.testing.waveforms import waveform

from .planner import MAX_REGISTERS
from .sunspec import BASES, COMMON, END, MARK

_READ = 3
_FUNCTION, _ADDRESS, _VALUE = 1, 2, 3
_NONE, _UNSIGNED = 0x8000, 0xFFFF
"""Not implemented, for signed and unsigned numbers."""
_STARTING_ENERGY = 4_321_000
_PERIOD = 60.0


class SimulatedSunSpec:
    """One unit; see `edged_modbus.simdevice.SimulatedUnit`. Nothing can be written."""

    def __init__(self, serial: str, seed: int = 0) -> None:
        self._serial = serial
        self._power = waveform("sine", 200, 8000, period=_PERIOD, seed=seed)

    def answer(self, request: bytes, now: float) -> bytes:
        """The reply PDU to a request PDU at this time (seconds)."""
        if request[0] != _READ:
            return bytes((request[0] | 0x80, _FUNCTION))
        if len(request) != struct.calcsize(">BHH"):
            return bytes((_READ | 0x80, _VALUE))
        start, count = struct.unpack_from(">HH", request, 1)
        words = self.registers(now)
        at = start - BASES[0]
        if not 1 <= count <= MAX_REGISTERS:
            return bytes((_READ | 0x80, _VALUE))
        if at < 0 or at + count > len(words):
            return bytes((_READ | 0x80, _ADDRESS))
        return bytes((_READ, 2 * count)) + struct.pack(f">{count}H", *words[at : at + count])

    def registers(self, now: float) -> list[int]:
        """The whole map at this time."""
        power = round(self._power(now))
        models = [(COMMON, self._common()), (103, _inverter(power, now)), (160, _inputs(power, now))]
        words = [*MARK]
        for number, body in models:
            words += [number, len(body), *body]
        return [*words, END, 0]

    def _common(self) -> list[int]:
        texts = (("edged", 16), ("Simulated inverter", 16), ("", 8), ("1.0", 8), (self._serial, 16))
        return [word for text, size in texts for word in _text(text, size)] + [1, _NONE]


def _inverter(power: int, now: float) -> list[int]:
    current = power * 10 // 690
    energy = _STARTING_ENERGY + int(now) % 1_000_000
    return [
        3 * current, current, current, current, _signed(-1),
        *[_UNSIGNED] * 3, 2300, 2310, 2295, _signed(-1),
        power // 10, 1, 5000 + int(now) % 3, _signed(-2),
        power // 10, 1, 0, 0, 9990, _signed(-2),
        *_long(energy), 0,
        power // 60, _signed(-1), 6000, _signed(-1), power // 10, 1,
        *[_NONE] * 4, _NONE,
        4, _UNSIGNED, *[0] * 4, *[_UNSIGNED] * 8,
    ]  # fmt: skip


def _inputs(power: int, now: float) -> list[int]:
    head = [_signed(-2), _signed(-1), 0, 0, *_long(0), 2, _UNSIGNED]
    part = power // 2
    energy = _STARTING_ENERGY // 2 + int(now) % 1_000_000
    for number in (1, 2):
        head += [
            number,
            *_text(f"String {number}", 8),
            part // 6,
            6000,
            part,
            *_long(energy),
            *_long(_UNSIGNED << 16 | _UNSIGNED),
        ]
        head += [_NONE, 4, *_long(0)]
    return head


def _text(text: str, size: int) -> Sequence[int]:
    return struct.unpack(f">{size}H", text.encode()[: 2 * size].ljust(2 * size, b"\0"))


def _long(number: int) -> tuple[int, int]:
    return number >> 16, number & 0xFFFF


def _signed(number: int) -> int:
    return number & 0xFFFF
