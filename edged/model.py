"""The one vocabulary between all rooms: frozen values that carry readings.

A `Sample` is columnar: a shared tuple of point names beside a sequence of values, so that a reading costs no object,
dict or call of its own on the hot path. `Reading` is the row view of it, for people and for slow paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

Status = Literal["good", "uncertain", "bad"]
Value = bool | int | float | str | None
"""What a point can be. `None` only where the quality is bad."""


class Reason(StrEnum):
    """Why a value is not good. Adapters may use further words; these are the common ones."""

    TIMEOUT = "timeout"
    """The device did not answer in time."""
    UNREACHABLE = "unreachable"
    """There is no connection to the bus or the device."""
    EXCEPTION = "exception"
    """The device refused the request."""
    PROTOCOL = "protocol"
    """The device answered something that is not a valid reply to the request."""
    DECODE = "decode"
    """The bytes are not a value of the point's type (a BCD digit above 9, a NaN, invalid text)."""
    RANGE = "range"
    """The value lies outside the range configured for the point."""
    STALE = "stale"
    """The value is older than it may be."""
    CLOCK = "clock"
    """The time of the reading is not to be trusted."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How far a value can be trusted: OPC's three classes, and a reason where it is not good."""

    status: Status
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.status}({self.reason})" if self.reason else self.status

    @classmethod
    def parse(cls, text: str) -> Quality:
        """Read back what `str()` wrote: `good`, `bad(timeout)`, `uncertain(clock)`. Raises ValueError."""
        status, bracket, rest = text.partition("(")
        if status not in {"good", "uncertain", "bad"} or (bracket and not rest.endswith(")")):
            raise ValueError(f"{text!r} is not a quality")
        return cls(status, rest[:-1] if bracket else "")  # type: ignore[arg-type]  # checked in the line above


GOOD = Quality("good")


def bad(reason: str) -> Quality:
    """The quality of a value that must not be used. Interned: the same reason gives the same object."""
    return _BAD.get(reason) or _BAD.setdefault(reason, Quality("bad", str(reason)))


_BAD: dict[str, Quality] = {reason: Quality("bad", reason.value) for reason in Reason}
ALL_GOOD: Mapping[int, Quality] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Sample:
    """What one read or one advertisement of one device yielded: one time, many point values.

    `points` is shared between all samples of the same shape (compare with `is` where speed matters).
    `values[i]` belongs to `points[i]` and is None where its quality is bad. `quality` is sparse: an index that is
    missing is good.
    """

    device: str
    time: int
    """When the values were read: microseconds since the Unix epoch, UTC, by the gateway's clock."""
    mono: int
    """The same moment on the boot's monotonic clock, microseconds."""
    points: tuple[str, ...]
    values: Sequence[Value]
    quality: Mapping[int, Quality] = field(default_factory=lambda: ALL_GOOD)

    def __init__(
        self, device: str, time: int, mono: int, points: tuple[str, ...], values: Sequence[Value],
        quality: Mapping[int, Quality] = ALL_GOOD,
    ) -> None:  # fmt: skip
        """By hand, as it is called for each poll: what a frozen dataclass generates takes twice as long."""
        _set_device(self, device)
        _set_time(self, time)
        _set_mono(self, mono)
        _set_points(self, points)
        _set_values(self, values)
        _set_quality(self, quality)

    def readings(self) -> Iterator[Reading]:
        """The same values one by one."""
        for i, (point, value) in enumerate(zip(self.points, self.values, strict=True)):
            yield Reading(self.device, point, self.time, value, self.quality.get(i, GOOD))


_set_device, _set_time, _set_mono, _set_points, _set_values, _set_quality = (
    vars(Sample)[name].__set__ for name in ("device", "time", "mono", "points", "values", "quality")
)


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of a sample. `time` in microseconds since the Unix epoch, UTC."""

    device: str
    point: str
    time: int
    value: Value
    quality: Quality = GOOD

    @property
    def address(self) -> str:
        """`device/point`, as a person writes it everywhere."""
        return f"{self.device}/{self.point}"
