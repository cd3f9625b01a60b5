"""Flows as the configuration says them: which readings go where, and what is done to them on the way.

Imported on the run path: needs neither a YAML parser nor pydantic, and simpleeval only to check an expression.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from edged.config.base import STRICT, Settings
from edged.config.types import Duration, Name

Function = Literal["min", "max", "avg", "last", "count"]
_FEWEST = 1.0
_LONGEST = 86_400.0
LATEST = 2.5e11
"""Seconds since 1970, in the year 9892: no sample is later."""


@dataclass(frozen=True, kw_only=True)
class MatchConfig(Settings):
    """Readings that a flow takes: all that is written must be true (AND). Upper and lower case are the same."""

    __pydantic_config__: ClassVar = STRICT

    key: str = ""
    """A pattern `device/point`, `site/point` or `site/device/point`, such as `chiller/*` or `*/supply*`. Without a
    point, all points. The site is the gateway's id, or its site's building or location."""
    device: str = ""
    """A pattern of the device's name."""
    point: str = ""
    """A pattern of the point's name."""
    adapter: str = ""
    """A pattern of the name of the adapter, such as `modbus-*`."""
    site: str = ""
    """A pattern of the gateway's id, or of its site's tenant, building or location."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the device, each with a pattern of its value: `{room: plant*}`."""

    def __post_init__(self) -> None:
        if not (self.key or self.device or self.point or self.adapter or self.site or self.labels):
            raise ValueError('says nothing to match: write `key: "*"` for everything')
        parts = self.key.split("/") if self.key else []
        if len(parts) > 3 or not all(parts):  # noqa: PLR2004  # as the message says
            raise ValueError(f"{self.key!r} is not a key: `device/point` or `site/device/point`")


@dataclass(frozen=True, kw_only=True)
class MapConfig(Settings):
    """Changes points and values, in this order: keep, drop, convert, scale, add, rename."""

    __pydantic_config__: ClassVar = STRICT

    keep: tuple[str, ...] = ()
    """Patterns of points: all others are dropped."""
    drop: tuple[str, ...] = ()
    """Patterns of points that are dropped."""
    convert: Mapping[str, str] = field(default_factory=dict)
    """Point → the unit wanted, such as `°F`; the point's own `unit` says what it is. `bar -> psi` says both."""
    scale: Mapping[str, float] = field(default_factory=dict)
    """Point → a factor."""
    add: Mapping[str, str] = field(default_factory=dict)
    """New point → the expression that yields its value."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Point → its new name."""

    def __post_init__(self) -> None:
        from edged.flows.expression import Expression  # noqa: PLC0415  # only a flow pays for it
        from edged.flows.units import linear  # noqa: PLC0415  # as above

        if not (self.keep or self.drop or self.convert or self.scale or self.add or self.rename):
            raise ValueError("`map` changes nothing: give it `keep`, `drop`, `convert`, `scale`, `add` or `rename`")
        for point, text in self.add.items():
            Name.parse(point)
            if Expression(text).per_reading:
                raise ValueError(
                    f"`add` of {point!r} cannot use `value`, `point` or `quality`: name the point it needs"
                )
        for point, unit in self.convert.items():
            source, arrow, target = unit.partition("->")
            try:
                linear(source.strip() if arrow else unit, (target if arrow else unit).strip())
                if not arrow:
                    linear(unit, _base_of(unit))
            except ValueError as exc:
                raise ValueError(f"`convert` of {point!r}: {exc}") from exc
        for point, factor in self.scale.items():
            if not math.isfinite(factor):
                raise ValueError(f"`scale` of {point!r} must be a finite number")
        for new in self.rename.values():
            Name.parse(new)
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("`rename` gives two points the same name")


def _base_of(unit: str) -> str:
    from edged.flows.units import known  # noqa: PLC0415  # as above

    if not known(unit):
        raise ValueError(f"{unit!r} is not a unit that can be converted")
    return unit


@dataclass(frozen=True, kw_only=True)
class AggregateConfig(Settings):
    """One sample per device and interval instead of many."""

    __pydantic_config__: ClassVar = STRICT

    every: Duration
    """The interval. Intervals begin at multiples of it since 1970, UTC, so `1h` begins at the full hour."""
    functions: tuple[Function, ...] = ("avg", "min", "max", "count")
    """What is worked out of each point: it becomes `point_avg` and so on. `count` is always there."""

    def __post_init__(self) -> None:
        _check_interval("every", self.every)
        if not self.functions:
            raise ValueError("`functions` is empty")


def _check_interval(key: str, seconds: float) -> None:
    if not _FEWEST <= seconds <= _LONGEST:
        raise ValueError(f"`{key}` must lie between 1s and 1d")


@dataclass(frozen=True, kw_only=True)
class StepConfig(Settings):
    """One step: exactly one of `filter`, `map`, `aggregate` and `sample`."""

    __pydantic_config__: ClassVar = STRICT

    when: str = ""
    """An expression: samples for which it is not true pass by this step as they are."""
    filter: str = ""
    """An expression: what it is not true for goes no further. With `value`, `point` or `quality` it is asked for each
    reading, otherwise for each sample."""
    map: MapConfig | None = None
    """Changes points and values."""
    aggregate: AggregateConfig | None = None
    """One sample per interval, worked out of all."""
    sample: Duration = Duration(0)
    """One sample per device and interval: the first."""

    def __post_init__(self) -> None:
        from edged.flows.expression import Expression  # noqa: PLC0415  # only a flow pays for it

        given = [bool(self.filter), self.map is not None, self.aggregate is not None, self.sample > 0]
        if sum(given) != 1:
            raise ValueError("a step is exactly one of `filter`, `map`, `aggregate` and `sample`")
        if self.sample:
            _check_interval("sample", self.sample)
        if self.filter:
            Expression(self.filter)
        if self.when and Expression(self.when).per_reading:
            raise ValueError("`when` is asked for a sample: it cannot use `value`, `point` or `quality`")

    @property
    def interval(self) -> float:
        """Seconds of its interval; 0 if it has none."""
        return float(self.aggregate.every) if self.aggregate else float(self.sample)


@dataclass(frozen=True, kw_only=True)
class BindingConfig(Settings):
    """How a flow goes to one connection. What is not written is as the connection says."""

    __pydantic_config__: ClassVar = STRICT

    max_age: Duration | None = None
    """Give up readings of this flow that are older than this."""
    topic: str | None = None
    """Where the messages go."""
    layout: str | None = None
    """The layout of the payload."""
    template: str | None = None
    """With `layout: template`: what is written for each reading."""
    max_readings: int | None = None
    """Up to how many readings go into one message."""

    def overrides(self) -> dict[str, Any]:
        """What it says differently than the connection."""
        names = ("max_age", "topic", "layout", "template", "max_readings")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class GivenConfig(Settings):
    """A sample that a test gives to a flow."""

    __pydantic_config__: ClassVar = STRICT

    device: str
    """Its device."""
    values: Mapping[str, bool | int | float | str | None]
    """Point → value; null is a bad one."""
    time: float = 0.0
    """Seconds since 1970."""

    def __post_init__(self) -> None:
        if not abs(self.time) < LATEST:  # not a number is not less either
            raise ValueError("`time` is a number of seconds since 1970")


@dataclass(frozen=True, kw_only=True)
class TestConfig(Settings):
    """What must come out of a flow when something is put in. `edged check` tries it."""

    __test__: ClassVar = False
    __pydantic_config__: ClassVar = STRICT

    given: tuple[GivenConfig, ...]
    """What is put in, in order."""
    expect: tuple[Mapping[str, bool | int | float | str | None], ...] = ()
    """For each sample that comes out its values, in order. None: everything is filtered."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig(Settings):
    """Which readings go to which connections, and what is done to them on the way."""

    __pydantic_config__: ClassVar = STRICT

    description: str = ""
    """What it is for, for people."""
    enabled: bool = True
    """`false` keeps the entry, and its place in the buffer, where readings wait; but sends nothing."""
    match: tuple[MatchConfig, ...] = ()
    """Readings that one of these matches are taken (OR). Without any: all."""
    sql: str = ""
    """Instead of `match` and a first filter and map: `SELECT supply, ret FROM 'plant-7/chiller' WHERE supply > 50`."""
    priority: Literal["normal", "high"] = "normal"
    """`high`: the points that it matches have priority, on all connections."""
    steps: tuple[StepConfig, ...] = ()
    """What is done, in order."""
    connections: Mapping[str, BindingConfig] = field(default_factory=dict)
    """Where it goes: `{cloud: {}}`. A connection that a flow names gets what flows give it, and nothing else."""
    tests: Mapping[str, TestConfig] = field(default_factory=dict)
    """By name: samples put in, and what must come out."""

    def __post_init__(self) -> None:
        if not self.connections:
            raise ValueError("`connections` is missing: where does it go?")
        if self.sql and self.match:
            raise ValueError("`sql` says itself what it matches: write either `sql` or `match`")
        if sum(step.interval > 0 for step in self.steps) > 1:
            raise ValueError("a flow has at most one `aggregate` or `sample`")

    @property
    def interval(self) -> float:
        """Seconds of the interval that it waits for; 0 if it waits for none."""
        return max((step.interval for step in self.steps), default=0.0)


def cursor_name(connection: str, flow: str) -> str:
    """What the buffer calls the place of a flow's connection."""
    return f"{connection}/{flow}"


def connection_of(place: str) -> str:
    """The connection that a place in the buffer belongs to."""
    return place.partition("/")[0]


def spoken(place: str) -> str:
    """A place in the buffer in words: `connection cloud`, or `flow hot to cloud`."""
    connection, slash, flow = place.partition("/")
    return f"flow {flow} to {connection}" if slash else f"connection {connection}"
