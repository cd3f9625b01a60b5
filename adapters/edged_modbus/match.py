"""Which registers show what the display of a device shows.

Pure. Given is what the display showed, once or several times, and the registers at those moments. A match is an
address, a type, a byte order and a scale (a power of ten) which give the displayed value, within the tolerance, every
time. Those that are left are ranked by how likely each is the right one, in bits:

- how well it fits in with the registers around it, of which something has to be made, too (`segments`);
- how usual its scale is;
- how closely it follows the display: half of the last digit is no error at all, more is ever less likely.

Readings that cannot be told apart, because no value was negative, are one match; `twin` names the other type.

A float whose upper register is right is nearly right whatever the lower one holds: one register further it reads the
lower half of its neighbour, and stays within a percent. Two values tell them apart, and then only the better one is
left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from .guess import KINDS, Kind, raw_value
from .planner import Table
from .segments import ORDERS, Cut

Image = Mapping[Table, Mapping[int, int]]
"""Registers by table and address."""

_SCALES: Mapping[int, float] = {0: 1.0, -1: 1.0, -2: 1.5, -3: 2.0, 1: 4.0, 2: 5.0, 3: 5.0, -4: 6.0}
"""Exponents of the scales of integers, and how unusual each is, in bits."""
_FLOAT_SCALES: Mapping[int, float] = {0: 0.0, -3: 4.0, 3: 4.0}
_WINDOW = 128
"""How many registers on either side tell how a device is built."""
_DRIFT = 0.0005
"""The share of the value by which it may well have moved between display and reading."""
_MOST_TOLERANCE = 0.2
_SHADOW = 4.0
"""So many bits less likely than the float with the same upper register, and it is only that one's shadow. Of 600 random
devices the right float never was less likely than its shadow at all."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the display showed, and the registers at that moment."""

    value: float
    digit: float
    """What the last digit shown is worth."""
    tolerance: float
    """How far a reading may be off; at least one digit of the display, as both it and the register are rounded."""
    image: Image

    @classmethod
    def parse(cls, text: str, tolerance: float, image: Image) -> Shown:
        """From `230.4` as it was typed and a tolerance of 0 to 0.2 of the value. Raises ValueError."""
        try:
            number = Decimal(text.strip().replace(",", "."))
        except InvalidOperation:
            raise ValueError(f"{text!r} is not a number: write it as the display shows it, such as 230.4") from None
        if not number.is_finite() or not number or not 1e-30 < abs(number) < 1e30:  # noqa: PLR2004  # no display is that long
            raise ValueError(f"{text!r} fits every empty register: wait until the display shows something else")
        if not 0 <= tolerance <= _MOST_TOLERANCE:
            raise ValueError("the tolerance must lie between 0% and 20%")
        digit = float(10 ** Decimal(int(number.as_tuple().exponent)))
        return cls(float(number), digit, max(tolerance * abs(float(number)), digit * (1 + 1e-9)), image)


@dataclass(frozen=True, slots=True)
class Match:
    """One way to read the displayed value out of the registers."""

    table: Table
    address: int
    kind: Kind
    exponent: int
    values: tuple[float, ...]
    """What it gives for each display."""
    likely: float = 0.0
    """How likely it is the right one, in bits; only the differences mean anything."""
    twin: str = ""
    """A type that would give the same."""

    @property
    def scale(self) -> float:
        """What the raw number is multiplied by."""
        return _power(self.exponent)


def search(shown: Sequence[Shown]) -> list[Match]:
    """All matches, the likeliest first."""
    first = min(shown, key=_size)
    found = [
        match
        for table, words in first.image.items()
        if not table.is_bits
        for address in words
        for kind in KINDS
        for match in _candidates(table, address, kind, first, shown)
    ]
    cuts = _Cuts(max(shown, key=_size).image)
    ranked = [replace(match, likely=_likely(match, shown, cuts)) for match in _without_twins(found)]
    if any(len(set(match.values)) > 1 for match in ranked):  # several looks, and something has moved meanwhile
        ranked = _without_shadows(ranked)
    return sorted(ranked, key=lambda match: -match.likely)


def _size(shown: Shown) -> int:
    return sum(map(len, shown.image.values()))


def _candidates(table: Table, address: int, kind: Kind, first: Shown, shown: Sequence[Shown]) -> Iterator[Match]:
    raw = _read(first.image, table, address, kind)
    if not raw:
        return
    ratio = first.value / raw
    if ratio <= 0 or not math.isfinite(ratio):
        return
    exponent = round(math.log10(ratio))
    if exponent not in (_FLOAT_SCALES if kind.is_float else _SCALES):
        return
    raws = [_read(one.image, table, address, kind) for one in shown]
    values = tuple(raw * _power(exponent) for raw in raws if raw is not None)
    close = len(values) == len(shown) and all(
        abs(value - one.value) <= one.tolerance for value, one in zip(values, shown, strict=True)
    )
    if close:
        yield Match(table, address, kind, exponent, values)


def _power(exponent: int) -> float:
    return float(f"1e{exponent}")


def _read(image: Image, table: Table, address: int, kind: Kind) -> int | float | None:
    words = _words(image, table, address, kind)
    return None if words is None else raw_value(kind, words)


def _words(image: Image, table: Table, address: int, kind: Kind) -> list[int] | None:
    there = image.get(table, {})
    words = [there.get(address + i) for i in range(kind.registers)]
    held = [word for word in words if word is not None]
    return held if len(held) == kind.registers else None


# -- ranking ----------------------------------------------------------------------------------------------------------


class _Cuts:
    """The cuts of the registers around the matches, made once for each stretch of them."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._made: dict[tuple[Table, int, int], dict[str, Cut]] = {}

    def unlikely(self, match: Match) -> float:
        """How many bits it takes more than the best, to have this value there."""
        there, at = self._image[match.table], match.address
        start, end = _stretch(there, at, at + match.kind.registers)
        key = match.table, start, end
        cuts = self._made.get(key)
        if cuts is None:
            words = [there[one] for one in range(start, end)]
            cuts = self._made[key] = {order: Cut(words, order) for order in ORDERS}
        best = min(cut.bits for cut in cuts.values())
        fitting = [cut for order, cut in cuts.items() if match.kind.registers == 1 or order == match.kind.order]
        return min(cut.with_value(at - start, match.kind) for cut in fitting) - best


def _stretch(there: Mapping[int, int], first: int, end: int) -> tuple[int, int]:
    """The registers without a hole around a value, cut off where they no longer matter; the first, and the end."""
    start = first
    while start - 1 in there and (first - start < _WINDOW or start % _WINDOW):
        start -= 1
    while end in there and (end - first < _WINDOW or end % _WINDOW):
        end += 1
    return start, end


def _likely(match: Match, shown: Sequence[Shown], cuts: _Cuts) -> float:
    usual = (_FLOAT_SCALES if match.kind.is_float else _SCALES)[match.exponent]
    off = sum(_off(match, value, one) for value, one in zip(match.values, shown, strict=True))
    return -cuts.unlikely(match) - usual - off


def _off(match: Match, value: float, one: Shown) -> float:
    """How unlikely it is that the display is so far from the reading, bits; with a wide tail, for values that move."""
    excess = max(abs(value - one.value) - 0.5 * one.digit, 0.0)
    usual = _DRIFT * abs(one.value) + (0.0 if match.kind.is_float else 0.25 * match.scale)
    return math.log2(1 + (excess / usual) ** 2)


def _twin(kind: Kind) -> Kind | None:
    if kind.type.startswith("uint"):
        return Kind(kind.type[1:], kind.order)
    return Kind(f"u{kind.type}", kind.order) if kind.type.startswith("int") else None


def _without_twins(found: Sequence[Match]) -> list[Match]:
    """Signed and unsigned readings that never differed are one: the unsigned, which names the other."""
    there = {(match.table, match.address, match.kind, match.exponent) for match in found}
    kept = []
    for match in found:
        twin = _twin(match.kind)
        same = twin is not None and (match.table, match.address, twin, match.exponent) in there
        if not same:
            kept.append(match)
        elif twin is not None and match.kind.type.startswith("uint"):
            kept.append(replace(match, twin=twin.type))
    return kept


def _without_shadows(found: Sequence[Match]) -> list[Match]:
    """Without floats that share their upper register with a far likelier one."""
    best: dict[tuple[Table, int, bool], float] = {}
    for match in found:
        upper = _upper(match)
        if upper is not None:
            best[upper] = max(best.get(upper, match.likely), match.likely)
    return [match for match in found if (upper := _upper(match)) is None or match.likely > best[upper] - _SHADOW]


def _upper(match: Match) -> tuple[Table, int, bool] | None:
    """Where the sign, the exponent and the first digits of a float lie, and whether its bytes are exchanged there."""
    if not match.kind.is_float:
        return None
    first = match.kind.order in {"ABCD", "BADC"}
    at = match.address if first else match.address + match.kind.registers - 1
    return match.table, at, match.kind.order in {"BADC", "DCBA"}
