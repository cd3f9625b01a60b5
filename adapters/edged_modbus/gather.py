"""What the reads of one poll bring, put together as samples.

Pure. The usual poll, one block whose values are all good, passes through without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from edged.adapter import ALL_GOOD, Quality, Sample, Value

_TOGETHER = 10_000
"""Reads that lie further apart than so many microseconds get samples of their own."""

Points = tuple[str, ...]
_Part = tuple[Points, Sequence[Value], Mapping[int, Quality]]


class Gathering:
    """The samples of one poll of one device in the making. `read` counts the blocks that brought values."""

    __slots__ = ("_device", "_groups", "_intern", "_missing", "read")

    def __init__(self, device: str, intern: Callable[[Points], Points]) -> None:
        self._device = device
        self._intern = intern
        self._groups: list[tuple[int, int, list[_Part]]] = []
        self._missing: list[_Part] = []
        self.read = 0

    def add(
        self, moment: tuple[int, int], points: Points, values: Sequence[Value], quality: Mapping[int, Quality]
    ) -> None:
        """One block that was read at this moment (wall and monotonic clock, µs). `points` is interned already."""
        self.read += 1
        part = (points, values, quality)
        if self._groups and moment[1] - self._groups[-1][1] <= _TOGETHER:
            self._groups[-1][2].append(part)
        else:
            self._groups.append((*moment, [part]))

    def missing(self, points: Points, quality: Quality) -> None:
        """Points that were not read, and why."""
        self._missing.append((points, (None,) * len(points), dict.fromkeys(range(len(points)), quality)))

    def samples(self, moment: tuple[int, int]) -> list[Sample]:
        """Everything, by time. What was not read goes with the last read; with `moment` if there was none."""
        if self._missing:
            if not self._groups:
                self._groups.append((*moment, []))
            self._groups[-1][2].extend(self._missing)
        return [self._sample(wall, mono, parts) for wall, mono, parts in self._groups]

    def _sample(self, wall: int, mono: int, parts: Sequence[_Part]) -> Sample:
        if len(parts) == 1:
            return Sample(self._device, wall, mono, *parts[0])
        points = self._intern(tuple(chain.from_iterable([part[0] for part in parts])))
        values = tuple(chain.from_iterable([part[1] for part in parts]))
        return Sample(self._device, wall, mono, points, values, _joined(parts))


def _joined(parts: Sequence[_Part]) -> Mapping[int, Quality]:
    joined: dict[int, Quality] = {}
    at = 0
    for points, _, quality in parts:
        if quality:
            joined.update({at + i: why for i, why in quality.items()})
        at += len(points)
    return joined or ALL_GOOD
