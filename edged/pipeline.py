"""What happens to a value between the adapter and the buffer: scaling, rounding, range, deadband, heartbeat.

Pure: no I/O, no clock (time comes with the sample). The work per device and shape of sample is prepared once, so that
a point that needs nothing costs nothing, and a sample whose points all need nothing passes through untouched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from edged.config.base import DeviceConfig, PointConfig, parse_deadband
from edged.config.types import Name
from edged.model import ALL_GOOD, Quality, Reason, Sample, Value, bad

_LARGEST = sys.float_info.max
_SUBSETS = 1024
"""How many partial shapes are remembered per shape, so that random suppression cannot fill the memory."""


@dataclass(slots=True)
class _Shape:
    """The prepared work for samples with exactly these points. Numbers are indices into them."""

    points: tuple[str, ...]
    products: list[tuple[int, float]] = field(default_factory=list)
    quotients: list[tuple[int, float]] = field(default_factory=list)
    offsets: list[tuple[int, float]] = field(default_factory=list)
    maps: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    rounded: list[tuple[int, int]] = field(default_factory=list)
    ranges: list[tuple[int, float, float]] = field(default_factory=list)
    bands: list[tuple[int, float, float]] = field(default_factory=list)
    heartbeats: list[int] = field(default_factory=list)
    subsets: dict[tuple[int, ...], tuple[str, ...]] = field(default_factory=dict)
    computes: bool = False


@dataclass(slots=True)
class _Sent:
    """What was last let through of one point."""

    mono: int
    value: Value
    quality: Quality | None
    """None while good."""


Points = Mapping[str, PointConfig] | Mapping[Name, PointConfig]


class _Shapes:
    """The prepared work for devices whose points are configured by the very same mapping, as those of one profile."""

    __slots__ = ("_config", "_shapes", "points")

    def __init__(self, points: Points) -> None:
        self.points = points
        self._config: dict[str, PointConfig] = {str(name): config for name, config in points.items()}
        self._shapes: dict[int, _Shape] = {}

    def forget(self) -> None:
        """Prepare anew what comes: buses that were opened anew have tuples of their own for the same points."""
        self._shapes.clear()

    def of(self, points: tuple[str, ...]) -> _Shape:
        """The shape of samples with these points."""
        shape = self._shapes.get(id(points))
        return shape if shape is not None and shape.points is points else self._prepare(points)

    def _prepare(self, points: tuple[str, ...]) -> _Shape:
        """Compile the shape; remembering `points` itself keeps its id from being reused."""
        shape = _Shape(points)
        for i, name in enumerate(points):
            config = self._config.get(name)
            shape.heartbeats.append(round((config or PointConfig()).heartbeat * 1e6))
            if config is not None:
                _compile(shape, i, config)
        shape.computes = bool(
            shape.products or shape.quotients or shape.offsets or shape.maps or shape.rounded or shape.ranges
        )
        if len(self._shapes) >= _SUBSETS:
            self._shapes.clear()
        self._shapes[id(points)] = shape
        return shape


class DevicePipeline:
    """The pipeline of one device. Remembers only what deadbands and repeated failures need."""

    __slots__ = ("_failing", "_sent", "_shapes")

    def __init__(self, points: Points, shapes: _Shapes | None = None) -> None:
        self._shapes = shapes or _Shapes(points)
        self._sent: dict[str, _Sent] | None = None
        self._failing: dict[str, None] | None = None
        """Points, in the order in which they failed. Most devices need neither dict, and there may be 100,000."""

    @property
    def shapes(self) -> _Shapes:
        """For other devices with the same points."""
        return self._shapes

    def process(self, sample: Sample) -> Sample | None:
        """What is to be stored of `sample`: itself, a changed or smaller one, or None if all of it was suppressed."""
        shape = self._shapes.of(sample.points)
        if shape.computes:
            sample = _compute(shape, sample)
        if shape.bands or sample.quality or self._failing:
            return self._thin(shape, sample)
        return sample

    def compute(self, sample: Sample) -> Sample:
        """`sample` scaled, rounded and checked, but nothing left out and nothing remembered: for a single look."""
        shape = self._shapes.of(sample.points)
        return _compute(shape, sample) if shape.computes else sample

    def _thin(self, shape: _Shape, sample: Sample) -> Sample | None:
        """Leave out what is within its deadband, and failures that were already told, until the heartbeat is due."""
        drop: set[int] = set()
        values, quality, mono = sample.values, sample.quality, sample.mono
        if self._sent is None:
            self._sent = {}
        sent = self._sent
        for i, absolute, fraction in shape.bands:
            value, why = values[i], quality.get(i)
            if value is None:
                continue
            last = sent.get(shape.points[i])
            recent = last is not None and last.quality == why and mono - last.mono < shape.heartbeats[i]
            if last is not None and recent and _within(value, last.value, absolute, fraction):
                drop.add(i)
                continue
            sent[shape.points[i]] = _Sent(mono, value, why)
        for i, why in quality.items():
            if values[i] is not None:
                continue  # of what is uncertain the value counts, as that of what is good
            name = shape.points[i]
            last = sent.get(name)
            if last is not None and last.quality == why and mono - last.mono < shape.heartbeats[i]:
                drop.add(i)
            else:
                sent[name] = _Sent(mono, None, why)
                if self._failing is None:
                    self._failing = {}
                self._failing[name] = None
        if self._failing:
            _recover(shape, values, self._failing, sent)
        return _without(shape, sample, drop) if drop else sample


def _recover(shape: _Shape, values: Sequence[Value], failing: dict[str, None], sent: dict[str, _Sent]) -> None:
    """Forget the failure of points that have a value again."""
    banded = {i for i, _, _ in shape.bands}
    for i, name in enumerate(shape.points):
        if values[i] is not None and name in failing:
            del failing[name]
            if i not in banded:
                sent.pop(name, None)


def _compile(shape: _Shape, i: int, config: PointConfig) -> None:
    if config.map is not None:
        (low, high), (to_low, to_high) = config.map.raw, config.map.to
        shape.maps.append((i, low, high - low, to_low, to_high - to_low))
    if config.scale != 1:
        divisor = 1 / Decimal(repr(config.scale))
        if divisor == divisor.to_integral_value() and abs(divisor) > 1:
            # 2301 / 10 is 230.1; 2301 * 0.1 is 230.10000000000002.
            shape.quotients.append((i, int(divisor)))
        else:
            shape.products.append((i, _whole(config.scale)))
    if config.offset:
        shape.offsets.append((i, _whole(config.offset)))
    if config.decimals is not None:
        shape.rounded.append((i, config.decimals))
    if config.range is not None:
        shape.ranges.append((i, max(config.range[0], -_LARGEST), min(config.range[1], _LARGEST)))
    elif config.map is not None or config.scale != 1 or config.offset:
        shape.ranges.append((i, -_LARGEST, _LARGEST))  # a product can overflow to infinity, which JSON cannot carry
    absolute, fraction = parse_deadband(config.deadband)
    if config.deadband is not None:
        shape.bands.append((i, absolute, fraction))


def _whole(number: float) -> float:
    """`number` as an int if it is whole and exact, so that integers stay integers."""
    return int(number) if float(number).is_integer() and abs(number) < 2**53 else number


def _compute(shape: _Shape, sample: Sample) -> Sample:
    values = list(sample.values)
    quality: dict[int, Quality] = dict(sample.quality)
    for i, low, span, to_low, to_span in shape.maps:
        if (value := values[i]) is not None:
            values[i] = (value - low) * to_span / span + to_low  # type: ignore[operator]  # only numbers are mapped
    for i, factor in shape.products:
        if (value := values[i]) is not None:
            values[i] = value * factor  # type: ignore[operator]  # only numbers are scaled
    for i, divisor in shape.quotients:
        if (value := values[i]) is not None:
            values[i] = value / divisor  # type: ignore[operator]  # only numbers are scaled
    for i, offset in shape.offsets:
        if (value := values[i]) is not None:
            values[i] = value + offset  # type: ignore[operator]  # only numbers are scaled
    for i, low, high in shape.ranges:
        if (value := values[i]) is not None and not low <= value <= high:  # type: ignore[operator]  # numbers
            values[i] = None
            quality[i] = bad(Reason.RANGE)
        elif type(value) is int and not -(2**63) <= value < 2**64:
            values[i] = float(value)  # what is stored and sent as an integer has 64 bits
    for i, decimals in shape.rounded:
        if (value := values[i]) is not None:
            values[i] = round(value, decimals)  # type: ignore[arg-type]  # only numbers are rounded
    return Sample(sample.device, sample.time, sample.mono, sample.points, tuple(values), quality or ALL_GOOD)


def _within(value: Value, last: Value, absolute: float, fraction: float) -> bool:
    """Whether `value` is too near to `last` to be told. Texts and truth values must be equal."""
    if value == last:
        return True
    if isinstance(value, str | bool | None) or isinstance(last, str | bool | None):
        return False
    return abs(value - last) < max(absolute, fraction * abs(last))


def _without(shape: _Shape, sample: Sample, drop: set[int]) -> Sample | None:
    """`sample` less the points in `drop`; equal subsets share one tuple of names."""
    keep = tuple(i for i in range(len(shape.points)) if i not in drop)
    if not keep:
        return None
    names = shape.subsets.get(keep)
    if names is None:
        if len(shape.subsets) >= _SUBSETS:
            shape.subsets.clear()
        names = shape.subsets[keep] = tuple(shape.points[i] for i in keep)
    quality = {new: sample.quality[old] for new, old in enumerate(keep) if old in sample.quality}
    return replace(sample, points=names, values=[sample.values[i] for i in keep], quality=quality)


class Pipeline:
    """The pipelines of all devices."""

    def __init__(self, devices: Mapping[str, DeviceConfig]) -> None:
        self._devices: dict[str, DevicePipeline] = {}
        self._add(devices, devices)

    def _add(self, devices: Mapping[str, DeviceConfig], names: Iterable[str]) -> None:
        known = {id(one.shapes.points): one.shapes for one in self._devices.values()}
        for name in names:
            points = devices[name].points
            one = self._devices[name] = DevicePipeline(points, known.get(id(points)))
            known[id(points)] = one.shapes

    def renew(self, devices: Mapping[str, DeviceConfig], changed: Iterable[str]) -> None:
        """From now on `devices`; those not in `changed` keep what they remember."""
        self._devices = {name: one for name, one in self._devices.items() if name in devices}
        for one in self._devices.values():
            one.shapes.forget()
        self._add(devices, [name for name in changed if name in devices])

    def process(self, sample: Sample) -> Sample | None:
        """What is to be stored of a sample, or None. Raises KeyError for a device that is not configured."""
        return self._devices[sample.device].process(sample)

    def compute(self, sample: Sample) -> Sample:
        """See `DevicePipeline.compute`."""
        return self._devices[sample.device].compute(sample)
