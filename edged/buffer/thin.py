"""Thinning: of each point and interval the lowest, the highest and the last reading stay. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edged.model import ALL_GOOD, Quality, Sample, Value

THINNED = Quality("uncertain", "thinned")
"""Of a reading that stands for others too: it is true, but its neighbours were given up."""
_WORSE = {"uncertain": 1, "bad": 2}
_Point = list[tuple[int, int, Value]]
"""(index of the sample, index in the sample, value) of each reading of one point within one interval."""


def thin(samples: Sequence[Sample], interval: int) -> list[Sample]:
    """The same samples, with fewer readings. `interval` in microseconds.

    What stays of each device, point and interval: the lowest and the highest number, the last value, and the last
    reading of the worst quality if not all were good. They keep their times, and are `uncertain(thinned)` where they
    were good. A sample of which nothing stays becomes an empty one, so that those after it keep their seq.
    """
    intervals: dict[tuple[str, int], dict[str, _Point]] = {}
    for i, sample in enumerate(samples):
        points = intervals.setdefault((sample.device, sample.time // interval), {})
        for j, (name, value) in enumerate(zip(sample.points, sample.values, strict=True)):
            points.setdefault(name, []).append((i, j, value))
    kept: list[list[int]] = [[] for _ in samples]
    marked: list[set[int]] = [set() for _ in samples]
    for points in intervals.values():
        for readings in points.values():
            stay = _choose(samples, readings)
            for i, j in stay:
                kept[i].append(j)
                if len(stay) < len(readings):
                    marked[i].add(j)
    return _reduced(samples, kept, marked)


def _choose(samples: Sequence[Sample], readings: _Point) -> set[tuple[int, int]]:
    """Which readings of one point stay: (index of the sample, index in the sample)."""
    if len(readings) == 1:
        return {readings[0][:2]}
    usable = [one for one in readings if one[2] is not None]
    stay = {readings[-1][:2]}
    if usable:
        stay.add(usable[-1][:2])
    numbers = [one for one in usable if type(one[2]) in {int, float} and math.isfinite(one[2])]  # type: ignore[arg-type]  # a number
    if numbers:
        stay.add(min(numbers, key=_value)[:2])
        stay.add(max(reversed(numbers), key=_value)[:2])
    worse = [(_badness(samples[i].quality[j]), i, j) for i, j, _ in readings if j in samples[i].quality]
    badness, i, j = max(worse, default=(0, 0, 0))
    if badness:
        stay.add((i, j))
    return stay


def _badness(quality: Quality) -> int:
    return 0 if quality == THINNED else _WORSE.get(quality.status, 0)


def _value(reading: tuple[int, int, Value]) -> float:
    return reading[2]  # type: ignore[return-value]  # only numbers are compared


def _reduced(samples: Sequence[Sample], kept: list[list[int]], marked: list[set[int]]) -> list[Sample]:
    """From the last to the first: an empty sample repeats what follows it, which compresses to next to nothing."""
    shapes: dict[tuple[str, ...], tuple[str, ...]] = {}
    result: list[Sample] = []
    for sample, stay, mark in zip(reversed(samples), reversed(kept), reversed(marked), strict=True):
        stay.sort()
        if not stay:
            follower = result[-1] if result else sample
            result.append(Sample(follower.device, follower.time, follower.mono, (), (), ALL_GOOD))
        elif len(stay) == len(sample.points) and not mark:
            result.append(sample)
        else:
            names = tuple(sample.points[j] for j in stay)
            values = [sample.values[j] for j in stay]
            quality: dict[int, Quality] = _qualities(sample.quality, stay, mark)
            points = sample.points if names == sample.points else shapes.setdefault(names, names)
            result.append(Sample(sample.device, sample.time, sample.mono, points, values, quality))
    return result[::-1]


def _qualities(quality: Mapping[int, Quality], stay: list[int], mark: set[int]) -> dict[int, Quality]:
    found: dict[int, Quality] = {}
    for new, old in enumerate(stay):
        if old in quality and quality[old].status != "good":
            found[new] = quality[old]
        elif old in mark:
            found[new] = THINNED
    return found
