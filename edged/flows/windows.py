"""Reads the log in pieces that end where an interval ends (`edged.flows.pieces`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from edged.buffer.batch import PRIORITY, Batch
from edged.buffer.log import Buffer
from edged.flows.pieces import Piece, Window, beyond
from edged.wallclock import Clock

_REMEMBERED = 64
"""Intervals that are remembered as sent."""


class WindowReader:
    """Reads a buffer piece by piece, for one place in it."""

    def __init__(self, buffer: Buffer, place: str, interval: int, clock: Clock | None = None) -> None:
        """`interval` in microseconds. Without a clock, all times are taken to be right."""
        self._read: Callable[..., Awaitable[list[Batch]]] = buffer.read
        self._wait: Callable[[int], Awaitable[int]] = buffer.wait_beyond
        self._cursor = buffer.cursor
        self._place = place
        self._interval = interval
        self._clock = clock
        self._sent: list[tuple[int, int, bool]] = []
        """(Where the piece ended that had it, interval, whether it was a replay) of the last ones that were sent."""

    async def read(
        self, after: int, *, through: int | None = None, max_readings: int = 5000, target: str = ""
    ) -> list[Batch]:
        """One piece, waiting until its interval is over; none where there is nothing beyond `after`."""
        piece = Piece(self._interval, self._cursor(self._place).ahead, self._place)
        reached = after
        while True:
            rows = await self._read(reached, through=through, max_readings=max_readings, target=target)
            for row in rows:
                if piece.take(await self._with_right_times(beyond(row, reached))):
                    return [self._finished(piece)]
                reached = row.last
            if not rows:
                if not piece.rows or (through is not None and reached >= through):
                    return [self._finished(piece)] if piece.rows else []
                await self._wait(reached)

    async def _with_right_times(self, row: Batch) -> Batch:
        """Intervals are cut by the time that is sent."""
        if self._clock is None:
            return row
        await self._clock.ready(row.boot)
        return replace(row, samples=tuple(self._clock.settled(row.samples, row.boot)))

    def _finished(self, piece: Piece) -> Window:
        if not self._sent:
            self._sent = self._before_us(piece)
        before = [one for one in self._sent if one[0] < piece.rows[0].first]  # it may be read a second time
        replay = piece.rows[0].target not in {"", PRIORITY}
        made = piece.batch(window for _, window, again in before if again == replay)
        found = {sample.time // self._interval for sample in made.samples if sample.points}
        if replay and piece.whole:  # each replay tells a whole interval anew
            found.clear()
        self._sent = [*before, *((made.last, window, replay) for window in sorted(found))][-_REMEMBERED:]
        return made

    def _before_us(self, piece: Piece) -> list[tuple[int, int, bool]]:
        """What a process before this one may have sent: the part of the interval that the boot before this has read."""
        first = next((sample for row in piece.rows for sample in row.samples if sample.points), None)
        if first is None or piece.rows[0].first == 1:
            return []
        window, booted = first.time // self._interval, first.time - first.mono
        return [(0, window, False)] if booted > window * self._interval else []
