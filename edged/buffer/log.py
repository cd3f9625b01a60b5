"""The store-and-forward buffer as the event loop sees it.

Everything here runs in the loop's thread and never waits for the disk, except where it is awaited. Samples and settles
collect in memory; at each flush they go together to the writer thread, one job at a time. What a stats or cursor call
shows as durable is what the writer has committed.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

from edged.buffer.alarm import Alarm
from edged.buffer.batch import Batch
from edged.buffer.cadence import Cadence
from edged.buffer.counters import Account, BufferStats, ConnectionStats, Ledger, Pending, Settle, Verification
from edged.buffer.cursor import CursorState, Span
from edged.buffer.inbox import Inbox
from edged.buffer.jobs import Done, Job
from edged.buffer.reader import Reader
from edged.buffer.store import Letter
from edged.buffer.table import DamagedError, is_corrupt
from edged.buffer.tail import Tail
from edged.buffer.threads import STOP_SECONDS, Doing, Threads
from edged.buffer.writer import Writer
from edged.clock import wall_us
from edged.config.model import BufferConfig
from edged.errors import TransientError
from edged.model import Sample

log = logging.getLogger("edged.buffer")
T = TypeVar("T")
_NEVER = 2**62
_NONE: Mapping[str, int] = MappingProxyType({})


class Buffer:
    """Keeps samples until every connection has settled them, or a limit acts. One per process and file."""

    def __init__(
        self,
        path: Path,
        config: BufferConfig,
        connections: Sequence[str] | None,
        *,
        boot: str,
        max_age: Mapping[str, float] | None = None,
        migrate: bool = True,
    ) -> None:
        """`connections`: those that readings are kept for; None leaves those that the file knows as they are.

        `max_age`: by connection, the age in seconds beyond which it does not want readings any more. `migrate`: whether
        a file of an older format is brought up to date where it could also be used as it is.
        """
        self.epoch = ""
        """An opaque name for this file's life: seq starts a new story when it changes. Empty before `start`."""
        self.head = 0
        """The seq of the last committed sample; 0 if there is none."""
        self.intervals: dict[str, int] = {}
        """Places that work something out of intervals, and their length, microseconds."""
        self._config = config
        self._writer = Writer(path, config, connections, boot, max_age, migrate=migrate)
        self._gives_up = config.max_age > 0 or any((max_age or {}).values())
        self._reader = Reader(path)
        self._threads = Threads()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._advanced = asyncio.Event()
        self._stopping = False
        self._ledger = Ledger()
        self._cursors: dict[str, Account] = {}
        self._inbox: Inbox
        self._settles: list[Settle] = []
        self._undurable: Counter[str] = Counter()
        self._damaged: list[Span] = []
        self._suspect = ""
        self._waiters: list[asyncio.Future[int]] = []
        self._tail = Tail(2 * config.flush_readings)
        self._cadence: Cadence
        self._due = False
        self._alarm = Alarm(config)

    # life

    async def start(self) -> None:
        """Open, create or repair the file.

        Raises ConfigError (directory not writable, in use by another process, written by a newer edged) and
        TransientError (disk full or failing). Damage is no error: what can be read is saved, the rest is set aside.
        """
        try:
            await self._threads.write("request", self._writer.open)
        except BaseException:
            self._threads.abandon()
            raise
        self._ledger = self._writer.ledger
        self.epoch, self.head = self._writer.epoch, self._ledger.head
        self._cursors = {name: account.copy() for name, account in self._ledger.accounts.items()}
        self._cadence = Cadence(float(self._config.flush), self._flush_now)
        self._inbox = Inbox(self._config, self._alarm, self._cadence, self._flush_now)
        self._task = asyncio.create_task(self._flush_forever(), name="buffer-flush")
        if self._gives_up:  # while we were away, and before somebody sends it
            try:
                await self.change(lambda writer, done: writer.retention.retain(writer.ledger, done))
            except TransientError as exc:
                log.warning("what has become too old is given up with the next commit: %s", exc)

    async def stop(self) -> None:
        """Flush what is there, save the cursors and close. Ends within seconds even if the disk does not answer."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._stopping = True
        self._inbox.close()
        self._flush_now()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        if not task.done():
            task.cancel()
        if waiting := self._inbox.waiting:
            log.error("%d readings could not be written to the buffer before the end: %s", waiting, self._alarm.detail)
        self._cadence.cancel()
        await self._threads.stop(self._reader.close, self._writer.close)

    async def failed(self) -> None:
        """Wait until the buffer has stopped; raises what stopped it, if it was not `stop`."""
        if self._task is not None:
            task = self._task
            await asyncio.wait({task})
            task.result()

    # in

    def put(self, sample: Sample) -> bool:
        """Take a sample, to be durable with the next flush. False if there is no room: it is counted as rejected."""
        return self._inbox.put(sample)

    def put_first(self, sample: Sample, *, at_once: bool) -> bool:
        """Take a sample that is to pass ahead of the others; otherwise as `put`.

        `at_once`: do not wait for the next flush, as far as the disk is to bear that.
        """
        return self._inbox.put_first(sample, at_once=at_once)

    def count(self, *, read: int = 0, suppressed: int = 0, rejected: int = 0, reason: str = "") -> None:
        """Count what the pipeline saw, in readings.

        Call it in the same step as `put`, with no await between them: then read = stored + suppressed + rejected holds
        in every commit.
        """
        self._inbox.count(read=read, suppressed=suppressed, rejected=rejected, reason=reason)

    async def flush(self) -> int:
        """Make everything put and settled so far durable; returns head. Waits as long as the disk refuses.

        Raises TransientError if the buffer stops before that.
        """
        if self._task is None or self._task.done():
            raise TransientError("the buffer has stopped", reason="stopped")
        if not (self._inbox.waiting or self._settles or self._undurable.total() or self._dirty()):
            return self.head
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._flush_now()
        return await waiter

    # out

    async def wait_beyond(self, seq: int) -> int:
        """Wait until there are committed samples beyond `seq`; returns head."""
        while self.head <= seq:
            await self._advanced.wait()
        return self.head

    async def read(
        self, after: int, *, through: int | None = None, max_readings: int = 10_000, target: str = ""
    ) -> list[Batch]:
        """Committed batches that end beyond `after` and begin at or before `through`, ascending.

        All, or those with this `target` (see `Batch`). At least one if there is one, then up to `max_readings`. The
        first may begin before `after`. A damaged batch is
        skipped: its samples are settled for all connections and counted as evicted. Raises TransientError if the disk
        cannot be read now.
        """
        if after >= self.head:
            return []
        if self._tail.covers(after):
            return self._tail.read(after, through, max_readings, target)
        # The file may be ahead of us by the commit that the writer is just about to tell of.
        through = self.head if through is None else min(through, self.head)
        while True:
            batches, unreadable = await self._read(self._reader.batches, after, through, max_readings, target)
            self._report(unreadable)
            if batches and batches[0].last <= self._ledger.thinned:
                batches[0] = _beyond(batches[0], after)
            if batches or not unreadable:
                return batches
            after = max(last for _, last in unreadable)

    def cursor(self, connection: str) -> CursorState:
        """How far the connection has got, settles not yet durable included. Raises KeyError."""
        return self._cursors[connection].state()

    def settle(
        self, connection: str, first: int, last: int, readings: int, *, lane: str,
        outcome: Literal["delivered", "dead"], reason: str = "", detail: str = "", ahead_from: int = 0,
        in_place: bool = True, left_out: int = 0,
    ) -> None:  # fmt: skip
        """The samples first..last, `readings` readings together, need no more sending. Durable with the next commit.

        With `ahead_from` they have priority, and so do not wait for what stands before them in the log; from
        `ahead_from` on all others with priority are settled or on their way. When what stands before them is settled or
        on its way too, they are `in_place`, or `pass_over` says it later. A flow `left_out` some of the readings.

        Settling what is settled already changes nothing. Raises KeyError (no such connection) and ValueError.
        """
        if last > self.head:
            raise ValueError(f"{first}..{last} cannot be settled: the last sample is {self.head}")
        account = self._cursors[connection]
        settle = Settle(
            connection, first, last, readings, lane, outcome, reason, detail, ahead_from, in_place, left_out
        )
        account.take(settle)
        account.send(settle)
        self._settles.append(settle)
        self._undurable[connection] += 1
        self._cadence.ask()

    def missing(self, connection: str, first: int, last: int, *, priority: bool = False) -> list[Span]:
        """The parts of first..last that the connection has not settled; all of one row, if that has `priority`.

        Raises KeyError.
        """
        return self._cursors[connection].missing(first, last, priority=priority)

    def pass_over(self, connection: str, first: int, last: int) -> None:
        """A lane has come to samples with priority that were perhaps settled ahead: see `settle`. Raises KeyError."""
        account = self._cursors[connection]
        for begin, end in account.settled_ahead(first, last):
            settle = Settle(connection, begin, end, 0, "", "passed")
            account.take(settle)
            self._settles.append(settle)
            self._cadence.ask()

    def durable(self, connection: str) -> int:
        """How many settles of the connection a crash would forget: after it, their messages are sent again."""
        return self._undurable[connection]

    async def saved(self, connection: str, below: int) -> None:
        """Commit early, and wait until a crash would forget fewer than `below` settles of the connection."""
        while self._undurable[connection] >= below:
            self.request_commit()
            await self._advanced.wait()

    def request_commit(self) -> None:
        """Make settles durable soon rather than with the next flush. Calls are grouped while a commit is under way."""
        if self._settles and not self._cadence.retry:
            self._wake.set()

    # by request of a person

    async def change(self, work: Callable[[Writer, Done], T]) -> T:
        """Have the writer do something in a transaction of its own. Raises TransientError if the disk refuses."""
        return await self._by_request(self._writer.change, work)

    async def serve(self, connections: Sequence[str], max_age: Mapping[str, float]) -> None:
        """From now on keep readings for these connections, as the constructor's arguments say.

        A new one begins with the oldest row there is; of one that is not named any more nothing remains. Raises
        TransientError if the disk refuses: then nothing has changed.
        """
        names, ages = tuple(connections), dict(max_age)
        await self.change(lambda writer, done: writer.serve(names, ages, done))
        accounts = self._ledger.accounts
        self._cursors = {
            name: self._cursors[name] if name in self._cursors else account.copy() for name, account in accounts.items()
        }
        for name in [name for name in self._undurable if name not in accounts]:
            del self._undurable[name]

    async def rewrite(self, why: str = "") -> None:
        """Copy everything into a new file, without damage and without free space. Raises TransientError.

        It holds up writing for as long as that takes.
        """
        await self._by_request(self._writer.rewrite, why)

    async def _by_request(self, function: Callable[..., tuple[T, Done]], argument: object) -> T:
        if self._task is None or self._stopping:
            raise TransientError("the buffer has stopped", reason="stopped")
        try:
            result, done = await self._threads.write("request", function, argument)
        except (sqlite3.Error, OSError, DamagedError) as exc:
            raise TransientError(f"the buffer cannot be changed now: {exc}", reason="disk") from exc
        self._apply(done)
        return result

    async def history(self, begin: int, end: int, doubtful: Mapping[str, int] = _NONE) -> AsyncIterator[Batch]:
        """All batches in the file that reach into [begin, end), microseconds since 1970. Raises TransientError.

        And those of `doubtful` boots up to that moment of their monotonic clock: they may have another time than the
        one that they were stored with.
        """
        batches, after = await self._read(self._reader.history, 0, begin, end, doubtful)
        while after:
            for batch in batches:
                yield batch
            batches, after = await self._read(self._reader.history, after, begin, end, doubtful)

    async def letters(self) -> list[Letter]:
        """The dead letters, oldest first. Raises TransientError."""
        return await self._read(self._reader.letters)

    # questions

    async def pending(self, connection: str) -> Pending:
        """What waits for the connection, as of the last commit. Raises KeyError, TransientError."""
        account = self._ledger.accounts[connection]
        low = account.cursor.low
        samples = self._ledger.head - low - account.cursor.settled_beyond()
        if samples <= 0:
            return Pending(account.pending, 0, 0.0)
        if self._tail.covers(low):
            batch = self._tail.read(low, None, 1)[0]
            oldest = batch.samples[max(0, low + 1 - batch.first)].time
        else:
            oldest = await self._read(self._reader.earliest, low)
        return Pending(account.pending, samples, max(0, wall_us() - oldest) / 1e6 if oldest else 0.0)

    async def verify(self) -> Verification:
        """Count all rows anew and compare with the counters. It holds up writing for as long as that takes."""
        return await self._threads.write("request", self._writer.verify)

    def stats(self) -> BufferStats:
        """The state of the buffer. Counters of connections are as of the last commit."""
        ledger, store = self._ledger, self._writer.store
        totals = self._inbox.totals(ledger.totals)
        return BufferStats(
            epoch=self.epoch,
            head=self.head,
            read=totals.read,
            stored=ledger.stored,
            suppressed=totals.suppressed,
            rejected=totals.rejected.total(),
            rejected_by=dict(totals.rejected),
            waiting=self._inbox.waiting,
            rows=ledger.rows,
            readings=ledger.kept,
            file_bytes=store.file_bytes(),
            wal_bytes=store.wal_bytes(),
            used_bytes=self._writer.used_bytes,
            alarm=self._alarm.kind,
            detail=self._alarm.detail,
            commits=self._writer.commits,
            commit_seconds=self._writer.commit_seconds,
            connections=_stats(ledger.accounts),
            removed=_stats(self._writer.removed),
            lost=ledger.lost,
        )

    # flushing

    def _flush_now(self) -> None:
        self._due = True
        self._wake.set()

    def _dirty(self) -> bool:
        return bool(self._inbox.counted or self._damaged or self._suspect)

    async def _flush_forever(self) -> None:
        try:
            last = False
            while not last:
                await self._wake.wait()
                self._wake.clear()
                last, waiting = self._stopping, len(self._waiters)
                done = await self._threads.write("commit", self._writer.commit, self._take())
                self._apply(done)
                if not done.error:
                    self._release(self._waiters[:waiting], None)
                    del self._waiters[:waiting]
        finally:
            self._release(self._waiters, TransientError("the buffer has stopped", reason="stopped"))

    def _release(self, waiters: list[asyncio.Future[int]], error: TransientError | None) -> None:
        for waiter in waiters:
            if waiter.done():
                continue
            if error:
                waiter.set_exception(error)
            else:
                waiter.set_result(self.head)

    def _take(self) -> Job:
        """What goes to the writer now: settles always, samples and counts only when a flush is due."""
        job = Job(settles=self._settles, damaged=self._damaged, suspect=self._suspect, retain=self._stopping)
        self._settles, self._damaged, self._suspect = [], [], ""
        if self._due:
            self._due = False
            self._inbox.hand_over(job)
            self._cadence.cancel()
        return job

    def _apply(self, done: Done) -> None:
        """Take over what the writer has committed."""
        self._ledger = done.ledger
        self._undurable.subtract(done.settled)
        self._reader.generation = done.generation
        for name, spans in done.given_up.items():
            for span in spans:
                self._cursors[name].cursor.add(*span)
        low = min((account.cursor.low for account in self._cursors.values()), default=_NEVER)
        self._tail.extend(done.batches, low)
        if done.error:
            self._cadence.failed()
        else:
            self._cadence.committed(samples=done.stored > 0)
        self._alarm.update(done)
        self._inbox.settle(done)
        if done.error or self._inbox.fresh or self._settles or self._damaged or self._suspect:
            self._cadence.ask()
        self.head = done.ledger.head
        self._advanced.set()
        self._advanced = asyncio.Event()

    def _report(self, unreadable: list[Span]) -> None:
        """Have the writer look at what could not be read. A gap is fine where everybody has settled its samples."""
        suspects = [
            span for span in unreadable if any(account.cursor.missing(*span) for account in self._cursors.values())
        ]
        self._damaged += suspects
        if suspects:
            self._cadence.ask()

    # threads

    @property
    def mended(self) -> str:
        """What was wrong with the file and what could be saved, when it was last replaced; empty if it was sound."""
        return self._writer.mended

    def at_work(self) -> Mapping[Doing, float]:
        """What the threads are doing now, and since when: monotonic seconds."""
        return self._threads.at_work()

    async def _read(self, function: Callable[..., T], *args: object) -> T:
        try:
            return await self._threads.read(function, *args)
        except (sqlite3.DatabaseError, DamagedError) as exc:
            if is_corrupt(exc):
                self._suspect = str(exc)
                self._cadence.ask()
            raise TransientError(f"the buffer cannot be read now: {exc}", reason="disk") from exc


def _beyond(batch: Batch, after: int) -> Batch:
    """The part of a thinned batch beyond `after`: thinning joins rows, so one may begin before what was read last."""
    if batch.first > after:
        return batch
    samples = batch.samples[after + 1 - batch.first :]
    return replace(batch, first=after + 1, samples=samples, readings=sum(len(sample.values) for sample in samples))


def _stats(accounts: Mapping[str, Account]) -> dict[str, ConnectionStats]:
    return {name: ConnectionStats.of(account) for name, account in accounts.items()}
