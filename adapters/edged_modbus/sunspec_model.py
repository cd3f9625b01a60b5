"""SunSpec models: where their points lie in the registers of a device, and what the registers say.

Pure. The definitions are SunSpec's own JSON files (as the package pysunspec2 brings them); see the SunSpec Device
Information Model Specification. A model begins with its number and its length; the length of the device's own
version decides what is there, so an older version simply lacks the last points.
"""

from __future__ import annotations

import ipaddress
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edged.adapter import Reason, Value

NOT_IMPLEMENTED = "not_implemented"
"""Why a value is bad that the device says it does not have (the specification gives each type such a value)."""
HEADER = 2
"""Registers of a model's number and length, which the length does not count."""

_NUMBERS: Mapping[str, tuple[str, int | None]] = {
    "int16": (">h", -0x8000), "int32": (">i", -0x80000000), "int64": (">q", -(1 << 63)),
    "uint16": (">H", 0xFFFF), "uint32": (">I", 0xFFFFFFFF), "uint64": (">Q", (1 << 64) - 1),
    "acc16": (">H", 0), "acc32": (">I", 0), "acc64": (">Q", 0),
    "enum16": (">H", 0xFFFF), "enum32": (">I", 0xFFFFFFFF), "count": (">H", 0xFFFF),
    "raw16": (">H", None),
}  # fmt: skip
"""Type → how it is packed, and the number that stands for `not implemented`."""
_FLOATS = {"float32": ">f", "float64": ">d"}
_BITS = {"bitfield16": 16, "bitfield32": 32, "bitfield64": 64}
_SILENT = frozenset({"pad", "sunssf"})
"""Types that are no values."""
_NO_SCALE = -0x8000
_MOST_SCALE = 10
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
"""What is stored and sent as an integer has 64 bits."""
_INVERTERS, _METERS = (101, 102, 103, 111, 112, 113), (201, 202, 203, 204, 211, 212, 213, 214)
_FAMILIES: Mapping[int, str] = MappingProxyType(
    dict.fromkeys(_INVERTERS, "inverter") | dict.fromkeys(_METERS, "meter"),
)
"""Models that tell the same in another form: their points are called the same."""


@dataclass(frozen=True, slots=True)
class Field:
    """One point of a model on a device."""

    name: str
    """Within its model, such as `module_1.DCW`."""
    type: str
    offset: int
    """Its first register, counted from the model's number."""
    size: int
    unit: str = ""
    words: Mapping[int, str] = field(default_factory=dict)
    """The words for numbers, or for bits."""
    scale_at: int | None = None
    """Where its scale factor lies, counted likewise."""
    exponent: int = 0
    """The scale factor, when it is part of the definition."""
    settable: bool = False
    static: bool = False
    """It does not change while the device runs."""

    @property
    def end(self) -> int:
        """The register after its last."""
        return self.offset + self.size


def family(model: int, definition: Mapping[str, Any]) -> str:
    """What the points of the model are called by."""
    return _FAMILIES.get(model, str(definition["group"]["name"]))


def fields(definition: Mapping[str, Any], words: Sequence[int]) -> list[Field]:
    """The points that a model on a device has. `words` are its registers, number and length included.

    Raises ValueError when the definition makes no sense.
    """
    found: list[Field] = []
    try:
        _Layout(words, found).group(definition["group"], "", 0, {})
    except (KeyError, TypeError, IndexError) as exc:
        raise ValueError(f"the definition of model {definition.get('id')} cannot be used: {exc!r}") from exc
    return [one for one in found if one.end <= len(words)]


class _Layout:
    """Lays the groups of one model one after the other."""

    def __init__(self, words: Sequence[int], found: list[Field]) -> None:
        self._words, self._found = words, found

    def group(self, group: Mapping[str, Any], prefix: str, at: int, outer: Mapping[str, int]) -> int:
        """Add the fields of one group that begins there; returns where it ends."""
        names, places = dict(outer), []
        for point in group.get("points", ()):
            names[point["name"]] = at
            places.append((point, at))
            at += point["size"]
        self._found += [_field(point, prefix, place, names) for point, place in places if point["type"] not in _SILENT]
        for part in group.get("groups", ()):
            count = self._count(part, at, names)
            for number in range(1, (1 if count is None else count) + 1):
                if at >= len(self._words):
                    break  # the device has a shorter version of the model
                name = part["name"] if count is None else f"{part['name']}_{number}"
                at = self.group(part, f"{prefix}{name}.", at, names)
        return at

    def _count(self, part: Mapping[str, Any], at: int, names: Mapping[str, int]) -> int | None:
        """How often the group repeats; None if it does not."""
        count = part.get("count")
        if count is None:
            return None
        if isinstance(count, str):
            stated = self._words[names[count]] if names[count] < len(self._words) else 0
            return 0 if stated == 0xFFFF else stated  # noqa: PLR2004  # not implemented
        if count == 0:  # as often as the length says
            size = sum(point["size"] for point in part["points"])
            return (len(self._words) - at) // int(size)
        return int(count)


def _field(point: Mapping[str, Any], prefix: str, at: int, names: Mapping[str, int]) -> Field:
    scale = point.get("sf")
    return Field(
        prefix + point["name"],
        point["type"],
        at,
        point["size"],
        unit=point.get("units", ""),
        words={symbol["value"]: symbol["name"] for symbol in point.get("symbols", ())},
        scale_at=names.get(scale, 0) if isinstance(scale, str) else None,
        exponent=scale if isinstance(scale, int) else 0,
        settable=point.get("access") == "RW",
        static=point.get("static") == "S" or point["name"] in {"ID", "L"},
    )


def decode(point: Field, words: Sequence[int]) -> tuple[Value, str]:
    """The value of a point in the registers of its model, and why there is none: `not_implemented` or `decode`."""
    data = struct.pack(f">{point.size}H", *words[point.offset : point.end])
    if point.type in _NUMBERS:
        return _number(point, data, words)
    if point.type in _FLOATS:
        (number,) = struct.unpack(_FLOATS[point.type], data)
        if math.isnan(number):
            return None, NOT_IMPLEMENTED
        return (number, "") if math.isfinite(number) else (None, Reason.DECODE)
    if point.type in _BITS:
        return _bitfield(point, int.from_bytes(data, "big"))
    return _text(point, data)


def _number(point: Field, data: bytes, words: Sequence[int]) -> tuple[Value, str]:
    code, nothing = _NUMBERS[point.type]
    (number,) = struct.unpack(code, data)
    if number == nothing:
        return None, NOT_IMPLEMENTED
    if point.type.startswith("enum"):
        if not point.words:
            return number, ""
        return (point.words[number], "") if number in point.words else (None, Reason.DECODE)
    exponent = point.exponent
    if point.scale_at is not None:
        if not 0 < point.scale_at < len(words):
            return None, NOT_IMPLEMENTED
        exponent = words[point.scale_at]
        exponent -= (exponent & 0x8000) << 1
        if exponent == _NO_SCALE:
            return None, NOT_IMPLEMENTED
    if abs(exponent) > _MOST_SCALE:
        return None, Reason.DECODE
    scaled = number / 10**-exponent if exponent < 0 else number * 10**exponent
    return (scaled, "") if _LEAST <= scaled <= _MOST else (None, Reason.DECODE)


def _bitfield(point: Field, bits: int) -> tuple[Value, str]:
    width = _BITS[point.type]
    if bits >> (width - 1):
        return None, NOT_IMPLEMENTED
    if not point.words:
        return bits, ""
    return ",".join(point.words.get(bit, f"bit_{bit}") for bit in range(width) if bits >> bit & 1), ""


def _text(point: Field, data: bytes) -> tuple[Value, str]:
    if point.type == "string":
        text = data.split(b"\0", 1)[0]
        if not text:
            return None, NOT_IMPLEMENTED
        try:
            return text.decode("utf-8").strip(), ""
        except UnicodeDecodeError:
            return None, Reason.DECODE
    if point.type in {"ipaddr", "ipv6addr"}:
        return (str(ipaddress.ip_address(data)), "") if any(data) else (None, NOT_IMPLEMENTED)
    if point.type == "eui48":
        return (data[2:].hex(":"), "") if data[2:] != b"\xff" * 6 else (None, NOT_IMPLEMENTED)
    return None, Reason.DECODE  # a type of a later specification


def chunks(ends: Sequence[int], last: int, most: int) -> Iterator[tuple[int, int]]:
    """(offset, count) of reads of at most so many registers that cut no point in two. `ends`: where points end."""
    start = 0
    while start < last:
        fitting = [end for end in ends if start < end <= min(start + most, last)]
        stop = last if last - start <= most else max(fitting, default=start + most)
        yield start, stop - start
        start = stop
