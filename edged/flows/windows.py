"""Reads the log in pieces that end where an interval ends, for flows that work something out of an interval.

Where a piece ends depends on nothing but the log and on where the one before it ended: before the first sample of a
later interval than all of the piece so far, before a row of another kind or boot, and after so many readings. So a
piece that is read again after a crash is the same piece. What comes late, for an interval that has been sent, is in a
later piece: it yields another row for that interval, and such rows add up, since each has its `count`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from edged.buffer.batch import Batch
from edged.buffer.log import Buffer
from edged.model import Sample

MAX_READINGS = 50_000
"""Of one piece: an interval with more comes in several."""


@dataclass(slots=True)
class Piece:
    """What of an interval has been read so far. Pure."""

    interval: int
    """Microseconds."""
    rows: list[Batch] = field(default_factory=list)
    window: int = 0
    readings: int = 0

    def take(self, row: Batch) -> bool:
        """Take a row, or the part of it that belongs here. Whether the piece is whole now."""
        if self.rows and not self._goes_on(row):
            return True
        for i, sample in enumerate(row.samples):
            window = sample.time // self.interval if sample.points else self.window
            begun = bool(self.rows) or i > 0
            if begun and (window > self.window or self.readings >= MAX_READINGS) and self.readings:
                if i:
                    self.rows.append(_part(row, row.samples[:i]))
                return True
            self.window = max(window, self.window) if begun else window
            self.readings += len(sample.points)
        self.rows.append(row)
        return False

    def _goes_on(self, row: Batch) -> bool:
        last = self.rows[-1]
        return (row.first, row.boot, row.target) == (last.last + 1, last.boot, last.target)

    def batch(self) -> Batch:
        """All of it as one."""
        first = self.rows[0]
        samples = tuple(sample for row in self.rows for sample in row.samples)
        return Batch(first.first, samples, first.boot, _readings(samples), first.target)


def beyond(row: Batch, after: int) -> Batch:
    """The part of a row that is beyond `after`."""
    return row if row.first > after else _part(row, row.samples[after - row.first + 1 :], after + 1)


def _part(row: Batch, samples: tuple[Sample, ...], first: int = 0) -> Batch:
    return Batch(first or row.first, samples, row.boot, _readings(samples), row.target)


def _readings(samples: tuple[Sample, ...]) -> int:
    return sum(len(sample.points) for sample in samples)


class WindowReader:
    """Reads a buffer piece by piece."""

    def __init__(self, buffer: Buffer, interval: int) -> None:
        """`interval` in microseconds."""
        self._read: Callable[..., Awaitable[list[Batch]]] = buffer.read
        self._wait: Callable[[int], Awaitable[int]] = buffer.wait_beyond
        self._interval = interval

    async def read(
        self, after: int, *, through: int | None = None, max_readings: int = 5000, target: str = ""
    ) -> list[Batch]:
        """One piece, waiting until its interval is over; none where there is nothing beyond `after`."""
        piece = Piece(self._interval)
        reached = after
        while True:
            rows = await self._read(reached, through=through, max_readings=max_readings, target=target)
            for row in rows:
                if piece.take(beyond(row, reached)):
                    return [piece.batch()]
                reached = row.last
            if not rows:
                if not piece.rows or (through is not None and reached >= through):
                    return [piece.batch()] if piece.rows else []
                await self._wait(reached)
