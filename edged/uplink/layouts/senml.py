"""SenML (RFC 8428) as JSON and CBOR. Pure.

A sample begins with its base name (`gateway:device/`) and base time; a record is one reading. What is not good has a
record beside it: `point/quality`, as text. A bad value has only that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from edged.model import GOOD, Sample
from edged.uplink.encoders import presentable

JSON, CBOR = "application/senml+json", "application/senml+cbor"
_LABELS = {"bn": -2, "bt": -3, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4}
"""RFC 8428, section 6, table 4."""
_UNITS = {
    "°C": "Cel", "K": "K", "V": "V", "A": "A", "W": "W", "Hz": "Hz", "Pa": "Pa", "J": "J", "m": "m", "kg": "kg",
    "g": "g", "s": "s", "lx": "lx", "Ω": "Ohm", "m/s": "m/s", "m³": "m3", "l": "l", "m³/s": "m3/s", "l/s": "l/s",
    "VA": "VA", "var": "var", "kWh": "kWh", "kW": "kW", "Wh": "Wh", "kVA": "kVA", "kvar": "kvar", "varh": "varh",
    "kvarh": "kvarh", "hPa": "hPa", "mm": "mm", "cm": "cm", "km": "km", "km/h": "km/h", "ms": "ms", "min": "min",
    "h": "h", "mV": "mV", "mA": "mA", "MHz": "MHz", "ppm": "ppm",
}  # fmt: skip
"""The field's word → the registered one (IANA, SenML Units and Secondary Units)."""


def records(samples: Sequence[Sample], gateway: str, units: Mapping[tuple[str, str], str]) -> Iterator[dict[str, Any]]:
    """The records of samples; `units`: (device, point) → the unit as configured."""
    for raw in samples:
        sample = presentable(raw)
        base: dict[str, Any] = {"bn": f"{gateway}:{sample.device}/", "bt": _seconds(sample.time)}
        for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True)):
            quality = sample.quality.get(i, GOOD)
            if value is not None:
                record = {**base, "n": str(point)}
                unit = _UNITS.get(units.get((sample.device, point), ""))
                if unit:
                    record["u"] = unit
                record["vb" if isinstance(value, bool) else "vs" if isinstance(value, str) else "v"] = value
                base = {}
                yield record
            if quality.status != "good":
                yield {**base, "n": f"{point}/quality", "vs": str(quality)}
                base = {}


def _seconds(micros: int) -> float | int:
    return micros // 1_000_000 if micros % 1_000_000 == 0 else micros / 1e6


def encode_json(some: Sequence[Mapping[str, Any]]) -> bytes:
    """As application/senml+json."""
    return orjson.dumps(list(some))


def encode_cbor(some: Sequence[Mapping[str, Any]]) -> bytes:
    """As application/senml+cbor (RFC 8949)."""
    parts = [_head(4, len(some))]
    for record in some:
        parts.append(_head(5, len(record)))
        for name, value in record.items():
            parts += [_item(_LABELS[name]), _item(value)]
    return b"".join(parts)


def _item(value: object) -> bytes:
    match value:
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case float():
            return b"\xfb" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return _head(3, len(text)) + text
    raise TypeError(f"{type(value).__name__} is not a value")


def _head(major: int, number: int) -> bytes:
    """The head of an item (RFC 8949, section 3), as short as possible."""
    for limit, code, form in (
        (24, None, ""),
        (2**8, 24, ">B"),
        (2**16, 25, ">H"),
        (2**32, 26, ">I"),
        (2**64, 27, ">Q"),
    ):
        if number < limit:
            return (
                bytes([major << 5 | number]) if code is None else bytes([major << 5 | code]) + struct.pack(form, number)
            )
    raise ValueError(f"{number} does not fit into 64 bits")
