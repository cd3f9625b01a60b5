"""The lanes of one connection: what each has to send, in which order, and which message precedes which. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from edged.buffer.batch import PRIORITY, Batch
from edged.buffer.cursor import Intervals, Span
from edged.uplink.api import Chunk, Lane

_REMEMBERED = 4096


class Chain:
    """The messages of one lane, acknowledged or in flight, by `seq`: it knows which one precedes another."""

    def __init__(self, last: int = 0) -> None:
        """`last` is the seq of the last message of earlier runs; 0 if there was none."""
        self._seqs = [last] if last else []

    @property
    def last(self) -> int:
        """The seq of the latest message; 0 if there is none."""
        return self._seqs[-1] if self._seqs else 0

    def before(self, first: int) -> int:
        """The seq of the message that precedes one beginning with `first`; 0 if none is known."""
        i = bisect_left(self._seqs, first)
        return self._seqs[i - 1] if i else 0

    def add(self, seq: int) -> None:
        """A message was sent."""
        if seq > self.last:
            self._seqs.append(seq)
        elif seq not in self._seqs:
            insort(self._seqs, seq)
        if len(self._seqs) > 2 * _REMEMBERED:
            del self._seqs[:_REMEMBERED]

    def drop(self, seq: int) -> None:
        """The receiver did not take it after all."""
        i = bisect_left(self._seqs, seq)
        if i < len(self._seqs) and self._seqs[i] == seq:
            del self._seqs[i]


@dataclass(slots=True)
class Route:
    """What one lane sends in one session: everything of its own that is unsettled in (after, through], in order."""

    lane: Lane
    after: int
    through: int | None = None
    """None: without end."""
    target: str = ""
    """Of the rows that it sends; empty: of those that have none."""
    strict: bool = False
    """Whether it sends all rows, whatever their target."""
    reached: int = 0
    """How far it has come in the log."""
    taken: int = 0
    """The end of the last row that was for this lane. What lies between it and `reached` is none of its business."""

    def __post_init__(self) -> None:
        self.reached = self.taken = self.after

    def takes(self, batch: Batch) -> bool:
        """Whether a batch is for this lane."""
        return self.strict or batch.target == self.target

    def has_passed(self, chunk: Chunk) -> bool:
        """Whether the chunk lies in the part of the log that this lane walks through, and has walked through."""
        return not self.target and self.after < chunk.first and chunk.last <= self.reached

    def unsettled(self, chunk: Chunk, missing: Callable[[int, int], list[Span]]) -> Iterator[Chunk]:
        """The parts of a chunk that this lane has to send; `missing` tells what of a range is not settled."""
        last = chunk.last if self.through is None else min(chunk.last, self.through)
        first = max(chunk.first, self.after + 1)
        for begin, end in missing(first, last) if first <= last else ():
            yield part(chunk, begin, end)


def part(chunk: Chunk, first: int, last: int) -> Chunk:
    """The samples first..last of a chunk."""
    if (first, last) == (chunk.first, chunk.last):
        return chunk
    samples = chunk.samples[first - chunk.first : last - chunk.first + 1]
    since = first if chunk.since and first > chunk.first else chunk.since
    readings = sum(len(sample.points) for sample in samples)
    return replace(chunk, first=first, samples=samples, readings=readings, since=since)


def halves(chunk: Chunk) -> tuple[Chunk, Chunk]:
    """A chunk of several samples as two."""
    middle = chunk.first + len(chunk.samples) // 2
    return part(chunk, chunk.first, middle - 1), part(chunk, middle, chunk.last)


def plan(settled: Intervals, head: int, fresh: Sequence[int]) -> list[Route]:
    """Who sends what in a new session of what has no priority and is no replay.

    `fresh` are the positions p, each the end of something settled, for which the sample p + 1 is fresh. The live lane
    begins at the first of them, or at `head`; the historical lane has everything before, if that is anything.
    """
    begin = min([*fresh, head])
    routes = [Route(Lane.LIVE, begin)]
    if settled.missing(1, begin):
        routes.append(Route(Lane.HISTORICAL, settled.low, begin))
    return routes


def plan_beside(connection: str, low: int, ahead: int) -> list[Route]:
    """Who sends what has priority, and what is sent once more. `ahead`: all up to it that has priority is settled."""
    return [
        Route(Lane.PRIORITY, max(low, ahead), target=PRIORITY),
        Route(Lane.REPLAY, low, target=connection),
    ]


def plan_strict(low: int) -> list[Route]:
    """One lane for everything."""
    return [Route(Lane.LIVE, low, strict=True)]
