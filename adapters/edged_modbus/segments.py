"""Where one value ends and the next begins, in registers that nobody has described.

Pure. A run of registers is cut into values such that writing all of them down takes the fewest bits (minimum
description length): small numbers are cheaper than large ones, a plausible float is cheaper than the two odd integers
it would otherwise be, and what a device has many of is cheaper than what it has few of. The order of the bytes is the
same for all values of a run. What a particular cut would cost more than the best one tells how unlikely it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from .guess import Kind, plausible, raw_value

ORDERS: Mapping[str, float] = {"ABCD": 0.0, "CDAB": 1.0, "DCBA": 4.0, "BADC": 5.0}
"""The orders that a whole device has, and how unusual each is, bits."""
_SHORT, _ZERO, _FILLER, _LONG, _FLOAT, _LONG64, _DOUBLE = range(7)
_SIZES = (1, 1, 1, 2, 2, 4, 4)
_BEFORE = (3.0, 1.5, 0.3, 2.0, 2.5, 0.1, 0.3)
"""How often each kind of value is met, before anything is known of the device."""
_STYLES = (_BEFORE, (6.0, 3.0, 0.3, 0.1, 0.1, 0.1, 0.1))
"""What to begin with: some of each, or single registers with some unused ones between them."""
_ROUNDS = 3
_TYPES = {"float32": _FLOAT, "float64": _DOUBLE, "uint32": _LONG, "int32": _LONG, "uint64": _LONG64, "int64": _LONG64}
_EXPONENT_BITS = {16: 4.0, 32: 5.0, 64: 6.0}
_RARE = 7.0
"""What BCD, and exchanged bytes of a single register, cost more than what is usual, bits."""
_UNLIKELY = 6.0
_UNUSED = 0.7
"""What a 0 on its own costs: more often it is the upper half of something longer, bits."""


class Cut:
    """The best cut of one run of registers in one order."""

    def __init__(self, words: Sequence[int], order: str) -> None:
        self._words, self._order = words, order
        self._values = [self._costs_at(at) for at in range(len(words))]
        self._kinds = min((self._learn(style) for style in _STYLES), key=self._taken)
        self._ahead = self._best(forward=True)
        self._behind = self._best(forward=False)
        self.bits = ORDERS[order] + self._ahead[-1]
        """What the best cut takes."""

    def with_value(self, at: int, kind: Kind) -> float:
        """What the best cut takes that has a value of this kind there, bits."""
        words = self._words[at : at + kind.registers]
        own = self._kinds[_TYPES.get(kind.type, _SHORT)] + _value_bits(kind, words)
        if kind.order == "BA" or kind.type.startswith("bcd"):
            own += _RARE
        return ORDERS[self._order] + self._ahead[at] + own + self._behind[at + kind.registers]

    def _learn(self, weights: Sequence[float]) -> list[float]:
        """How many bits it takes to say of which kind a value is: few for what there is much of."""
        for _ in range(_ROUNDS):
            self._kinds = _bits(weights)
            self._ahead = self._best(forward=True)
            counts = self._count()
            weights = [before + counts[kind] for kind, before in enumerate(_BEFORE)]
        return _bits(weights)

    def _taken(self, kinds: list[float]) -> float:
        self._kinds = kinds
        return self._best(forward=True)[-1]

    def _costs_at(self, at: int) -> list[tuple[int, float]]:
        """What can begin here, and what it takes apart from its kind."""
        word = self._words[at]
        short = Kind("uint16", "AB"), Kind("int16", "AB")
        found = [(_SHORT, min(_value_bits(kind, [word]) for kind in short))]
        if word == 0:
            found.append((_ZERO, _UNUSED))
        if word == 0xFFFF:  # noqa: PLR2004  # what unused registers often hold
            found.append((_FILLER, 0.0))
        for type_, number in _TYPES.items():
            kind = Kind(type_, self._order)
            words = self._words[at : at + kind.registers]
            if len(words) == kind.registers:
                found.append((number, _value_bits(kind, words)))
        return found

    def _best(self, *, forward: bool) -> list[float]:
        """The least bits from the beginning up to each place, or from each place to the end."""
        count = len(self._words)
        best = [math.inf] * (count + 1)
        best[0 if forward else count] = 0.0
        for at in range(count) if forward else range(count - 1, -1, -1):
            for kind, bits in self._values[at]:
                end = at + _SIZES[kind]
                here, there = (end, at) if forward else (at, end)
                best[here] = min(best[here], best[there] + self._kinds[kind] + bits)
        return best

    def _count(self) -> Counter[int]:
        """How many values of each kind the best cut has."""
        back: dict[int, tuple[int, float]] = {}
        for at, values in enumerate(self._values):
            for kind, bits in values:
                end, cost = at + _SIZES[kind], self._ahead[at] + self._kinds[kind] + bits
                if end not in back or cost < back[end][1]:
                    back[end] = kind, cost
        counts: Counter[int] = Counter()
        at = len(self._words)
        while at:
            kind = back[at][0]
            counts[kind] += 1
            at -= _SIZES[kind]
        return counts


def _bits(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    return [-math.log2(weight / total) for weight in weights]


def _value_bits(kind: Kind, words: Sequence[int]) -> float:
    """How many bits it takes to write down this value of a kind, if small ones are the commonest."""
    value = raw_value(kind, words)
    bits = 16 * kind.registers
    if value is None:
        return 2.0 * bits
    if kind.is_float:
        return 3.0 if value == 0 else bits - (3.0 if plausible(kind, words, value) else -_UNLIKELY)
    if value == 0:
        return 3.0
    negative = 1.5 if value < 0 else 0.0
    return _EXPONENT_BITS[bits] + math.log2(abs(value)) + negative
