"""The payload of Sparkplug B: metrics in, bytes out, and back. Pure.

Source: Eclipse Sparkplug 3.0.0, 6.4 (the protobuf schema and its fields).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from edged.model import Quality, Reason, Value
from edged.uplink.dialects.protobuf import data, fields, number, varint

_FLOATS = 2.0**128 - 2.0**103
"""No float of 32 bits is as large."""
_INT64_MAX, _UINT64_MAX, _INT64_MIN = 2**63 - 1, 2**64 - 1, -(2**63)
_double = struct.Struct("<d").pack


class DataType(IntEnum):
    """The types of metrics and properties in use here (6.4.16)."""

    INT32 = 3
    INT64 = 4
    UINT64 = 8
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12


# Fields of Payload, Metric, PropertySet and PropertyValue.
_TIMESTAMP, _METRICS, _SEQ, _BODY = 1, 2, 3, 5
_NAME, _ALIAS, _METRIC_TIME, _DATATYPE, _HISTORICAL, _NULL, _PROPERTIES = 1, 2, 3, 4, 5, 7, 9
_INT, _LONG, _FLOAT, _DOUBLE, _BOOLEAN, _STRING = 10, 11, 12, 13, 14, 15
_KEYS, _VALUES = 1, 2
_TYPE, _P_INT, _P_DOUBLE, _P_BOOLEAN, _P_STRING = 1, 3, 6, 7, 8

HISTORICAL = number(_HISTORICAL, 1)
NULL = number(_NULL, 1)
GOOD, STALE, BAD = 192, 500, 0
"""The only values that the property `Quality` may have (6.4.8)."""


def suits(kind: DataType, value: Value) -> DataType:
    """The narrowest type that holds this value and all that `kind` holds; `kind` itself where that does.

    A number never loses a digit: an integer that no double can hold becomes text.
    """
    if value is None or kind is DataType.STRING:
        return kind
    if isinstance(value, str):
        return DataType.STRING
    if isinstance(value, bool):
        return kind
    if isinstance(value, float):
        whole = kind in {DataType.INT64, DataType.UINT64}
        return DataType.DOUBLE if kind is DataType.BOOLEAN or whole else kind
    if kind is DataType.DOUBLE:
        return kind if abs(value) <= 2**53 else DataType.STRING
    if kind is DataType.UINT64 and 0 <= value <= _UINT64_MAX:
        return kind
    if _INT64_MIN <= value <= _INT64_MAX:
        return DataType.INT64 if kind is not DataType.UINT64 else DataType.STRING
    return DataType.UINT64 if _INT64_MAX < value <= _UINT64_MAX and kind is DataType.BOOLEAN else DataType.STRING


def value_field(kind: DataType, value: Value) -> bytes:
    """The value of a metric, of a type that `suits` it."""
    if kind is DataType.DOUBLE:
        return b"\x69" + _double(float(value))  # type: ignore[arg-type]  # no text is of this kind, as `suits` says
    if kind is DataType.STRING:
        return data(_STRING, (value if isinstance(value, str) else repr(value)).encode("utf-8", "replace"))
    if kind is DataType.BOOLEAN:
        return number(_BOOLEAN, int(value))  # type: ignore[arg-type]  # likewise
    return number(_LONG, int(value))  # type: ignore[arg-type]  # likewise


def time_field(us: int) -> bytes:
    """When a metric was read, from microseconds since the Unix epoch: Sparkplug has milliseconds."""
    return number(_METRIC_TIME, max(0, us) // 1000)


def alias_field(alias: int) -> bytes:
    """The number that stands for the name of a metric."""
    return number(_ALIAS, alias)


def name_field(name: str) -> bytes:
    """The name of a metric, in a birth."""
    return data(_NAME, name.encode("utf-8", "replace"))


def type_field(kind: DataType) -> bytes:
    """The type of a metric."""
    return number(_DATATYPE, kind)


def metric(content: bytes) -> bytes:
    """A metric of a payload."""
    return data(_METRICS, content)


def properties(values: dict[str, Value]) -> bytes:
    """The properties of a metric: whole numbers, fractions, truth, text."""
    out = b"".join(data(_KEYS, key.encode()) for key in values)
    return data(_PROPERTIES, out + b"".join(data(_VALUES, _property(value)) for value in values.values()))


def _property(value: Value) -> bytes:
    match value:
        case bool():
            return number(_TYPE, DataType.BOOLEAN) + number(_P_BOOLEAN, int(value))
        case int():
            return number(_TYPE, DataType.INT32) + number(_P_INT, value & 0xFFFF_FFFF)
        case float():
            return number(_TYPE, DataType.DOUBLE) + varint(_P_DOUBLE << 3 | 1) + _double(value)
        case _:
            return number(_TYPE, DataType.STRING) + data(_P_STRING, str(value).encode("utf-8", "replace"))


def quality_of(quality: Quality) -> dict[str, Value]:
    """The properties that say how far a value can be trusted; the reason, for which Sparkplug has no word, is ours."""
    if quality.status == "good":
        return {"Quality": GOOD}
    stale = quality.status == "uncertain" or quality.reason == Reason.STALE
    return {"Quality": STALE if stale else BAD, "edged quality": str(quality)}


def stamped(payload: bytes, us: int, seq: int | None) -> bytes:
    """The payload with the time of sending and its number in the session (0 to 255), known only when it is sent."""
    head = number(_TIMESTAMP, max(0, us) // 1000)
    return head + payload + (number(_SEQ, seq) if seq is not None else b"")


def body(text: str) -> bytes:
    """The payload's field for whatever the publisher likes."""
    return data(_BODY, text.encode())


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a command."""

    name: str = ""
    alias: int | None = None
    time: int | None = None
    """Milliseconds since the Unix epoch, by the sender's clock."""
    value: Value = None
    bits: int = 0
    """Not 0: a whole number of so many bits came without its type, which only the birth says
    [payloads-metric-datatype-not-req]. `value` is not negative then."""

    def signed(self) -> Value:
        """The value, where the birth says that its type has a sign."""
        if not self.bits or not isinstance(self.value, int):
            return self.value
        return _two_s_complement(self.value, self.bits)


@dataclass(frozen=True, slots=True)
class Payload:
    """What came."""

    time: int | None
    """Milliseconds since the Unix epoch, by the sender's clock."""
    metrics: tuple[Metric, ...]


def parse(payload: bytes) -> Payload:
    """What a host sends. Raises ValueError where it is no payload of Sparkplug B."""
    time, metrics = None, []
    for field, value in fields(payload):
        if field == _TIMESTAMP and isinstance(value, int):
            time = value
        elif field == _METRICS and isinstance(value, bytes):
            metrics.append(_metric(dict(_known(value))))
    return Payload(time, tuple(metrics))


def _known(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    integers = {_ALIAS, _METRIC_TIME, _DATATYPE, _NULL, _INT, _LONG, _BOOLEAN}
    for field, value in fields(content):
        wanted = int if field in integers else bytes
        if field in integers | {_NAME, _FLOAT, _DOUBLE, _STRING}:
            if not isinstance(value, wanted):
                raise ValueError(f"field {field} of a metric is of another type")
            yield field, value


_SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}
"""Int8 to Int64, and their bits: hosts write them as two's complement of that width or of more."""


def _metric(known: dict[int, int | bytes]) -> Metric:
    kind, alias, time = known.get(_DATATYPE, 0), known.get(_ALIAS), known.get(_METRIC_TIME)
    name = known.get(_NAME, b"")
    if not isinstance(name, bytes):
        raise ValueError("the name of a metric is no text")  # noqa: TRY004  # all that is wrong with it is a ValueError
    return Metric(
        name=name.decode(),
        alias=alias if isinstance(alias, int) else None,
        time=time if isinstance(time, int) else None,
        value=None if known.get(_NULL) else _value(known, kind if isinstance(kind, int) else 0),
        bits=0 if kind else 32 if _INT in known else 64 if _LONG in known else 0,
    )


def _two_s_complement(value: int, bits: int) -> int:
    return (value & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1)


def _fraction(content: bytes, form: str) -> float:
    """A float, as its sender wrote it in decimals: the 0.1 of 32 bits is not to become 0.10000000149."""
    if len(content) != struct.calcsize(form):
        raise ValueError("a number of another length")
    result: float = struct.unpack(form, content)[0]
    if form == "<f" and math.isfinite(result):
        shorter = (float(f"{result:.{digits}g}") for digits in range(6, 10))
        return next(short for short in shorter if abs(short) < _FLOATS and struct.pack("<f", short) == content)
    return result


def _value(known: dict[int, int | bytes], kind: int) -> Value:
    for field, value in known.items():
        if isinstance(value, int) and field in {_INT, _LONG}:
            bits = _SIGNED.get(kind, 0)
            return _two_s_complement(value, bits) if bits else value
        if field == _BOOLEAN:
            return bool(value)
        if isinstance(value, bytes) and field in {_FLOAT, _DOUBLE}:
            return _fraction(value, "<f" if field == _FLOAT else "<d")
        if isinstance(value, bytes) and field == _STRING:
            return value.decode()
    return None
