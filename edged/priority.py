"""Takes what has priority out of the samples. Pure.

A reading goes one way only: with priority, or with the others of its sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from edged.config.base import DeviceConfig
from edged.model import Quality, Sample, Value

_SHAPES = 1024
"""How many shapes are remembered for a device."""


class Parts(NamedTuple):
    """A sample in two."""

    first: Sample | None
    """What has priority; None if nothing of it has."""
    others: Sample | None
    changed: bool
    """Whether a value with priority, or its quality, is another than before."""


@dataclass(slots=True)
class _Split:
    """How samples with these points are divided: by index."""

    first: list[int]
    others: list[int]
    first_points: tuple[str, ...]
    other_points: tuple[str, ...]


@dataclass(slots=True)
class _Device:
    high: frozenset[str]
    splits: dict[tuple[str, ...], _Split] = field(default_factory=dict)
    last: dict[str, tuple[Value, Quality | None]] = field(default_factory=dict)


class Priorities:
    """Which points of which devices have priority, and their last values."""

    def __init__(self, devices: Mapping[str, DeviceConfig]) -> None:
        self._devices: dict[str, _Device] = {}
        self.renew(devices)

    def renew(self, devices: Mapping[str, DeviceConfig]) -> None:
        """Go on with these devices; their last values are forgotten."""
        self._devices.clear()
        for name, device in devices.items():
            high = frozenset(str(point) for point, config in device.points.items() if config.priority == "high")
            if high:
                self._devices[str(name)] = _Device(high)

    def split(self, sample: Sample) -> Parts:
        """The sample in two."""
        device = self._devices.get(sample.device)
        if device is None:
            return Parts(None, sample, changed=False)
        split = device.splits.get(sample.points)
        if split is None:
            if len(device.splits) >= _SHAPES:
                device.splits.clear()
            split = device.splits[sample.points] = _divide(sample.points, device.high)
        if not split.first:
            return Parts(None, sample, changed=False)
        first = _part(sample, split.first, split.first_points) if split.others else sample
        others = _part(sample, split.others, split.other_points) if split.others else None
        return Parts(first, others, changed=_changed(device, first))


def _divide(points: tuple[str, ...], high: frozenset[str]) -> _Split:
    first = [i for i, name in enumerate(points) if name in high]
    others = [i for i, name in enumerate(points) if name not in high]
    return _Split(first, others, tuple(points[i] for i in first), tuple(points[i] for i in others))


def _part(sample: Sample, indices: list[int], points: tuple[str, ...]) -> Sample:
    values = [sample.values[i] for i in indices]
    quality = {new: sample.quality[old] for new, old in enumerate(indices) if old in sample.quality}
    return replace(sample, points=points, values=values, quality=quality)


def _changed(device: _Device, first: Sample) -> bool:
    changed = False
    for i, name in enumerate(first.points):
        now = first.values[i], first.quality.get(i)
        if device.last.get(name) != now:
            device.last[name] = now
            changed = True
    return changed
