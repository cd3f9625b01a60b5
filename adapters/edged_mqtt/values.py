"""A value on its way from a message, and on its way to a device. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from edged.adapter import Value

from .point import MqttPoint, PointType

_DIGITS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_LEAST, _MOST = -(2**63), 2**64 - 1
"""Whole numbers as the buffer and most receivers hold them."""
_DIGITS_OF_MOST = len(str(_MOST))
_MOST_TEXT = 4096
"""Characters of a text; what is longer is no reading."""


class UndecodableError(ValueError):
    """What is there is not a value of the point's type."""


def read(point: MqttPoint, found: Any) -> Value:
    """The value before scaling. Raises UndecodableError."""
    if found is None or (point.invalid and found in point.invalid):
        raise UndecodableError("the device says that it has no value")
    value: Value = _READ[point.type](point, found)
    if not point.enum:
        return value
    word = point.enum.get(str(value))
    if word is None:
        raise UndecodableError(f"{value!r} is none of {', '.join(point.enum)}")
    return word


def sent(point: MqttPoint, value: Value) -> Any:
    """What to send for an engineering value, of a type that JSON has. Raises ValueError."""
    if value is None:
        raise ValueError("there is no value to write")
    if point.enum:
        key = next((key for key, word in point.enum.items() if word == value), None)
        if key is None:
            raise ValueError(f"{value!r} is none of {', '.join(point.enum.values())}")
        return int(key) if point.type == "integer" else key
    if point.type == "boolean":
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        return value if point.words is None else point.words[value]
    if point.type == "text":
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no text")
        return value
    return _sent_number(point, value)


def _sent_number(point: MqttPoint, value: Value) -> float | str:
    if isinstance(value, bool | str) or value is None or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    low, high = point.range or (-math.inf, math.inf)
    if not low <= value <= high:
        raise ValueError(f"{value:g} is outside the range {low:g} to {high:g}")
    raw: float = value
    if point.map is not None:
        share = (value - point.map.to[0]) / (point.map.to[1] - point.map.to[0])
        raw = point.map.raw[0] + share * (point.map.raw[1] - point.map.raw[0])
    elif (point.scale, point.offset) != (1.0, 0.0):
        raw = (value - point.offset) / point.scale
    rounded = raw if isinstance(raw, int) else float(f"{raw:.12g}")
    number = int(rounded) if float(rounded).is_integer() else rounded
    if point.type == "integer" and not isinstance(number, int):
        raise ValueError(f"{value:g} is no whole number there")
    return str(number) if point.type == "digits" else number


def _number(_point: MqttPoint, found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise UndecodableError(f"{_short(found)} is no number")
    if isinstance(found, int):
        if not _LEAST <= found <= _MOST:
            raise UndecodableError("the number has more than 64 bits")
    elif not math.isfinite(found):
        raise UndecodableError(f"{found} is no number")
    return found


def _integer(point: MqttPoint, found: Any) -> int:
    number = _number(point, found)
    if isinstance(number, float):
        if not number.is_integer():
            raise UndecodableError(f"{found} is no whole number")
        number = _number(point, int(number))
    return int(number)


def _boolean(point: MqttPoint, found: Any) -> bool:
    if point.words is not None:
        if found not in point.words:
            raise UndecodableError(f"{_short(found)} is neither {point.words[0]} nor {point.words[1]}")
        return bool(found == point.words[1])
    if not isinstance(found, bool):
        raise UndecodableError(f"{_short(found)} is neither true nor false")
    return found


def _text(_point: MqttPoint, found: Any) -> str:
    if not isinstance(found, str) or len(found) > _MOST_TEXT:
        raise UndecodableError(f"{_short(found)} is no text")
    return found


def _digits(point: MqttPoint, found: Any) -> float:
    if not isinstance(found, str):
        return _number(point, found)
    if _DIGITS.fullmatch(found.strip()) is None:
        raise UndecodableError(f"{_short(found)} is no number")
    text = found.strip().lstrip("+-")
    if text.isdecimal() and len(text) <= _DIGITS_OF_MOST:  # a double's 53 bits would not do for long counters
        whole = int(found)
        return whole if _LEAST <= whole <= _MOST else float(found)
    number = float(found)
    return int(number) if number.is_integer() and _LEAST <= number <= _MOST else _number(point, number)


def _short(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004  # a line of a log


_READ: dict[PointType, Callable[[MqttPoint, Any], Value]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "text": _text,
    "digits": _digits,
}
