"""What the writer thread does: turn samples and settles into transactions, within the limits.

Synchronous, used from one thread. A transaction that fails leaves everything in memory for the next try; one that
succeeds has moved samples, cursors and counters together.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edged.buffer.batch import Batch
from edged.buffer.codec import encode_batch
from edged.buffer.counters import Account, GivenUp, Ledger, Settle, Totals, Verification
from edged.buffer.cursor import Intervals, Span, common
from edged.buffer.lock import Lock
from edged.buffer.repair import Opened, open_buffer, rebuild, unsettled
from edged.buffer.store import RowHead, Store, decode_row, is_corrupt, read_rows, row_crc
from edged.clock import mono_us, wall_us
from edged.config.model import BufferConfig
from edged.errors import PermanentError
from edged.model import Sample

log = logging.getLogger(__name__)

ROW_READINGS = 10_000
"""A longer flush is cut into rows of about so many readings, so that reading one back stays cheap."""
RETAIN_SECONDS = 10.0
"""Settled rows are deleted in groups, at most so long after: fewer pages are written."""
EVICT_SHARE = 64
"""A full file gives up at least one part in so many at a time."""
ISLANDS = 256
"""A cursor with more islands than this keeps further ones in memory until gaps close."""
DEAD_LETTERS = 1000
_CLOCK_SET = 1_600_000_000_000_000
"""A wall clock before September 2020 has not been set."""


@dataclass(slots=True)
class Job:
    """What the event loop hands over."""

    samples: list[Sample] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    settles: list[Settle] = field(default_factory=list)
    damaged: list[Span] = field(default_factory=list)
    """Rows that could not be read back."""
    suspect: str = ""
    """Why the whole file must be replaced."""
    retain: bool = False
    """Delete settled rows now."""


@dataclass(slots=True)
class Done:
    """What the writer answers."""

    batches: list[Batch] = field(default_factory=list)
    """New rows, in order."""
    settled: Counter[str] = field(default_factory=Counter)
    """By connection: how many settles became durable."""
    given_up: dict[str, list[Span]] = field(default_factory=dict)
    """By connection: what will never be delivered, because it has left the log."""
    stored: int = 0
    refused: int = 0
    """Readings that are no longer waiting."""
    error: str = ""
    """Why something still waits in memory."""
    counted: bool = False
    """The totals handed over are in the ledger."""
    ledger: Ledger = field(default_factory=Ledger)
    """As of the last commit; never changed again."""
    full: Literal["", "size", "disk"] = ""
    """The limit that makes us give up or refuse readings."""
    generation: int = 0
    """Rises when the file is replaced: other connections to it are stale then."""


@dataclass(slots=True)
class _Row:
    samples: tuple[Sample, ...]
    readings: int
    data: bytes


class Writer:
    """Owns the file and the ledger."""

    def __init__(self, path: Path, config: BufferConfig, connections: Sequence[str], boot: str) -> None:
        self.path = path
        self._config = config
        self._names = tuple(connections)
        self._boot = boot
        self._lock: Lock | None = None
        self._rows: list[_Row] = []
        self._samples: list[Sample] = []
        self._totals = Totals()
        self._settles: list[Settle] = []
        self._damaged: list[Span] = []
        self._retained = 0.0
        self._inode = 0
        self.store: Store
        self.ledger = Ledger()
        self.epoch = ""
        self.removed: dict[str, Account] = {}
        self._suspect = ""
        self._generation = 0
        self.full: Literal["", "size", "disk"] = ""
        self.commits = 0
        self.commit_seconds = 0.0
        self.used_bytes = 0

    # life

    def open(self) -> None:
        """Take the lock and open the file. Raises ConfigError, sqlite3.Error."""
        self._lock = Lock(self.path)
        try:
            self._adopt(open_buffer(self.path, self._config.max_bytes, self._lock))
            self._reconcile()
        except BaseException:
            self._lock.release()
            self._lock = None
            raise

    def _adopt(self, opened: Opened) -> None:
        self.store, self.epoch, self.ledger = opened.store, opened.epoch, opened.ledger
        self._inode = self.path.stat().st_ino
        assert self._lock is not None  # noqa: S101  # only called while open
        self._lock.note(self.epoch, self.ledger.head)

    def _reconcile(self) -> None:
        """Give new connections a cursor and drop those that are no longer configured."""
        ledger, accounts = self.ledger, self.ledger.accounts
        for name in [name for name in accounts if name not in self._names]:
            gone = accounts.pop(name)
            self.removed[name] = gone
            log.warning("connection %s is no longer configured: %d readings no longer wait for it", name, gone.pending)
        fresh = [name for name in self._names if name not in accounts]
        gaps = self.store.gaps(0, ledger.head) if fresh else []
        for name in fresh:
            ledger.open_account(name, gaps)
        with self.store.transaction():
            self.store.save(ledger)
        self.used_bytes = self.store.used_pages() * self.store.page

    def close(self) -> None:
        """Close the file, then let others have it."""
        if self._lock is None:
            return
        try:
            self.store.close()
        finally:
            self._lock.note(self.epoch, self.ledger.head)
            self._lock.release()
            self._lock = None

    # one job

    def commit(self, job: Job) -> Done:
        """Make the job, and what waits from earlier ones, durable as far as the disk allows. Never raises for the disk."""
        self._samples.extend(job.samples)
        self._totals.add(job.totals)
        self._settles.extend(job.settles)
        self._damaged.extend(job.damaged)
        self._suspect = self._suspect or job.suspect
        done = Done()
        self._encode(done)
        try:
            self._check_in_place()
            if self._suspect:
                self._rebuild(done)
            self._commit_groups(done, retain=job.retain)
        except sqlite3.OperationalError as exc:
            done.error = str(exc)
        except sqlite3.DatabaseError as exc:
            if not is_corrupt(exc):
                raise
            self._suspect = done.error = str(exc)
        except OSError as exc:
            done.error = f"{exc.strerror or exc}"
        done.ledger, done.full, done.generation = self.ledger, self.full, self._generation
        return done

    def _commit_groups(self, done: Done, *, retain: bool) -> None:
        while True:
            group = self._next_group()
            self._commit_group(group, done, retain=retain)
            if not self._rows:
                return

    def _next_group(self) -> list[_Row]:
        size = count = 0
        for row in self._rows:
            size += len(row.data)
            if count and size > self.store.max_transaction:
                break
            count += 1
        return self._rows[:count]

    def _commit_group(self, group: list[_Row], done: Done, *, retain: bool) -> None:
        started = time.perf_counter()
        before = self.ledger
        ledger = self.ledger = before.copy()
        attempt = Done()
        deferred: list[Settle] = []
        self._bound_journal(sum(len(row.data) for row in group))
        try:
            with self.store.transaction():
                ledger.totals.add(self._totals)
                for span in self._damaged:
                    self._lose(span, attempt)
                deferred = self._apply_settles(attempt)
                if retain or self.full or time.monotonic() - self._retained > RETAIN_SECONDS:
                    self._retain(attempt)
                for row in group:
                    self._insert(row, attempt)
                waiting = sum(row.readings for row in self._rows[len(group) :])
                self.store.save(ledger, waiting)
        except BaseException:
            self.ledger = before
            raise
        self.used_bytes = self.store.used_pages() * self.store.page
        self.commits += 1
        self.commit_seconds = time.perf_counter() - started
        del self._rows[: len(group)]
        self._totals, self._damaged, self._settles = Totals(), [], deferred
        assert self._lock is not None  # noqa: S101  # only called while open
        self._lock.note(self.epoch, ledger.head)
        done.counted = True
        _merge(done, attempt)
        self._leave_full()

    def _check_in_place(self) -> None:
        """A file that someone moved away or deleted would take our readings with it, without an error."""
        try:
            inode = self.path.stat().st_ino
        except FileNotFoundError:
            inode = 0
        if inode != self._inode:
            self._suspect = self._suspect or "it was moved or deleted while in use"

    def _rebuild(self, done: Done) -> None:
        """Replace the damaged file. What we know of it is whole, so its epoch and numbers go on."""
        before, known = self.ledger, Opened(self.store, self.epoch, self.ledger.copy())
        self._generation += 1
        self._adopt(rebuild(self.path, self._config.max_bytes, self._suspect, known))
        self._suspect = ""
        for name, account in self.ledger.accounts.items():
            settled = [(1, account.cursor.low)] if account.cursor.low else []
            for first, last in [*settled, *account.cursor.islands]:
                spans = before.accounts[name].cursor.missing(first, last)
                done.given_up.setdefault(name, []).extend(spans)

    # samples → rows

    def _encode(self, done: Done) -> None:
        samples, self._samples = self._samples, []
        group: list[Sample] = []
        readings = 0
        for sample in samples:
            if group and readings + len(sample.values) > ROW_READINGS:
                self._encode_group(group, readings, done)
                group, readings = [], 0
            group.append(sample)
            readings += len(sample.values)
        if group:
            self._encode_group(group, readings, done)

    def _encode_group(self, samples: list[Sample], readings: int, done: Done) -> None:
        """One row; where a sample cannot be stored or the row is too large, halves of it, down to the one sample."""
        try:
            data = encode_batch(samples)
            reason = "too_large" if len(data) > self.store.max_transaction else ""
        except PermanentError as exc:
            data, reason = b"", exc.reason
        if not reason:
            self._rows.append(_Row(tuple(samples), readings, data))
        elif len(samples) > 1:
            half = len(samples) // 2
            for part in (samples[:half], samples[half:]):
                self._encode_group(part, sum(len(sample.values) for sample in part), done)
        else:
            log.warning(
                "a sample of %s cannot be stored (%s): %d readings rejected", samples[0].device, reason, readings
            )
            self._totals.rejected[reason] += readings
            done.refused += readings

    # within a transaction

    def _insert(self, row: _Row, done: Done) -> None:
        ledger, store = self.ledger, self.store
        if not self._make_room(store.pages_for(len(row.data)), done):
            ledger.totals.rejected["buffer_full"] += row.readings
            done.refused += row.readings
            return
        first = ledger.append(len(row.samples), row.readings)
        times = [sample.time for sample in row.samples]
        skew = times[-1] - row.samples[-1].mono
        numbers = (ledger.head, first, row.readings, min(times), max(times), self._boot, skew)
        store.insert((*numbers, row_crc((*numbers, 0, row.data)), row.data))
        done.batches.append(Batch(first, row.samples, self._boot, row.readings))
        done.stored += row.readings

    def _apply_settles(self, done: Done) -> list[Settle]:
        """Book the settles; returns those that would make a cursor too ragged to save."""
        deferred: list[Settle] = []
        for settle in self._settles:
            account = self.ledger.accounts[settle.connection]
            cursor = account.cursor
            if len(cursor) >= ISLANDS and cursor.would_grow(settle.first, settle.last):
                deferred.append(settle)
                continue
            new = cursor.add(settle.first, settle.last)
            whole = new == [(settle.first, settle.last)]
            readings = settle.readings if whole else self.store.count_readings(new)
            if settle.outcome == "dead" and new:
                self._bury(settle, readings)
            account.settle(settle, readings)
            done.settled[settle.connection] += 1
        return deferred

    def _bury(self, settle: Settle, readings: int) -> None:
        samples = [
            sample
            for batch in self.store.batches(settle.first, settle.last)
            for sample in batch.samples[max(0, settle.first - batch.first) : settle.last - batch.first + 1]
        ]
        data = encode_batch(samples)
        limit, _ = self._limit()
        if self.store.used_pages() + self.store.pages_for(len(data)) < limit - limit // 16:
            self.store.bury(settle, readings, wall_us(), self._boot, data, DEAD_LETTERS)
        else:
            log.warning("no room to keep the readings that %s refused (%s)", settle.connection, settle.reason)

    def _retain(self, done: Done) -> None:
        """Delete what every connection has settled, and what is too old."""
        self._retained = time.monotonic()
        if self._config.max_age:
            old = []
            for row in self.store.heads():
                if not self._expired(row):
                    break
                old.append(row)
            self._give_up(old, "expired", done)
        low, spans = common(account.cursor for account in self.ledger.accounts.values())
        for first, last in [(1, low), *spans] if low else spans:
            rows, readings = self.store.delete(first, last)
            self.ledger.rows -= rows
            self.ledger.kept -= readings

    def _expired(self, row: RowHead) -> bool:
        """Whether a row is too old. Within this boot the monotonic clock decides; a clock that was not set, never."""
        if row.boot == self._boot:
            age = mono_us() - (row.latest - row.skew)
        elif row.latest < _CLOCK_SET:
            return False
        else:
            age = wall_us() - row.latest
        return age > self._config.max_age * 1e6

    def _make_room(self, pages: int, done: Done) -> bool:
        """Free pages until so many fit, as the configuration says. False if they do not fit."""
        limit, why = self._limit()
        if self.store.used_pages() + pages <= limit:
            return True
        self._retain(done)
        while self.store.used_pages() + pages > limit:
            self.full = why
            if self.store.drop_dead_letters(100):
                continue
            if self._config.when_full == "drop-newest" or not self._evict(max(pages, limit // EVICT_SHARE), done):
                return False
        return True

    def _limit(self) -> tuple[int, Literal["size", "disk"]]:
        """(pages the database may use, which limit that is). A few pages are kept for the ledger itself."""
        store = self.store
        by_size = store.max_pages - 32
        by_disk = store.pragma("page_count") + (store.free_disk() - self._config.min_free) // store.page
        return (by_size, "size") if by_size <= by_disk else (max(by_disk, store.pragma("page_count")), "disk")

    def _evict(self, pages: int, done: Done) -> bool:
        rows: list[RowHead] = []
        for row in self.store.heads():
            rows.append(row)
            pages -= self.store.pages_for(row.size) - 1
            if pages <= 0:
                break
        self._give_up(rows, "evicted", done)
        return bool(rows)

    def _give_up(self, rows: Sequence[RowHead], why: GivenUp, done: Done) -> None:
        """Delete rows, and book what some connection had not settled of them."""
        if not rows:
            return
        span = rows[0].first, rows[-1].seq
        for name, account in self.ledger.accounts.items():
            whole, partly = 0, []
            for row in rows:
                missing = account.cursor.missing(row.first, row.seq)
                if missing == [row.span]:
                    whole += row.readings
                else:
                    partly.extend(missing)
            account.give_up(span, whole + self.store.count_readings(partly), why)
            done.given_up.setdefault(name, []).append(span)
        deleted, readings = self.store.delete(*span)
        self.ledger.rows -= deleted
        self.ledger.kept -= readings

    def _lose(self, span: Span, done: Done) -> None:
        """Delete a damaged row. How much of it was settled can only be told by counting all the others."""
        rows, readings = self.store.delete(*span)
        if not rows:
            return
        self.ledger.rows -= rows
        self.ledger.kept -= readings
        for name, account in self.ledger.accounts.items():
            if account.cursor.missing(*span):
                account.cursor.add(*span)
                account.give_up(span, max(0, account.pending - unsettled(self.store, account.cursor)), "corrupt")
                done.given_up.setdefault(name, []).append(span)
        log.error("samples %d to %d of the buffer were damaged on disk and are lost", *span)

    # limits

    def _bound_journal(self, size: int) -> None:
        """Keep the journal within its share of max_bytes, even while another program reads the file."""
        store = self.store
        expected = size + size // 8 + 64 * store.page
        if store.wal_bytes() + expected > store.wal_budget or store.free_disk() < self._config.min_free:
            store.checkpoint()
            if store.wal_bytes() + expected > store.wal_budget:
                raise sqlite3.OperationalError("another program keeps the file open for reading; close it")

    def _leave_full(self) -> None:
        """Full is over only when there is some distance to the limit, so that it is said once."""
        if self.full:
            limit, _ = self._limit()
            if self.store.used_pages() < limit - limit // 16:
                self.full = ""

    # questions

    def verify(self) -> Verification:
        """Count everything anew and compare."""
        ledger, problems = self.ledger, []
        heads = list(self.store.heads())
        found = {
            "rows": (ledger.rows, len(heads)),
            "readings in the file": (ledger.kept, sum(row.readings for row in heads)),
        }
        for name, account in ledger.accounts.items():
            found[f"readings pending for {name}"] = (account.pending, unsettled(self.store, account.cursor))
        damaged = [row[:2] for row in self._all_rows(heads) if decode_row(row) is None]
        problems += [
            f"{what}: {booked} booked, {counted} found"
            for what, (booked, counted) in found.items()
            if booked != counted
        ]
        problems += [f"samples {first} to {last} are damaged" for last, first in damaged]
        return Verification(tuple(problems))

    def _all_rows(self, heads: Iterable[RowHead]) -> Iterable[tuple[int, int, int, int, int, str, int, int, bytes]]:
        for head in heads:
            yield from read_rows(self.store.db, head.first, through=head.seq)


def _merge(done: Done, attempt: Done) -> None:
    done.batches += attempt.batches
    done.settled.update(attempt.settled)
    for name, spans in attempt.given_up.items():
        done.given_up.setdefault(name, []).extend(spans)
    done.stored += attempt.stored
    done.refused += attempt.refused
