"""Reads whole ranges of a device that nobody has described, and learns which addresses it has.

Pure: says what to read next, and is told what came of it. A refused block is read in halves, down to single addresses,
so that what is left is exactly what the device has. A device that refuses long blocks only is asked for shorter ones
from then on. Some devices keep silent about what they do not have; that is taken for a refusal, but since each costs a
time-out, a table is given up after some silences in a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from .planner import MAX_BITS, MAX_REGISTERS, Span, Table

_ILLEGAL_FUNCTION = 1
_SILENCES = 8
"""So many unanswered requests in a row, and the rest of the table is not asked for."""


class Sweep:
    """One pass over some ranges. Ask `next`, then tell one of `got`, `refused` and `silent`."""

    def __init__(self, spans: Iterable[Span], *, most: int = MAX_REGISTERS, avoid: Sequence[Span] = ()) -> None:
        self.words: dict[Table, dict[int, int]] = {}
        """What was read, by address."""
        self.refusals: list[Span] = []
        """What the device does not have."""
        self._most = most
        self._queue = deque(piece for span in spans for piece in _without(span, avoid))
        self.total = sum(span.count for span in self._queue)
        """How many addresses there are to ask for."""
        self._halves: dict[Span, Span] = {}
        """Half of a refused block → that block, until one of them is refused, too."""
        self._silences = 0
        self.gave_up: list[Table] = []
        """Tables in which it kept silent too often."""

    @property
    def left(self) -> int:
        """How many addresses were not settled yet."""
        return sum(span.count for span in self._queue)

    def next(self) -> Span | None:
        """What to read next; None at the end."""
        if not self._queue:
            return None
        span = self._queue.popleft()
        most = MAX_BITS if span.table.is_bits else self._most
        if span.count > most:
            self._queue.appendleft(Span(span.table, span.start + most, span.count - most))
            span = Span(span.table, span.start, most)
        self._queue.appendleft(span)
        return span

    def got(self, span: Span, words: Sequence[int]) -> None:
        """This is what is there."""
        self._settle(span)
        self.words.setdefault(span.table, {}).update(zip(range(span.start, span.end), words, strict=True))
        whole = self._halves.pop(span, None)
        if whole is not None and whole not in self._halves.values() and not span.table.is_bits:
            # Both halves were granted, so it was the length that was refused.
            self._most = min(self._most, (whole.count + 1) // 2)

    def refused(self, span: Span, code: int) -> None:
        """The device refused it, with this exception code."""
        self._settle(span)
        if code == _ILLEGAL_FUNCTION:
            self._refuse(span)
            self._drop(span.table)
        else:
            self._halve(span)

    def silent(self, span: Span) -> None:
        """It was not answered."""
        silences = self._silences + 1
        self._settle(span)
        self._silences = silences
        if silences >= _SILENCES:
            self._refuse(span)
            self._drop(span.table)
            self.gave_up.append(span.table)
            self._silences = 0
        else:
            self._halve(span)

    def _halve(self, span: Span) -> None:
        whole = self._halves.pop(span, None)
        if whole is not None:
            self._halves = {half: of for half, of in self._halves.items() if of != whole}
        if span.count == 1:
            self._refuse(span)
            return
        middle = span.count // 2
        halves = (Span(span.table, span.start, middle), Span(span.table, span.start + middle, span.count - middle))
        self._queue.extendleft(reversed(halves))
        self._halves.update(dict.fromkeys(halves, span))

    def _drop(self, table: Table) -> None:
        for span in self._queue:
            if span.table == table:
                self._refuse(span)
        self._queue = deque(span for span in self._queue if span.table != table)

    def _settle(self, span: Span) -> None:
        if self._queue[0] != span:
            raise ValueError(f"{span} is not what `next` gave")
        self._queue.popleft()
        self._silences = 0

    def _refuse(self, span: Span) -> None:
        last = self.refusals[-1] if self.refusals else None
        if last is not None and (last.table, last.end) == (span.table, span.start):
            self.refusals[-1] = Span(last.table, last.start, last.count + span.count)
        else:
            self.refusals.append(span)


def _without(span: Span, avoid: Sequence[Span]) -> list[Span]:
    """What is left of a span."""
    pieces = [span]
    for hole in avoid:
        pieces = [part for piece in pieces for part in _cut(piece, hole)]
    return pieces


def _cut(piece: Span, hole: Span) -> list[Span]:
    if not piece.overlaps(hole):
        return [piece]
    before = Span(piece.table, piece.start, max(hole.start - piece.start, 0))
    after = Span(piece.table, hole.end, max(piece.end - hole.end, 0))
    return [part for part in (before, after) if part.count]
