"""Makes room by thinning the oldest rows, within the writer's transactions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, islice

from edged.buffer.batch import Batch
from edged.buffer.counters import Ledger
from edged.buffer.rows import Row, make_rows
from edged.buffer.store import Store
from edged.buffer.table import RowHead, make_row
from edged.buffer.thin import thin
from edged.model import Sample

_GROUP_READINGS = 50_000
_GROUP_SAMPLES = 10_000
"""So much is thinned at a time, so that it needs little memory."""
_FRESH = 8
"""The newest part in so many of the log's length is left as it is."""
_TRIES = 4
"""After so many stretches that do not become smaller, it is time to drop something."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Samples with consecutive numbers, as they were and as they become."""

    first: int
    old: Sequence[Sample]
    new: Sequence[Sample]
    rows: Sequence[Row]


class Thinner:
    """Reduces stretch after stretch, from the oldest on, each once."""

    def __init__(self, store: Store, interval: float) -> None:
        """`interval` in seconds."""
        self._store = store
        self._interval = round(interval * 1e6)
        self.most = store.max_transaction // 2
        """How many bytes it may write in one transaction."""
        self._written = 0

    def begin(self) -> None:
        """A new transaction begins."""
        self._written = 0

    def reduce(self, ledger: Ledger) -> bool:
        """Thin one stretch. False if there is none that would become smaller."""
        oldest = self._store.first_row()
        end = ledger.head - (ledger.head - oldest) // _FRESH
        for _ in range(_TRIES):
            stretch = self._next(ledger, end)
            if not stretch:
                return False
            ledger.thinned = stretch[-1].seq
            if self._rewrite(stretch, ledger):
                return True
        return False

    def _next(self, ledger: Ledger, end: int) -> list[RowHead]:
        """The next stretch to thin: rows of one boot that follow each other. Those with a target stay between them."""
        chosen: list[RowHead] = []
        before: RowHead | None = None
        readings = samples = size = 0
        with closing(self._store.heads(ledger.thinned)) as rows:
            for row in rows:
                if row.seq > end or (chosen and before and not _follows(before, row)):
                    break
                before = row
                if row.target:
                    continue
                readings, samples, size = readings + row.readings, samples + row.seq - row.first + 1, size + row.size
                if chosen and (readings > _GROUP_READINGS or samples > _GROUP_SAMPLES or size > 4 * self.most):
                    break
                chosen.append(row)
        return chosen

    def _rewrite(self, stretch: Sequence[RowHead], ledger: Ledger) -> bool:
        """Put fewer readings in the place of these rows. False if that would not make them smaller."""
        batches = [batch for batch in self._store.batches(stretch[0].first, stretch[-1].seq) if not batch.target]
        if len(batches) < len(stretch):
            return False  # a damaged row is found when it is read, and booked then
        samples = [sample for batch in batches for sample in batch.samples]
        reduced = iter(thin(samples, self._interval))
        runs = [
            _Run(first, old, new, [row for row in make_rows(new, self.most) if isinstance(row, Row)])
            for first, old in _runs(batches)
            for new in [list(islice(reduced, len(old)))]
        ]
        size = sum(len(row.data) for run in runs for row in run.rows)
        whole = sum(len(row.samples) for run in runs for row in run.rows) == len(samples)
        if not whole or size > sum(row.size for row in stretch) * 3 // 4 or self._written + size > self.most:
            return False
        self._written += size
        for run in runs:
            self._replace(run, stretch[0].boot, ledger)
        return True

    def _replace(self, run: _Run, boot: str, ledger: Ledger) -> None:
        first, last = run.first, run.first + len(run.old) - 1
        gone = list(
            accumulate((len(a.points) - len(b.points) for a, b in zip(run.old, run.new, strict=True)), initial=0)
        )
        for account in ledger.accounts.values():
            missing = account.cursor.missing(first, last)
            account.give_up(sum(gone[end - first + 1] - gone[begin - first] for begin, end in missing), "thinned")
        old_rows, _ = self._store.delete(first, last)
        for row in run.rows:
            self._store.insert(make_row(first, row.samples, row.readings, row.data, boot))
            first += len(row.samples)
        ledger.rows += len(run.rows) - old_rows
        ledger.kept -= gone[-1]


def _runs(batches: Sequence[Batch]) -> Iterator[tuple[int, list[Sample]]]:
    """The samples of neighbouring batches together, each with its first seq."""
    first, samples = batches[0].first, list(batches[0].samples)
    for batch in batches[1:]:
        if batch.first == first + len(samples):
            samples += batch.samples
            continue
        yield first, samples
        first, samples = batch.first, list(batch.samples)
    yield first, samples


def _follows(before: RowHead, row: RowHead) -> bool:
    return row.first == before.seq + 1 and row.boot == before.boot
