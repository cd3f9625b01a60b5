"""What waits in memory for the next flush, and for a disk that refuses: samples, and counts of readings."""

from __future__ import annotations

from collections.abc import Callable

from edged.buffer.alarm import Alarm
from edged.buffer.cadence import Cadence
from edged.buffer.counters import Totals
from edged.buffer.jobs import Done, Job
from edged.config.model import BufferConfig
from edged.model import Sample

_NEVER = 2**62


class Inbox:
    """Bounded: beyond `inbox_readings` new samples are refused, or the oldest dropped, as `when_full` says."""

    def __init__(self, config: BufferConfig, alarm: Alarm, cadence: Cadence, flush: Callable[[], None]) -> None:
        """`flush`: what to call when it must be emptied before its time."""
        self._limit = config.inbox_readings
        self._flush_readings = config.flush_readings
        self._sheds = config.when_full != "drop-newest"
        self._alarm = alarm
        self._cadence = cadence
        self._flush = flush
        self._closed = False
        self._samples: list[Sample] = []
        self._first: list[Sample] = []
        self.fresh = 0
        """Readings that the writer has not got yet."""
        self._held = 0
        self._room = self._limit
        self._early = 0
        self._totals, self._flying = Totals(), Totals()

    @property
    def waiting(self) -> int:
        """Readings that are not committed yet."""
        return self.fresh + self._held

    @property
    def counted(self) -> bool:
        """Whether there are counts that the writer has not got yet."""
        return bool(self._totals.read or self._totals.suppressed or self._totals.rejected)

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed, self._room = True, -1

    def put(self, sample: Sample) -> bool:
        """See `Buffer.put`."""
        fresh = self.fresh + len(sample.values)
        if fresh > self._room:
            return self._refuse(len(sample.values))
        self.fresh = fresh
        self._samples.append(sample)
        if fresh >= self._early:
            self._hurry()
        return True

    def put_first(self, sample: Sample, *, at_once: bool) -> bool:
        """See `Buffer.put_first`."""
        if self.fresh + len(sample.values) > self._room:
            return self._refuse(len(sample.values))
        self.fresh += len(sample.values)
        self._first.append(sample)
        self._cadence.ask()
        if at_once and self._cadence.may_hurry():
            self._flush()
        return True

    def count(self, *, read: int = 0, suppressed: int = 0, rejected: int = 0, reason: str = "") -> None:
        """See `Buffer.count`."""
        totals = self._totals
        totals.read += read
        totals.suppressed += suppressed
        if rejected:
            totals.rejected[reason] += rejected
        self._cadence.ask_sometime()

    def totals(self, committed: Totals) -> Totals:
        """What is committed and what is not, together."""
        totals = committed.copy()
        for uncommitted in (self._flying, self._totals):
            totals.add(uncommitted)
        return totals

    def _refuse(self, readings: int) -> bool:
        full = self._alarm.refuses_new
        self.count(rejected=readings, reason="buffer_full" if full else "inbox_full")
        if not full and not self._closed:
            self._alarm.inbox_full(self.waiting, "new ones are refused")
        self._cadence.ask()
        return False

    def _hurry(self) -> None:
        """Flush early when there is much, and try the disk again before there is no room for more."""
        self._cadence.ask()
        early = self._flush_readings
        if self._cadence.retry:
            early = self._room // 2 if self._sheds else _NEVER
        if self.fresh >= early:
            self._early = _NEVER
            self._flush()
        else:
            self._early = early

    def hand_over(self, job: Job) -> None:
        """Give all to the writer."""
        job.keep = self._limit * 3 // 4 if self._sheds else None
        job.samples, job.priority, job.totals = self._samples, self._first, self._totals
        self._held += self.fresh
        self._flying.add(self._totals)
        self._samples, self._first, self._totals, self.fresh, self._early = [], [], Totals(), 0, 0
        self._room = self._room_left()

    def _room_left(self) -> int:
        if self._closed or self._alarm.refuses_new:
            return -1
        return self._limit - self._held

    def settle(self, done: Done) -> None:
        """What the writer has stored or given up waits no longer. The alarm knows of it already."""
        self._held -= done.stored + done.refused
        if done.uncommitted is not None:
            self._flying = done.uncommitted
        self._room = self._room_left()
        if done.shed:
            self._alarm.inbox_full(self.waiting, "the oldest are dropped")
        elif self.waiting < self._limit // 2:
            self._alarm.inbox_has_room()
