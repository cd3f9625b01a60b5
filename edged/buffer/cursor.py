"""How far one connection has got in the log. Pure.

`low` is a watermark: everything up to it is settled. What was settled out of order beyond it are islands. Settling is
a union of sets of sequence numbers, so doing it twice, or in any order, makes no difference.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Span = tuple[int, int]
"""A range of sequence numbers, both ends included."""


@dataclass(frozen=True, slots=True)
class CursorState:
    """A connection's position, as it is at one moment."""

    low: int
    """Every sample up to this seq is settled; `low + 1` is not."""
    islands: tuple[Span, ...] = ()
    """Ranges beyond `low` that are settled too: ascending, disjoint, not adjacent."""
    lanes: Mapping[str, int] = field(default_factory=dict)
    """Lane → the highest seq that the receiver took on it."""
    ahead: int = 0
    """All samples with priority up to this seq are settled."""


class Intervals:
    """A set of sequence numbers: all up to `low`, and some islands beyond."""

    __slots__ = ("_ends", "_starts", "low")

    def __init__(self, low: int = 0, islands: Iterable[Span] = ()) -> None:
        self.low = low
        self._starts: list[int] = []
        self._ends: list[int] = []
        for first, last in islands:
            self.add(first, last)

    @property
    def islands(self) -> tuple[Span, ...]:
        """The ranges beyond `low`: ascending, disjoint, not adjacent."""
        return tuple(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        """The number of islands."""
        return len(self._starts)

    def settled_beyond(self) -> int:
        """How many numbers the islands hold."""
        return sum(self._ends) - sum(self._starts) + len(self._starts)

    def missing(self, first: int, last: int) -> list[Span]:
        """The parts of first..last that are not in the set, ascending."""
        gaps: list[Span] = []
        at = max(first, self.low + 1)
        for i in range(bisect_left(self._ends, at), len(self._starts)):
            if self._starts[i] > last:
                break
            if self._starts[i] > at:
                gaps.append((at, self._starts[i] - 1))
            at = self._ends[i] + 1
        if at <= last:
            gaps.append((at, last))
        return gaps

    def would_grow(self, first: int, last: int) -> bool:
        """Whether adding first..last would make one island more."""
        touching = bisect_right(self._starts, last + 1) - bisect_left(self._ends, first - 1)
        return first > self.low + 1 and touching == 0

    def add(self, first: int, last: int) -> list[Span]:
        """Put first..last into the set; returns the parts that were new. Raises ValueError for an empty range."""
        if not 0 < first <= last:
            raise ValueError(f"{first}..{last} is not a range of sequence numbers")
        new = self.missing(first, last)
        if not new:
            return new
        begin = bisect_left(self._ends, first - 1)
        end = bisect_right(self._starts, last + 1)
        if begin < end:
            first, last = min(first, self._starts[begin]), max(last, self._ends[end - 1])
        if first <= self.low + 1:
            self.low = last
            first_kept = bisect_right(self._starts, last + 1)
            del self._starts[:first_kept], self._ends[:first_kept]
        else:
            self._starts[begin:end], self._ends[begin:end] = [first], [last]
        return new


def common(sets: Iterable[Intervals]) -> tuple[int, list[Span]]:
    """What all of the sets hold: (low, spans beyond it). With no sets: nothing."""
    everything = list(sets)
    if not everything:
        return 0, []
    low = min(intervals.low for intervals in everything)
    spans = _spans_beyond(everything[0], low)
    for intervals in everything[1:]:
        spans = _intersection(spans, _spans_beyond(intervals, low))
    return low, spans


def _spans_beyond(intervals: Intervals, low: int) -> list[Span]:
    return [(low + 1, intervals.low), *intervals.islands] if intervals.low > low else list(intervals.islands)


def _intersection(left: list[Span], right: list[Span]) -> list[Span]:
    result: list[Span] = []
    i = j = 0
    while i < len(left) and j < len(right):
        first, last = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if first <= last:
            result.append((first, last))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return result
