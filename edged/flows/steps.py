"""The steps of a flow, each a function from samples to samples. Pure.

Policy: a condition that needs a bad or missing value is not true. One that cannot be worked out (a division by zero) is
not true either, and counts as an error. An added value that cannot be worked out is bad, and counts as an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from edged.config.flows import AggregateConfig, MapConfig, StepConfig
from edged.flows.expression import EvaluationError, Expression, UnknownError
from edged.flows.match import DeviceInfo, pattern
from edged.flows.units import linear
from edged.model import ALL_GOOD, GOOD, Quality, Sample, Value, bad

EXPRESSION = "expression"
"""The reason of a bad value that an expression could not yield."""
UNIT = "unit"
"""The reason of a bad value whose unit cannot be converted."""
ABSENT = "absent"
"""The reason of a bad value of which an input is missing."""


PARTIAL = Quality("uncertain", "partial")
"""The quality of what is worked out of a part of an interval: another row of it follows."""
LATE = Quality("uncertain", "late")
"""The quality of what is worked out of readings of an interval of which a row has been sent before."""
_EVER = 2**63


@dataclass(frozen=True, slots=True)
class Cut:
    """Which intervals some samples are not the whole of, by when they begin, microseconds."""

    late_before: int = -_EVER
    """Of intervals that begin before it a row has been sent already."""
    sent: frozenset[int] = frozenset()
    """And of those that begin at these times."""
    partial_from: int = _EVER
    """Of intervals that begin then or later more is to come."""

    def quality(self, begin: int) -> Quality | None:
        """What is to be said of a row; None if it is all of its interval."""
        return (
            LATE if begin < self.late_before or begin in self.sent else PARTIAL if begin >= self.partial_from else None
        )


class Made(str):
    """The name of a point that a step has added: none of the readings put in."""

    __slots__ = ()


def _named(point: str, name: str) -> str:
    return Made(name) if isinstance(point, Made) else name


@dataclass(slots=True)
class Errors:
    """What went wrong in a flow."""

    count: int = 0
    last: str = ""
    tell: Callable[[str], None] = field(default=lambda _: None, repr=False)
    """Is told the first of them, and no other."""

    def add(self, error: Exception) -> None:
        """Count it."""
        self.count += 1
        self.last = str(error)
        if self.count == 1:
            self.tell(self.last)


Look = Callable[[str], DeviceInfo]


class Step(Protocol):
    """One step of a flow."""

    interval: int
    """Microseconds of its interval; 0 if it has none."""

    def apply(self, samples: Sequence[Sample], cut: Cut) -> list[Sample]:
        """What comes out. `cut`: which intervals the samples are not the whole of."""
        ...


def build(config: StepConfig, look: Look, errors: Errors) -> Step:
    """The step that a configuration describes."""
    condition = Condition(config.when, look, errors) if config.when else None
    if config.filter:
        return _Filter(Condition(config.filter, look, errors), condition)
    if config.map is not None:
        return _Map(config.map, condition, look, errors)
    interval = round(config.interval * 1e6)
    return _Windows(interval, config.aggregate, condition)


class Condition:
    """An expression that is true or not of a sample."""

    def __init__(self, text: str, look: Look, errors: Errors) -> None:
        self.expression = Expression(text)
        self._look = look
        self._errors = errors

    def holds(self, sample: Sample, more: Mapping[str, Value] | None = None) -> bool:
        """Whether it is true; with `more` names than those of the sample."""
        names = names_of(sample)
        return self._true(sample, {**names, **more} if more else names)

    def readings(self, sample: Sample) -> list[int]:
        """The readings of which it is true, by index."""
        names = names_of(sample)
        return [
            i
            for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True))
            if self._true(
                sample, {**names, "value": value, "point": point, "quality": sample.quality.get(i, GOOD).status}
            )
        ]

    def _true(self, sample: Sample, names: Mapping[str, Value]) -> bool:
        try:
            return bool(self.expression.value(names, lambda name: self._look(sample.device).labels.get(name, "")))
        except UnknownError:
            return False
        except EvaluationError as exc:
            self._errors.add(exc)
            return False


def names_of(sample: Sample) -> dict[str, Value]:
    """The names that an expression can use: bad values are left out."""
    names: dict[str, Value] = {"device": sample.device, "time": sample.time / 1e6}
    names.update(zip(sample.points, sample.values, strict=True))
    for i, quality in sample.quality.items():
        if quality.status == "bad":
            names[sample.points[i]] = None
    return names


def select(sample: Sample, columns: Sequence[int]) -> Sample:
    """Only these of its readings."""
    if len(columns) == len(sample.points):
        return sample
    quality = {new: sample.quality[old] for new, old in enumerate(columns) if old in sample.quality}
    return replace(
        sample,
        points=tuple(sample.points[i] for i in columns),
        values=[sample.values[i] for i in columns],
        quality=quality or ALL_GOOD,
    )


class _Filter:
    interval = 0

    def __init__(self, condition: Condition, when: Condition | None) -> None:
        self._condition = condition
        self._when = when

    def apply(self, samples: Sequence[Sample], _cut: Cut) -> list[Sample]:
        """Those, or those readings, for which the condition is true."""
        kept = []
        for sample in samples:
            if self._when is not None and not self._when.holds(sample):
                kept.append(sample)
            elif not self._condition.expression.per_reading:
                if self._condition.holds(sample):
                    kept.append(sample)
            elif columns := self._condition.readings(sample):
                kept.append(select(sample, columns))
        return kept


class _Map:
    interval = 0

    def __init__(self, config: MapConfig, when: Condition | None, look: Look, errors: Errors) -> None:
        self._config = config
        self._when = when
        self._look = look
        self._errors = errors
        self._keep = [pattern(one) for one in config.keep]
        self._drop = [pattern(one) for one in config.drop]
        self._add = {point: Expression(text) for point, text in config.add.items()}
        self._lines: dict[tuple[str, str, str], tuple[float, float] | None] = {}

    def apply(self, samples: Sequence[Sample], _cut: Cut) -> list[Sample]:
        """The samples with other points and values."""
        done = []
        for sample in samples:
            if self._when is not None and not self._when.holds(sample):
                done.append(sample)
                continue
            changed = self._changed(sample)
            if changed.points:
                done.append(changed)
        return done

    def _changed(self, sample: Sample) -> Sample:
        sample = select(sample, [i for i, point in enumerate(sample.points) if self._stays(point)])
        values, quality = list(sample.values), dict(sample.quality)
        for i, point in enumerate(sample.points):
            line = self._line(sample.device, point)
            if line is None:
                values[i], quality[i] = None, bad(UNIT)
            elif line != (1.0, 0.0) and values[i] is not None:
                value = values[i]
                if isinstance(value, bool) or not isinstance(value, int | float):
                    values[i], quality[i] = None, bad(UNIT)
                    self._errors.add(ValueError(f"{sample.device}/{point} is no number"))
                else:
                    values[i] = value * line[0] + line[1]
        sample = replace(sample, values=values, quality=quality or ALL_GOOD)
        return self._renamed(self._added(sample))

    def _stays(self, point: str) -> bool:
        return (not self._keep or any(one(point) for one in self._keep)) and not any(one(point) for one in self._drop)

    def _line(self, device: str, point: str) -> tuple[float, float] | None:
        """What a value is multiplied with and what is added; None if its unit is not known."""
        own = self._look(device).units.get(point, "")
        key = device, point, own
        if key not in self._lines:
            factor, unit = self._config.scale.get(point, 1.0), self._config.convert.get(point)
            self._lines[key] = (factor, 0.0)
            if unit is not None:
                source, arrow, target = (part.strip() for part in unit.partition("->"))
                try:
                    a, b = linear(source, target) if arrow else linear(own, unit)
                    self._lines[key] = (a * factor, b * factor)
                except ValueError as exc:
                    self._lines[key] = None
                    self._errors.add(exc)
        return self._lines[key]

    def _added(self, sample: Sample) -> Sample:
        if not self._add:
            return sample
        names = names_of(sample)
        points, values, quality = list(sample.points), list(sample.values), dict(sample.quality)
        for point, expression in self._add.items():
            value, how = self._value(sample, expression, names)
            if point in points:
                at = points.index(point)
                values[at] = value
                quality.pop(at, None)
            else:
                at = len(points)
                points.append(Made(point))
                values.append(value)
            if how is not None:
                quality[at] = how
            names[point] = value
        return replace(sample, points=tuple(points), values=values, quality=quality or ALL_GOOD)

    def _value(
        self, sample: Sample, expression: Expression, names: Mapping[str, Value]
    ) -> tuple[Value, Quality | None]:
        try:
            value = expression.value(names, lambda name: self._look(sample.device).labels.get(name, ""))
        except UnknownError:
            return None, bad(ABSENT)
        except EvaluationError as exc:
            self._errors.add(exc)
            return None, bad(EXPRESSION)
        inputs = (
            sample.quality[i]
            for i, point in enumerate(sample.points)
            if point in expression.points and i in sample.quality
        )
        return value, next((one for one in inputs if one.status == "uncertain"), None)

    def _renamed(self, sample: Sample) -> Sample:
        names = self._config.rename
        if not names:
            return sample
        gone = {new for old, new in names.items() if old in sample.points and new != old}
        kept = [i for i, point in enumerate(sample.points) if point not in gone or point in names]
        sample = select(sample, kept)
        return replace(sample, points=tuple(_named(point, names.get(point, point)) for point in sample.points))


@dataclass(slots=True)
class _Column:
    """One point within one interval."""

    numbers: int = 0
    low: float | None = None
    high: float | None = None
    total: float = 0.0
    last: Value = None
    last_time: int = -(2**63)
    count: int = 0
    quality: Quality | None = None
    """The first that was not good, of those that count."""
    worst: Quality = field(default_factory=lambda: bad(ABSENT))
    """The last bad one."""

    def take(self, time: int, value: Value, quality: Quality) -> None:
        if quality.status == "bad" or value is None:
            self.worst = quality if quality.status == "bad" else self.worst
            return
        self.count += 1
        if time >= self.last_time:
            self.last, self.last_time = value, time
        if quality.status == "uncertain" and self.quality is None:
            self.quality = quality
        if isinstance(value, bool | str):
            return
        self.numbers += 1
        self.total += value
        self.low = value if self.low is None else min(self.low, value)
        self.high = value if self.high is None else max(self.high, value)

    def result(self, function: str) -> Value:
        match function:
            case "count":
                return self.count
            case "last":
                return self.last
            case "min":
                return self.low
            case "max":
                return self.high
        return self.total / self.numbers if self.numbers else None


class _Windows:
    """One sample per device and interval: the first, or one worked out of all."""

    def __init__(self, interval: int, config: AggregateConfig | None, when: Condition | None) -> None:
        self.interval = interval
        self._functions = () if config is None else tuple(dict.fromkeys([*config.functions, "count"]))
        self._when = when

    def apply(self, samples: Sequence[Sample], cut: Cut) -> list[Sample]:
        """In the order of intervals and devices in which the first sample of each came."""
        windows: dict[tuple[object, ...], list[Sample]] = {}
        for i, sample in enumerate(samples):
            passes = self._when is not None and not self._when.holds(sample)
            shape = () if self._functions else sample.points
            key = (i,) if passes else (sample.time // self.interval, sample.device, shape)
            windows.setdefault(key, []).append(sample)
        return [
            some[0] if len(key) == 1 or not self._functions else self._one(some, cut) for key, some in windows.items()
        ]

    def _one(self, samples: Iterable[Sample], cut: Cut) -> Sample:
        columns: dict[str, _Column] = {}
        first: Sample | None = None
        for sample in samples:
            first = first or sample
            for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True)):
                columns.setdefault(point, _Column()).take(sample.time, value, sample.quality.get(i, GOOD))
        if first is None:
            raise ValueError("an interval without samples")
        begin = first.time // self.interval * self.interval
        points: list[str] = []
        values: list[Value] = []
        quality: dict[int, Quality] = {}
        for point, column in columns.items():
            for function in self._functions:
                value = column.result(function)
                doubt = column.quality or cut.quality(begin)
                if value is None:
                    quality[len(points)] = column.worst
                elif doubt is not None and function != "count":
                    quality[len(points)] = doubt
                points.append(f"{point}_{function}")
                values.append(value)
        return Sample(first.device, begin, first.mono, tuple(points), values, quality or ALL_GOOD)
