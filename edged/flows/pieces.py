"""Pieces of the log that end where an interval ends, for flows that work something out of an interval. Pure.

Where a piece ends depends on nothing but the log and on where the one before it ended: before the first sample of a
later interval than all of the piece so far, before a row of another kind or boot, and after so many readings. So a
piece that is read again after a crash is the same piece. What comes late, for an interval that has been sent, is in a
later piece: it yields another row for that interval, and such rows add up, since each has its `count`. Rows that are
not all of their interval say so (`edged.flows.steps.Cut`).

What a person had sent once more makes pieces of its own. What was sent once more elsewhere cuts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from edged.buffer.batch import PRIORITY, Batch
from edged.flows.steps import Cut
from edged.model import ALL_GOOD, Sample

MAX_READINGS = 50_000
"""Of one piece: an interval with more comes in several."""


@dataclass(frozen=True, slots=True)
class Window(Batch):
    """A piece of the log, as one batch."""

    cut: Cut = field(default_factory=Cut)


@dataclass(slots=True)
class Piece:
    """What of an interval has been read so far. Pure."""

    interval: int
    """Microseconds."""
    apart: int = 0
    """Rows with priority up to here are settled each for itself, and so stay apart."""
    place: str = ""
    """Whose piece it is: rows for another place are none of it."""
    rows: list[Batch] = field(default_factory=list)
    window: int = 0
    readings: int = 0
    whole: bool = False
    """Whether it ended because its interval did."""

    def take(self, row: Batch) -> bool:
        """Take a row, or the part of it that belongs here. Whether the piece is at its end now."""
        if row.target not in {"", PRIORITY, self.place}:
            row = self._nothing_of(row)
        if self.rows and not self._goes_on(row):
            self.whole = bool(row.samples) and row.target == "" and self._of(row.samples[0]) > self.window
            return True
        for i, sample in enumerate(row.samples):
            window = self._of(sample)
            begun = bool(self.rows) or i > 0
            if begun and (window > self.window or self.readings >= MAX_READINGS) and self.readings:
                self.whole = window > self.window
                if i:
                    self.rows.append(_part(row, row.samples[:i]))
                return True
            self.window = max(window, self.window) if begun else window
            self.readings += len(sample.points)
        self.rows.append(row)
        return False

    def _nothing_of(self, row: Batch) -> Batch:
        """A row that is for another place: here it only fills the numbers."""
        boot, kind = (self.rows[-1].boot, self.rows[-1].target) if self.rows else (row.boot, "")
        samples = tuple(replace(one, points=(), values=[], quality=ALL_GOOD) for one in row.samples)
        return Batch(row.first, samples, boot, 0, kind)

    def _of(self, sample: Sample) -> int:
        return sample.time // self.interval if sample.points else self.window

    def _goes_on(self, row: Batch) -> bool:
        last = self.rows[-1]
        return (row.first, row.boot, self._kind(row)) == (last.last + 1, last.boot, self._kind(last))

    def _kind(self, row: Batch) -> str:
        """Rows with priority stand among the others: a flow with an interval has one order for all."""
        return "" if row.priority and row.last > self.apart else row.target

    def batch(self, sent: Iterable[int] = ()) -> Window:
        """All of it as one. `sent`: intervals of which pieces before have sent a row."""
        first = self.rows[0]
        samples = tuple(sample for row in self.rows for sample in row.samples)
        begin = self.window * self.interval
        cut = Cut(begin, frozenset(window * self.interval for window in sent))
        if not self.whole:
            cut = replace(cut, partial_from=begin)
        return Window(first.first, samples, first.boot, _readings(samples), self._kind(first), cut)


def beyond(row: Batch, after: int) -> Batch:
    """The part of a row that is beyond `after`."""
    return row if row.first > after else _part(row, row.samples[after - row.first + 1 :], after + 1)


def _part(row: Batch, samples: tuple[Sample, ...], first: int = 0) -> Batch:
    return Batch(first or row.first, samples, row.boot, _readings(samples), row.target)


def _readings(samples: tuple[Sample, ...]) -> int:
    return sum(len(sample.points) for sample in samples)
