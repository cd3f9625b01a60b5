"""What some registers could mean: every type and byte order, and which of these readings are plausible.

Pure. Plausible means: what a measuring device would have there. It is a hint for a person, and one of several grounds
on which `match` ranks; nothing is ever left out because of it.

- Integers: not a filler (0xFFFF, 0x8000, 0x7FFF and so on), not 0 except in a single register; of several registers the
  uppermost byte at least is only the sign. Signed where that gives a small negative number, unsigned otherwise.
- Floats: finite, and 0.001 to 10,000,000 in magnitude. Integers read as floats are mostly far smaller.
- BCD: all digits decimal, and more than one of them used.
- The exchanged bytes of a single register: only where the straight ones give a far larger number.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from .layout import CODES
from .point import WIDTHS

SCALES = (1.0, 0.1, 0.01, 0.001)
"""The scales that devices commonly use for integers."""
_SMALLEST, _LARGEST = 1e-3, 1e7
_SMALL_NEGATIVE = -10_000
_FLIPPED = 10_000
"""A single register above it may have its bytes exchanged, if that gives less."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type and a byte order."""

    type: str
    order: str

    @property
    def registers(self) -> int:
        """How many it takes."""
        return WIDTHS[self.type] // 16

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point number."""
        return self.type.startswith("float")

    @property
    def usual_order(self) -> bool:
        """Whether the most significant byte comes first, so that the order need not be written."""
        return self.order in {"AB", "ABCD"}


_LONG = ("ABCD", "CDAB", "BADC", "DCBA")
KINDS = (
    *(Kind(type_, order) for type_ in ("uint16", "int16") for order in ("AB", "BA")),
    *(Kind(type_, order) for type_ in ("float32", "uint32", "int32", "float64", "uint64", "int64") for order in _LONG),
    Kind("bcd16", "AB"),
    *(Kind("bcd32", order) for order in ("ABCD", "CDAB")),
)
"""What is tried."""


@dataclass(frozen=True, slots=True)
class Guess:
    """One way to read a value that begins at an address."""

    address: int
    kind: Kind
    value: int | float
    plausible: bool


def raw_value(kind: Kind, words: Sequence[int]) -> int | float | None:
    """What these registers are as this kind, unscaled; None if nothing (BCD digits above 9, not a number)."""
    data = struct.pack(f">{len(words)}H", *words)
    (raw,) = _struct(kind.type).unpack(bytes([data[place] for place in _places(kind.order, len(data))]))
    if kind.is_float:
        return raw if math.isfinite(raw) else None
    if not kind.type.startswith("bcd"):
        return int(raw)
    digits = f"{raw:x}"
    return int(digits) if digits.isdecimal() else None


def guesses(words: Mapping[int, int], address: int) -> list[Guess]:
    """Every reading of a value that begins at `address`, the plausible ones first. `words` by address.

    A signed reading only where it is not the same as the unsigned one.
    """
    found = []
    for kind in KINDS:
        mine = [words.get(address + i) for i in range(kind.registers)]
        held = [word for word in mine if word is not None]
        value = raw_value(kind, held) if len(held) == kind.registers else None
        if value is not None and not (kind.type.startswith("int") and value >= 0):
            found.append(Guess(address, kind, value, plausible(kind, held, value)))
    return sorted(found, key=lambda guess: not guess.plausible)


def plausible(kind: Kind, words: Sequence[int], value: float) -> bool:
    """Whether a measuring device would have these words for a value of this kind (see above)."""
    if kind.is_float:
        return _SMALLEST <= abs(value) <= _LARGEST
    if kind.type.startswith("bcd"):
        return value > 9  # noqa: PLR2004  # more than one digit
    if kind.registers == 1:
        return _plausible_short(kind, words[0], value)
    bits = 16 * kind.registers
    if value in {0, -1, (1 << bits) - 1, (1 << bits - 1) - 1, -(1 << bits - 1), 1 << bits - 1}:
        return False
    limit = 1 << bits - 8
    return -limit <= value < 0 if kind.type.startswith("int") else value < min(limit, 10**12)


def text(words: Sequence[int]) -> str:
    """The registers as ASCII, a dot for what cannot be printed."""
    data = struct.pack(f">{len(words)}H", *words)
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)  # noqa: PLR2004  # printable ASCII


def _plausible_short(kind: Kind, word: int, value: float) -> bool:
    if word in {0xFFFF, 0x8000, 0x7FFF}:
        return False
    if kind.order == "BA":
        straight = word - 0x10000 if kind.type == "int16" and word >= 0x8000 else word  # noqa: PLR2004  # the sign
        if not (abs(straight) > _FLIPPED and 0 < abs(value) <= _FLIPPED):
            return False
    if kind.type == "int16":
        return _SMALL_NEGATIVE <= value < 0
    return value < 0x10000 + _SMALL_NEGATIVE


@cache
def _struct(type_: str) -> struct.Struct:
    return struct.Struct(">" + CODES[type_])


@cache
def _places(order: str, size: int) -> tuple[int, ...]:
    """Which byte of the registers is the first, second, ... of the value."""
    straight = range(size)
    if order in {"AB", "ABCD"}:
        return tuple(straight)
    if order in {"BA", "DCBA"}:
        return tuple(reversed(straight))
    if order == "BADC":
        return tuple(place ^ 1 for place in straight)
    return tuple(place ^ 1 for place in reversed(straight))
