"""Advertisements made from values: the way back through the decoders, for simulated sensors. Pure.

The sources of the formats are named beside their decoders.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping

from edged.adapter import Value

from . import atc, bthome, ruuvi
from .advert import Advertisement, uuid_of
from .layout import INTEGERS, WIDTHS, Field, Pattern

Values = Mapping[str, Value]
_DF5 = struct.Struct(">BhHHhhhHBH6s")
_ATC = struct.Struct("<6shHHBBB")
_PLAIN = 0x40
"""BTHome version 2, not encrypted."""
_PACKET_ID = 0x00


def ruuvi_tag(address: str, values: Values, packet: int) -> Advertisement:
    """Data format 5. What is not among the values is marked as missing."""

    def scaled(name: str, factor: float, offset: float, bits: int, *, signed: bool = False) -> int:
        # The lowest of a signed number, or the highest of an unsigned one, says that there is none.
        value = _number(values, name)
        least, most = (-(1 << bits - 1) + 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 2)
        if value is None:
            return least - 1 if signed else most + 1
        return min(max(round(value * factor + offset), least), most)

    power = scaled("battery_voltage", 1000, -1600, 11) << 5 | scaled("tx_power", 0.5, 20, 5)
    data = _DF5.pack(
        5,
        scaled("temperature", 200, 0, 16, signed=True),
        scaled("humidity", 400, 0, 16),
        scaled("pressure", 100, -50_000, 16),
        *(scaled(f"acceleration_{axis}", 1000, 0, 16, signed=True) for axis in "xyz"),
        power,
        scaled("movement_counter", 1, 0, 8),
        packet % 0xFFFF,
        _octets(address),
    )
    return Advertisement(address, manufacturer_data={ruuvi.COMPANY: data})


def atc_custom(address: str, values: Values, packet: int) -> Advertisement:
    """The format `custom` (pvvx). It has no way to say that a value is missing: such are 0."""
    flags = sum(
        bit for name, bit in (("reed_switch", 1), ("output", 2), ("temperature_alarm", 8), ("humidity_alarm", 16))
        if values.get(name)
    )  # fmt: skip

    def scaled(name: str, factor: float, least: int, most: int) -> int:
        return min(max(round(factor * (_number(values, name) or 0)), least), most)

    data = _ATC.pack(
        _octets(address)[::-1],
        scaled("temperature", 100, -0x8000, 0x7FFF),
        scaled("humidity", 100, 0, 0xFFFF),
        scaled("battery_voltage", 1000, 0, 0xFFFF),
        scaled("battery", 1, 0, 0xFF),
        packet & 0xFF,
        flags,
    )
    return Advertisement(address, service_data={atc.SERVICE: data})


def bthome_plain(address: str, values: Values, packet: int) -> Advertisement:
    """BTHome version 2 without encryption. Raises ValueError for a value that it has no object for."""
    objects = []
    for name, value in values.items():
        number, size, signed, divisor = _object(name)
        whole = round(float(value) * divisor) if isinstance(value, int | float) else 0
        bits = 8 * size - signed
        least, most = (-(1 << bits) if signed else 0), (1 << bits) - 1
        objects.append((number, min(max(whole, least), most).to_bytes(size, "little", signed=signed)))
    objects.sort(key=lambda one: one[0])  # in this order they are to be sent, and equal ones are numbered
    body = bytes([_PLAIN, _PACKET_ID, packet & 0xFF]) + b"".join(bytes([number]) + data for number, data in objects)
    return Advertisement(address, service_data={bthome.SERVICE: body})


def _object(name: str) -> tuple[int, int, bool, int]:
    """(id, bytes, signed, divisor) of the finest object for a value; `temperature_2` is a second `temperature`."""
    head, _, number = name.rpartition("_")
    base = head if head in bthome.POINTS and number.isdecimal() else name
    fitting = [
        (one.divisor, number, one)
        for number, one in bthome.OBJECTS.items()
        if one.name == base and one.size and not one.factor and bthome.POINTS[base].type in {"number", "boolean"}
    ]
    if not fitting:
        raise ValueError(f"BTHome has no object for {name} that can be simulated")
    _, code, one = max(fitting, key=lambda found: (found[0], -found[1]))
    return code, one.size, one.signed, one.divisor


def byte_map(
    address: str,
    fields: Iterable[tuple[Field, Value]],
    *,
    company: int | None,
    service: str | None,
    length: int | None,
    patterns: Iterable[Pattern],
    packet: tuple[Field, int] | None,
) -> Advertisement:
    """Raw values at their places. Bytes that nothing is said of are 0."""
    placed, patterns = list(fields), tuple(patterns)
    if packet is not None:
        placed.append(packet)
    ends = [max(one.at, 0) + _width(one) for one, _ in placed]
    ends += [max(one.at, 0) + len(one.value) for one in patterns] + [-one.at for one, _ in placed if one.at < 0]
    data = bytearray(length or max(ends, default=1))
    for one, value in placed:
        _place(data, one, value)
    for pattern in patterns:
        start = pattern.at % len(data)
        for i, (byte, mask) in enumerate(zip(pattern.value, pattern.mask, strict=True)):
            data[start + i] = data[start + i] & ~mask & 0xFF | byte
    if company is not None:
        return Advertisement(address, manufacturer_data={company: bytes(data)})
    return Advertisement(address, service_data={uuid_of(service or ""): bytes(data)})


def _place(data: bytearray, one: Field, value: Value) -> None:
    start, width = one.at % len(data), _width(one)
    if one.type in {"float32", "float64"} and isinstance(value, int | float):
        form = ("<" if one.order == "little" else ">") + ("f" if one.type == "float32" else "d")
        data[start : start + width] = struct.pack(form, value)
    if one.type not in INTEGERS or not isinstance(value, int | float):
        return
    low, high = one.bits or ((one.bit, one.bit) if one.bit is not None else (0, 8 * width - 1))
    signed = one.type.startswith("int") and high - low == 8 * width - 1
    span = 1 << high - low + 1
    least, most = (-span // 2, span // 2 - 1) if signed else (0, span - 1)
    number = min(max(round(value), least), most) & (span - 1)
    before = int.from_bytes(data[start : start + width], one.order) & ~((span - 1) << low)
    data[start : start + width] = (before | number << low).to_bytes(width, one.order)


def _width(one: Field) -> int:
    return WIDTHS.get(one.type, one.length or 0)


def _number(values: Values, name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else None


def _octets(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


MAKERS: Mapping[str, Callable[[str, Values, int], Advertisement]] = {
    "atc": atc_custom, "bthome": bthome_plain, "ruuvi": ruuvi_tag,
}  # fmt: skip
"""By the name of the decoder: (address, values, number of the packet) → advertisement."""
