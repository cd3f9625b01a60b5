"""From what a frame says to the value of a point: numbers, words, flags and units. Whatever is doubtful is no value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

PointType = Literal["number", "integer", "hex", "text", "boolean"]


class Measured(NamedTuple):
    """A value beside the unit that the telegram itself gives."""

    value: str | float | int
    unit: str


Raw = str | int | float | bool | Measured | None
"""What a decoder finds in a field. None: the field is there and has no value."""
Converted = bool | int | float | str | None

_NUMBER = re.compile(r"([+-]?)[ \t]*(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_INTEGER = re.compile(r"([+-]?)[ \t]*(\d{1,30})")
_HEX = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{1,16})")
_TRUE, _FALSE = frozenset({"1", "true", "on", "yes"}), frozenset({"0", "false", "off", "no"})
_MAX_DIGITS = 60
_LEAST, _MOST = -(2**63), 2**64 - 1
"""What is stored and sent as an integer has 64 bits."""


def number(text: str, decimal: str = ".") -> float | None:
    """The number that the whole text is, or None: an overload mark such as `OL` or `----` is none.

    There may be spaces around it and after its sign, as scales print it. With `decimal` a comma, dots are no digits.
    """
    text = text.strip()
    if decimal != ".":
        if "." in text:
            return None
        text = text.replace(decimal, ".")
    found = _NUMBER.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if found is None or not text.isascii():
        return None
    value = float(found[1] + found[2] + (found[3] or ""))
    return value if math.isfinite(value) else None


def integer(text: str) -> int | None:
    """The whole number that the text is, or None."""
    found = _INTEGER.fullmatch(text.strip())
    return int(found[1] + found[2]) if found and text.isascii() else None


@dataclass(frozen=True, slots=True)
class Conversion:
    """How the raw value of one point becomes its value."""

    type: PointType = "number"
    decimal: str = "."
    enum: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[int, str] = field(default_factory=dict)
    bits: tuple[int, int] | None = None
    invalid: frozenset[str] = frozenset()
    invalid_numbers: frozenset[float] = frozenset()
    unit: str = ""
    """The unit the value is wanted in; empty: as it comes."""

    def __call__(self, raw: Raw) -> Converted:
        """The value; None if there is none that can be trusted."""
        factor = 1.0
        if isinstance(raw, Measured):
            found = factor_between(raw.unit, self.unit) if self.unit else 1.0
            if found is None:
                return None
            raw, factor = raw.value, found
        if raw is None or (isinstance(raw, str) and raw.strip() in self.invalid):
            return None
        if self.enum:
            return self.enum.get(_word(raw))
        value = _CONVERT[self.type](raw, self.decimal)
        if value is None or isinstance(value, str | bool):
            return value
        if value in self.invalid_numbers:
            return None
        if self.bits or self.flags:
            return self._of_bits(value)
        if factor == 1.0:
            return value
        converted = _tidy(value * factor)
        return converted if math.isfinite(converted) else None

    def _of_bits(self, value: float) -> Converted:
        if not isinstance(value, int):
            if not value.is_integer():
                return None
            value = int(value)
        if value < 0:
            return None
        if self.bits is not None:
            low, high = self.bits
            value = (value >> low) & ((1 << (high - low + 1)) - 1)
            if low == high and not self.flags:
                return bool(value)
        return ",".join(word for bit, word in self.flags.items() if value >> bit & 1) if self.flags else value


def _word(raw: str | float) -> str:
    """What an enum looks up: text as it is, whole numbers without a point, true and false as in JSON."""
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, float) and raw.is_integer():
        return str(int(raw))
    return str(raw).strip()


def _as_number(raw: str | float, decimal: str) -> float | None:
    if isinstance(raw, str):
        return number(raw, decimal)
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int) and not _LEAST <= raw <= _MOST:
        try:
            return float(raw)
        except OverflowError:
            return None
    return raw if math.isfinite(raw) else None


def _as_integer(raw: str | float, _decimal: str) -> int | None:
    if isinstance(raw, bool) or (not isinstance(raw, str) and raw % 1):  # which is NaN of what is not finite
        return None
    found = integer(raw) if isinstance(raw, str) else int(raw)
    return found if found is not None and _LEAST <= found <= _MOST else None


def _as_hex(raw: str | float, _decimal: str) -> int | None:
    found = _HEX.fullmatch(raw.strip()) if isinstance(raw, str) else None
    return int(found[1], 16) if found else None


def _as_text(raw: str | float, _decimal: str) -> str:
    return raw.strip() if isinstance(raw, str) else _word(raw)


def _as_boolean(raw: str | float, _decimal: str) -> bool | None:
    word = _word(raw).lower()
    return True if word in _TRUE else False if word in _FALSE else None


_CONVERT: Mapping[str, Callable[[str | float, str], Converted]] = {
    "number": _as_number,
    "integer": _as_integer,
    "hex": _as_hex,
    "text": _as_text,
    "boolean": _as_boolean,
}

_PREFIXES = {"": 0, "k": 3, "M": 6, "G": 9, "m": -3, "µ": -6, "u": -6, "h": 2, "c": -2, "d": -1}
_BASES = (
    "varh",
    "VAh",
    "Wh",
    "var",
    "VA",
    "Ah",
    "V",
    "A",
    "W",
    "Hz",
    "J",
    "Pa",
    "bar",
    "m³/h",
    "m³",
    "l/h",
    "l",
    "g",
    "m",
    "s",
)
_PREFIXED = frozenset(
    {"varh", "VAh", "Wh", "var", "VA", "Ah", "V", "A", "W", "Hz", "J", "Pa", "bar", "g", "m", "s", "l", "l/h"}
)
_SPELLINGS = {
    "m3": "m³", "m^3": "m³", "m3/h": "m³/h", "m^3/h": "m³/h", "degC": "°C", "C": "°C", "deg": "°", "Celsius": "°C",
    "L": "l", "L/h": "l/h", "kvar": "kvar", "kVAr": "kvar", "kVArh": "kvarh", "min": "min",
}  # fmt: skip
_EQUAL = {"m³": ("l", 3), "m³/h": ("l/h", 3)}


def factor_between(given: str, wanted: str) -> float | None:
    """By what to multiply a value in one unit to have it in the other; None if the two do not measure the same.

    Knows the SI prefixes of the usual units, litres and cubic metres, and common spellings; otherwise units must be
    the same text.
    """
    given, wanted = (_SPELLINGS.get(unit.strip(), unit.strip()) for unit in (given, wanted))
    if given == wanted:
        return 1.0
    first, second = _power(given), _power(wanted)
    if first is None or second is None or first[0] != second[0]:
        return None
    return float(f"1e{first[1] - second[1]}")


def _power(unit: str) -> tuple[str, int] | None:
    for base in _BASES:
        prefix = unit.removesuffix(base)
        if unit.endswith(base) and prefix in _PREFIXES and (not prefix or base in _PREFIXED):
            same, power = _EQUAL.get(base, (base, 0))
            return same, power + _PREFIXES[prefix]
    return None


def _tidy(value: float) -> float:
    """Without the rounding error of a multiplication by a power of ten in its last digits."""
    return float(f"{value:.15g}")
