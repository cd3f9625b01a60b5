"""The newest batches, kept in memory for the connections that keep up. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter

from edged.buffer.batch import Batch

_last = attrgetter("last")


class Tail:
    """Consecutive batches up to the head, at most about `max_readings`."""

    def __init__(self, max_readings: int) -> None:
        self._max_readings = max_readings
        self._batches: list[Batch] = []
        self._readings = 0

    def extend(self, batches: Iterable[Batch], settled: int) -> None:
        """Add new batches; drop what is too much, and what nobody needs: all up to the seq `settled`."""
        for batch in batches:
            self._batches.append(batch)
            self._readings += batch.readings
        gone = 0
        for batch in self._batches:
            if batch.last > settled and self._readings <= self._max_readings:
                break
            self._readings -= batch.readings
            gone += 1
        del self._batches[:gone]

    def covers(self, after: int) -> bool:
        """Whether everything beyond `after` is here."""
        return bool(self._batches) and after + 1 >= self._batches[0].first

    def read(self, after: int, through: int | None, max_readings: int, target: str = "") -> list[Batch]:
        """The batches beyond `after` that begin at or before `through`: one at least, up to `max_readings`.

        With a `target` only its.
        """
        found: list[Batch] = []
        for batch in self._batches[bisect_right(self._batches, after, key=_last) :]:
            if target and batch.target != target:
                continue
            max_readings -= batch.readings
            if (through is not None and batch.first > through) or (found and max_readings < 0):
                break
            found.append(batch)
        return found
