"""Which type of device answers here: a profile's `fingerprint`, a few registers that only this type has like that.

    fingerprint:
      - {holding: 64512, type: uint32, equals: 70}             # a model number; a list means any of them
      - {input: 70, type: float32, range: [45, 65]}            # 50 or 60 Hz
      - {holding: 40000, type: string, length: 2, regex: SunS}

A clause says where and of which type as a point does (also `order`, `length`, `scale`, `offset`, ...; the `order` of
the profile's `device` holds here too), and what must be there: exactly one of `equals`, `range` (both ends included)
and `regex` (the whole text). All clauses must hold. Pure: the registers come from outside.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from edged.adapter import Value

from .codec import compile_decoder
from .planner import Block, Span
from .point import DataType, Encoding, ModbusPoint, Order, Trim

_TESTS = ("equals", "range", "regex")
_NOT_HERE = frozenset(
    {"unit", "description", "every", "deadband", "heartbeat", "writable", "range", "enum", "flags", "invalid"}
)
_PLACE_KEYS = frozenset(field.name for field in dataclasses.fields(ModbusPoint)) - _NOT_HERE
_WORDS = {"type": DataType, "order": Order, "encoding": Encoding, "trim": Trim}
_FLOAT_RANGE_BITS = 12.0
"""How much a float within a range tells; hardly any other content of two registers looks like one."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One register, or value of several, and what it must be."""

    point: ModbusPoint
    equals: tuple[Value, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    regex: str = ""

    @property
    def span(self) -> Span:
        """What to read for it."""
        return self.point.span

    @property
    def bits(self) -> float:
        """How much it tells: about how many bits of chance would have to fall right for it to hold elsewhere."""
        width = 1.0 if self.point.table.is_bits else float(self.point.width)
        if self.equals:
            return max(width - math.log2(len(self.equals)), 0.0)
        if self.regex:
            return 16.0 * self.point.count
        if self.point.data_type.startswith("float"):
            return _FLOAT_RANGE_BITS
        steps = (self.high - self.low) / abs(self.point.scale) + 1
        return max(width - math.log2(steps), 0.0)

    def holds(self, words: Sequence[int]) -> bool:
        """Whether these registers of its span fit."""
        value = decoded(self.point, words)
        if value is None:
            return False
        if self.regex:
            return isinstance(value, str) and re.fullmatch(self.regex, value) is not None
        if self.equals:
            return any(_same(value, wanted) for wanted in self.equals)
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies one type of device: it is one if every clause holds."""

    clauses: tuple[Clause, ...]

    @property
    def bits(self) -> float:
        """How much it tells, to rank the profiles that fit."""
        return sum(clause.bits for clause in self.clauses)


def parse(clauses: object, order: str | None = None) -> Fingerprint:
    """A profile's `fingerprint`, as plain data; `order` is that of its `device`. Raises ValueError."""
    if not isinstance(clauses, Sequence) or isinstance(clauses, str) or not clauses:
        raise ValueError("`fingerprint` must be a list such as `[{holding: 0, type: uint16, equals: 70}]`")
    return Fingerprint(tuple(_clause(number, one, order) for number, one in enumerate(clauses, 1)))


def decoded(point: ModbusPoint, words: Sequence[int]) -> Value:
    """The scaled value of one point from the registers of its span; None if they hold none."""
    decoder = compile_decoder(Block(point.table, point.start, point.count, ("p",)), {"p": point})
    (value,), quality = (
        decoder.decode_bits([*map(bool, words)]) if point.table.is_bits else decoder.decode_registers(words)
    )
    if quality or value is None:
        return None
    if isinstance(value, bool | str) or (point.scale == 1 and point.offset == 0):
        return value
    return value * point.scale + point.offset


def _clause(number: int, written: object, order: str | None) -> Clause:
    try:
        if not isinstance(written, Mapping):
            raise ValueError("must be a mapping such as `{holding: 0, equals: 70}`")  # noqa: TRY004  # callers handle ValueError; the place is added below
        return _from_mapping(written, order)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"clause {number} of `fingerprint`: {exc}") from exc


def _from_mapping(written: Mapping[str, Any], order: str | None) -> Clause:
    tests = [key for key in _TESTS if key in written]
    place = {key: value for key, value in written.items() if key not in _TESTS}
    if unknown := sorted(set(place) - _PLACE_KEYS):
        hint = get_close_matches(unknown[0], [*_TESTS, *_PLACE_KEYS], 1)
        raise ValueError(f"unknown key `{unknown[0]}`" + (f"; did you mean `{hint[0]}`?" if hint else ""))
    if len(tests) != 1:
        raise ValueError("say what must be there: exactly one of `equals`, `range` and `regex`")
    for key in _WORDS.keys() & place.keys():
        if place[key] not in get_args(_WORDS[key]):
            raise ValueError(f"`{key}: {place[key]}`: it is one of {', '.join(get_args(_WORDS[key]))}")
    point = ModbusPoint(**place)
    if order is not None and point.order is None and point.data_type != "string" and point.width in {32, 64}:
        point = dataclasses.replace(point, order=order)  # type: ignore[arg-type]  # the device's own setting, checked there
    return _with_test(point, tests[0], written[tests[0]])


def _with_test(point: ModbusPoint, test: str, wanted: Any) -> Clause:
    is_text = point.data_type == "string"
    if test == "equals":
        values = tuple(wanted) if isinstance(wanted, list | tuple) else (wanted,)
        if not values or any(isinstance(value, str) != is_text for value in values):
            raise ValueError("`equals` needs a value of the point's type, or a list of them")
        return Clause(point, equals=values)
    if test == "regex":
        if not is_text or not isinstance(wanted, str) or not wanted:
            raise ValueError("`regex` is a text, and for `type: string`")
        try:
            re.compile(wanted)
        except re.error as exc:
            raise ValueError(f"`regex: {wanted}` is not a regular expression: {exc}") from exc
        return Clause(point, regex=wanted)
    numbers = isinstance(wanted, list | tuple) and [one for one in wanted if type(one) in {int, float}]
    if is_text or not numbers or len(numbers) != 2 or len(wanted) != 2 or not numbers[0] <= numbers[1]:  # noqa: PLR2004  # lowest and highest
        raise ValueError("`range` is for numbers: the lowest and the highest, such as `[45, 65]`")
    return Clause(point, low=float(numbers[0]), high=float(numbers[1]))


def _same(value: Value, wanted: Value) -> bool:
    if isinstance(value, str) or isinstance(wanted, str):
        return value == wanted
    return value is not None and wanted is not None and math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-9)
