"""What every adapter's and connector's configuration builds on: buses, devices and points.

These are plain frozen dataclasses; pydantic validates them through a TypeAdapter (see `edged.config.load`), and
`edged.config.compiled` rebuilds them without it. Field docstrings become the descriptions of the JSON Schema and of the
reference page, so they are written for the technician.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from edged.config.types import Duration, Name

STRICT: dict[str, Any] = {"extra": "forbid"}
"""The pydantic configuration of every configuration dataclass: unknown keys are errors."""

_LONGEST_LABEL = 256


class Settings:
    """What can say which of its settings do nothing."""

    __slots__ = ()

    def idle(self) -> Iterator[tuple[str, str]]:
        """(setting, why) of each that has no effect as the others stand, should it be written."""
        yield from ()


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """Maps a range of raw values onto a range of engineering values, such as 4-20 mA onto 0-10 bar."""

    __pydantic_config__: ClassVar = STRICT

    raw: tuple[float, float]
    """The two raw values, e.g. `[4, 20]`."""
    to: tuple[float, float]
    """What they mean, e.g. `[0, 10]`."""

    def __post_init__(self) -> None:
        for key, values in (("raw", self.raw), ("to", self.to)):
            if not all(map(math.isfinite, values)):
                raise ValueError(f"`{key}` must be two finite numbers")
        if self.raw[0] == self.raw[1]:
            raise ValueError("`raw`: the two values of a map must differ")
        if self.to[0] == self.to[1]:
            raise ValueError("`to`: the two values of a map must differ, or every value would be the same")


_ROUNDING = 1e-13
"""How far a few operations on doubles may be off, as a share of the largest number among them."""


@dataclass(frozen=True, kw_only=True)
class PointConfig(Settings):
    """One named value of a device: what every protocol's points have in common."""

    __pydantic_config__: ClassVar = STRICT

    unit: str = ""
    """The engineering unit, e.g. `°C` or `kWh`."""
    description: str = ""
    """What the value is, for people."""
    every: Duration | None = None
    """How often to read this point, when it differs from its device."""
    scale: float = 1.0
    """Multiplies the raw value."""
    offset: float = 0.0
    """Added after scaling."""
    map: LinearMap | None = None
    """Maps raw values linearly instead of `scale` and `offset`."""
    decimals: int | None = None
    """Rounds the value to so many decimal places."""
    range: tuple[float, float] | None = None
    """Lowest and highest plausible value, after scaling. Outside it the reading is `bad(range)`."""
    deadband: float | str | None = None
    """Suppress changes smaller than this: a number in the point's unit, or a percentage of the last value, `1%`."""
    heartbeat: Duration = Duration(900)
    """With a deadband: send a steady value at least this often."""
    priority: Literal["normal", "high"] = "normal"
    """`high`, for alarms: its readings go ahead of all others, and changes do not wait for the buffer's next flush."""
    writable: bool = False
    """Whether commands may write it."""
    monitor: bool = False
    """Whether its changes are also sent one by one, as they come, where a connection has a topic for that. They are for
    watching: what happens while the connection is away is not sent later."""

    def __post_init__(self) -> None:
        if self.map is not None and (self.scale != 1.0 or self.offset != 0.0):
            raise ValueError("use either `map` or `scale` and `offset`, not both")
        if not (math.isfinite(self.scale) and math.isfinite(self.offset)):
            raise ValueError("`scale` and `offset` must be finite numbers")
        if self.scale == 0:
            raise ValueError("`scale: 0` would make every value the same")
        _check_range(self.range)
        if not self.unit.isprintable():
            raise ValueError("`unit` has a character that cannot be printed")
        if self.decimals is not None and not -12 <= self.decimals <= 12:  # noqa: PLR2004  # beyond a double's digits
            raise ValueError("`decimals` must lie between -12 and 12")
        if self.every is not None and self.every <= 0:
            raise ValueError("`every` must be longer than 0")
        parse_deadband(self.deadband)

    def unscaled(self, value: float) -> float:
        """The raw number that `map`, or `scale` and `offset`, make `value` of; the same object if there is none.

        A whole one where it is that but for the rounding errors of this.
        """
        if self.map is not None:
            (raw_low, raw_high), (low, high) = self.map.raw, self.map.to
            raw = raw_low + (value - low) * (raw_high - raw_low) / (high - low)
            size = max(abs(raw_low), abs(raw_high), abs(raw))
        elif (self.scale, self.offset) != (1.0, 0.0):
            raw = (value - self.offset) / self.scale
            size = max(abs(value), abs(self.offset)) / abs(self.scale)
        else:
            return value
        if not math.isfinite(raw):
            return raw
        whole = float(round(raw))
        return whole if abs(raw - whole) <= _ROUNDING * max(size, 1.0) else raw


def _check_range(limits: tuple[float, float] | None) -> None:
    if limits is None or limits[0] < limits[1]:
        return
    if limits[0] == limits[1]:
        raise ValueError(f"`range` has the same value twice, so that every other one would be bad: {limits[0]:g}")
    if any(map(math.isnan, limits)):
        raise ValueError("`range` needs two numbers; for a side that is open write -.inf or .inf")
    raise ValueError(f"`range` needs the lower value first: [{limits[1]:g}, {limits[0]:g}]")


def parse_deadband(text: float | str | None) -> tuple[float, float]:
    """(absolute, fraction of the last value) of a deadband as configured; both 0 without one. Raises ValueError."""
    if text is None:
        return 0.0, 0.0
    try:
        if "_" in str(text):  # Python would read over it
            raise ValueError
        if isinstance(text, str) and text.strip().endswith("%"):
            absolute, fraction = 0.0, float(text.strip()[:-1]) / 100
        else:
            absolute, fraction = float(text), 0.0
    except ValueError:
        raise ValueError(
            f"{text!r} is not a deadband: write a number such as 0.1, or a percentage such as 1%"
        ) from None
    if not (math.isfinite(absolute + fraction) and absolute >= 0 and fraction >= 0):
        raise ValueError("a `deadband` cannot be negative or infinite")
    if fraction > 1:
        raise ValueError("a `deadband` of more than 100% would hold almost every change back")
    return absolute, fraction


@dataclass(frozen=True, kw_only=True)
class DeviceConfig(Settings):
    """One addressable thing on a bus: what every protocol's devices have in common.

    An adapter's own class adds its settings and overrides `points` with its own point type.
    """

    __pydantic_config__: ClassVar = STRICT

    bus: Name
    """The bus it is reached through."""
    profile: str | None = None
    """A device type that brings its points; settings given here override it."""
    every: Duration = Duration(1)
    """How often to read it."""
    labels: dict[str, str] = field(default_factory=dict)
    """Free labels such as `room: plant`; they go with every message about the device."""
    enabled: bool = True
    """`false` keeps the entry but leaves the device alone."""
    points: dict[Name, PointConfig] = field(default_factory=dict)
    """Its values by name."""

    brings_points: ClassVar[bool | str] = False
    """Whether a device can say itself which points it has, so that none need be listed; or what setting makes it."""

    def __post_init__(self) -> None:
        if self.every <= 0:
            raise ValueError("`every` must be longer than 0")
        _check_labels(self.labels)


def _check_labels(labels: dict[str, str]) -> None:
    """They go into topics and into every message about the device."""
    for name, text in labels.items():
        if not name.strip() or not f"{name}{text}".isprintable():
            raise ValueError("`labels`: each has a name, and no line break or other control character in name or text")
        if max(len(name), len(text)) > _LONGEST_LABEL:
            raise ValueError(f"`labels`: {name[:20]!r} has more than {_LONGEST_LABEL} characters")


@dataclass(frozen=True, kw_only=True)
class BusConfig(Settings):
    """One physical link: what every protocol's buses have in common."""

    __pydantic_config__: ClassVar = STRICT

    adapter: str
    """The protocol spoken on it."""
    enabled: bool = True
    """`false` keeps the entry but opens nothing."""
    dead_share: float = 0.1
    """The largest share of the bus's time that devices which do not answer may cost the others."""
    retry_min: Duration = Duration(1)
    """First pause before a device or bus that does not answer is tried again; it doubles each time."""
    retry_max: Duration = Duration(10)
    """Longest such pause."""

    @property
    def where(self) -> str:
        """The port, or host and port, that tell it from other buses; empty where it has none."""
        host, port = getattr(self, "host", None), getattr(self, "port", None)
        return f"{host}:{port}" if isinstance(host, str) else port if isinstance(port, str) else ""

    def doubts(self, device: DeviceConfig) -> Iterator[tuple[str, str]]:  # noqa: ARG002  # for those that have any
        """(setting, why) of what a device on it has that hardly works on such a bus."""
        yield from ()

    def __post_init__(self) -> None:
        if not 0 < self.dead_share <= 1:
            raise ValueError("`dead_share` is a share of the time, above 0 and up to 1")
        if not 0 < self.retry_min <= self.retry_max:
            raise ValueError("`retry_min` must be above 0 and not longer than `retry_max`")


@dataclass(frozen=True, kw_only=True)
class ConnectionConfig(Settings):
    """One upstream: what every connector's settings have in common."""

    __pydantic_config__: ClassVar = STRICT

    connector: str
    """The dialect spoken upstream."""
    enabled: bool = True
    """`false` keeps the entry, and its place in the buffer, but connects nowhere."""
    max_age: Duration = Duration(0)
    """Give up readings that are older than this before this connection could take them, and count them as expired; 0
    keeps them. Other connections still get them."""

    keeps: ClassVar[bool] = True
    """Whether readings wait for it in the buffer. If not, it sends nothing: it shows how things are to whoever asks."""
    takes_flows: ClassVar[bool] = True
    """Whether flows can go to it. Its encoder then says `Envelope.flow` wherever it says `seq`."""
    takes_intervals: ClassVar[bool] = True
    """Whether flows with an interval can: they send everything in one order, the oldest first."""
    describes_flows: ClassVar[bool] = False
    """Whether it tells beforehand what flows yield, in one space of names (births, discovery): two flows cannot yield
    the same point then, and a reload that changes flows connects anew."""
    follows_devices: ClassVar[bool] = False
    """Whether its link's `announce` tells of devices that changed, so that a reload need not connect anew for that."""

    def revealed(self) -> Iterator[tuple[str, str, str]]:
        """(setting, text, what to do about it) of what is probably a secret, in settings that are none."""
        yield from ()


@dataclass(frozen=True, kw_only=True)
class CommandingConfig(ConnectionConfig):
    """An upstream that can send commands: what their settings have in common."""

    commands: bool = False
    """Whether commands may come this way. They can write only points with `writable: true`."""
