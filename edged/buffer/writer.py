"""What the writer thread does: turn samples and settles into transactions.

Synchronous, used from one thread. A transaction that fails leaves everything in memory for the next try; one that
succeeds has moved samples, cursors and counters together.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from edged.buffer.batch import PRIORITY, Batch
from edged.buffer.codec import encode_batch
from edged.buffer.counters import Account, Ledger, Settle, Totals, Verification
from edged.buffer.cursor import Span
from edged.buffer.jobs import Done, Job, Limit
from edged.buffer.lock import Lock
from edged.buffer.repair import Opened, journals, open_buffer, rebuild
from edged.buffer.retention import Retention
from edged.buffer.rows import Row, make_rows
from edged.buffer.store import Store
from edged.buffer.table import DamagedError, is_corrupt, make_row, needs_a_person
from edged.buffer.verify import verify
from edged.clock import wall_us
from edged.config.model import BufferConfig
from edged.errors import ConfigError, PermanentError, TransientError
from edged.model import Sample

log = logging.getLogger("edged.buffer")
T = TypeVar("T")

ISLANDS = 256
"""A cursor with so many islands keeps further ones, at most so many, in memory until gaps close."""
DEAD_LETTERS = 1000
"""How many refused messages are kept."""


class Writer:
    """Owns the file and the ledger."""

    store: Store
    retention: Retention

    def __init__(
        self,
        path: Path,
        config: BufferConfig,
        connections: Sequence[str] | None,
        boot: str,
        max_age: Mapping[str, float] | None = None,
        *,
        migrate: bool = True,
    ) -> None:
        """`connections` None: leave those that the file knows as they are. `migrate`: see `open_buffer`."""
        self.path = path
        self._config = config
        self._names = None if connections is None else tuple(connections)
        self._max_age = max_age or {}
        self._boot = boot
        self._migrate = migrate
        self._lock: Lock | None = None
        self._place = (0, 0)
        self._journals: list[tuple[int, int] | None] = []
        self._rows: list[Row] = []
        self._totals = Totals()
        self._settles: list[Settle] = []
        self._deferred = 0
        """So many of them, the first ones, wait until a cursor has fewer islands."""
        self._letters_fit = True
        self._damaged: list[Span] = []
        self._suspect = ""
        self._generation = 0
        self.ledger = Ledger()
        self.epoch = ""
        self.mended = ""
        """What was wrong with the file, and what was saved, when it was last replaced."""
        self.removed: dict[str, Account] = {}
        self.commits = 0
        self.commit_seconds = 0.0
        self.used_bytes = 0

    # life

    def open(self) -> None:
        """Take the lock and open the file. Raises ConfigError, TransientError."""
        try:
            self._lock = Lock(self.path)
            try:
                self._begin(open_buffer(self.path, self._config.max_bytes, self._lock, migrate=self._migrate))
            except (sqlite3.DatabaseError, DamagedError) as exc:
                if not is_corrupt(exc):
                    raise
                if self._generation:
                    self.store.close()
                self._begin(rebuild(self.path, self._config.max_bytes, str(exc), None, self._lock.witness))
        except BaseException as exc:
            if self._generation:
                self.store.close()
            if self._lock:
                self._lock.release()
                self._lock = None
            if isinstance(exc, sqlite3.Error | OSError):
                raise _translated(self.path, exc) from exc
            raise

    def _begin(self, opened: Opened) -> None:
        self._adopt(opened)
        self._reconcile()
        if self.store.file_bytes() > self.store.max_pages * self.store.page:
            self._shrink()

    def _adopt(self, opened: Opened) -> None:
        full: Limit = self.retention.full if self._generation else ""
        self.store, self.epoch, self.ledger = opened.store, opened.epoch, opened.ledger
        self.mended = opened.mended or self.mended
        self.retention = Retention(self.store, self._config, self._boot, self._max_age)
        self.retention.full = full
        self._place = _place(self.path)
        self._generation += 1
        self._note()

    def _note(self) -> None:
        self.used_bytes = self.store.used_pages() * self.store.page
        self._journals = [_place_if_there(file) for file in journals(self.path)]
        if self._lock is not None:
            self._lock.note(self.epoch, self.ledger.head)

    def _reconcile(self) -> None:
        self._open_and_close_accounts()
        with self.store.transaction():
            self.store.save(self.ledger)

    def _open_and_close_accounts(self) -> None:
        """Give new connections a cursor and drop those that are no longer configured."""
        ledger, accounts = self.ledger, self.ledger.accounts
        for name in [name for name in accounts if self._names is not None and name not in self._names]:
            gone = accounts.pop(name)
            self.removed[name] = gone
            log.warning("connection %s is no longer configured: %d readings no longer wait for it", name, gone.pending)
        for name in self._names or ():
            if name not in accounts:
                ledger.open_account(name, *self.store.waiting_for(name, ledger.head))

    def _shrink(self) -> None:
        """Fit a file into a limit that was lowered since it grew."""
        with self.store.transaction():
            fits = self.retention.make_room(0, self.ledger, Done())
            self.store.save(self.ledger)
        if fits:
            with suppress(PermanentError):
                opened = Opened(self.store, self.epoch, self.ledger.copy())
                self._adopt(rebuild(self.path, self._config.max_bytes, "", opened))
                return
        log.warning("the buffer %s stays larger than `max_bytes` until its readings are delivered", self.path)

    def close(self) -> None:
        """Close the file, then let others have it. Raises sqlite3.Error."""
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
        """Make the job, and what waits from earlier ones, durable as far as the disk allows: see `Done.error`."""
        self._totals.add(job.totals)
        self._settles.extend(job.settles)
        self._damaged.extend(job.damaged)
        self._suspect = self._suspect or job.suspect
        done = Done()
        self._encode(job.priority, done, PRIORITY)
        self._encode(job.samples, done)
        try:
            self._check_in_place()
            if self._suspect:
                self._rebuild(done)
            self._commit_rows(done, retain=job.retain)
        except sqlite3.OperationalError as exc:
            done.error = str(exc)
        except (sqlite3.DatabaseError, DamagedError) as exc:
            if not is_corrupt(exc):
                raise
            self._suspect = done.error = str(exc)
        except OSError as exc:
            done.error = exc.strerror or str(exc)
        if done.error and job.keep is not None:
            self._shed(job.keep, done)
        done.uncommitted = self._totals.copy()
        return self._finished(done)

    def _finished(self, done: Done) -> Done:
        done.ledger, done.full, done.generation = self.ledger, self.retention.full, self._generation
        return done

    def _shed(self, keep: int, done: Done) -> None:
        """Give up the oldest of what waits in memory, so that newer readings have room."""
        excess = sum(row.readings for row in self._rows) - keep
        while excess > 0:
            readings = self._rows.pop(0).readings
            excess -= readings
            self._totals.rejected["inbox_full"] += readings
            done.refused += readings
            done.shed = True

    def _encode(self, samples: Sequence[Sample], done: Done, target: str = "") -> None:
        for row in make_rows(samples, self.store.max_transaction):
            if isinstance(row, Row):
                self._rows.append(replace(row, target=target) if target else row)
                continue
            readings = len(row.sample.values)
            self._totals.rejected[row.reason] += readings
            done.refused += readings
            log.warning(
                "a sample of %s cannot be stored: %d readings rejected (%s)", row.sample.device, readings, row.reason
            )

    def _check_in_place(self) -> None:
        """A file that someone moved away or deleted would take our readings with it, without an error."""
        if self._lock is not None:
            self._lock.hold()
        if _place_if_there(self.path) != self._place:
            self._suspect = self._suspect or "it was moved or deleted while in use"
        elif self._journals != [_place_if_there(file) for file in journals(self.path)]:
            self._suspect = self._suspect or "its journal was moved or deleted while in use"

    def _rebuild(self, done: Done) -> None:
        """Replace the damaged file. What we know of it is whole, so its epoch and numbers go on."""
        before = self.ledger
        opened = Opened(self.store, self.epoch, before.copy())
        self._adopt(rebuild(self.path, self._config.max_bytes, self._suspect, opened))
        self._suspect = ""
        for name, account in self.ledger.accounts.items():
            low = account.cursor.low
            for first, last in [*([(1, low)] if low else []), *account.cursor.islands]:
                done.lose(name, before.accounts[name].cursor.missing(first, last))

    def _commit_rows(self, done: Done, *, retain: bool) -> None:
        """In as many transactions as the size of the journal demands; mostly one."""
        while True:
            size = count = 0
            for row in self._rows:
                size += len(row.data)
                if count and size > self.store.max_transaction:
                    break
                count += 1
            self._commit_group(self._rows[:count], done, retain=retain)
            if not self._rows:
                return

    def _commit_group(self, group: Sequence[Row], done: Done, *, retain: bool) -> None:
        started = time.perf_counter()
        before, full, part = self.ledger, self.retention.full, Done()
        ledger = self.ledger = before.copy()
        waiting = sum(row.readings for row in self._rows[len(group) :])
        try:
            self.retention.bound_journal(sum(len(row.data) for row in group))
            with self.store.transaction():
                ledger.totals.add(self._totals)
                for span in self._damaged:
                    self.retention.lose(span, ledger, part)
                deferred = self._apply_settles(part)
                if retain or self.retention.due:
                    self.retention.retain(ledger, part)
                for row in group:
                    self._insert(row, part)
                self.store.save(ledger, waiting)
        except BaseException:
            self.ledger, self.retention.full = before, full
            raise
        self.commits += 1
        self.commit_seconds = time.perf_counter() - started
        del self._rows[: len(group)]
        self._totals, self._damaged, self._settles = Totals(), [], deferred
        self._deferred = len(deferred)
        done.merge(part)
        self.retention.relax()
        self._note()

    # by request of a person

    def change(self, work: Callable[[Writer, Done], T]) -> tuple[T, Done]:
        """Do something to rows and ledger in a transaction of its own. Raises sqlite3.Error, TransientError."""
        if self._rows or self._suspect:
            raise TransientError("the buffer's disk does not take anything now", reason="disk")
        before, full, done = self.ledger, self.retention.full, Done()
        ledger = self.ledger = before.copy()
        try:
            self.retention.bound_journal(self.store.max_transaction)
            with self.store.transaction():
                result = work(self, done)
                self.store.save(ledger)
        except BaseException:
            self.ledger, self.retention.full = before, full
            raise
        self._note()
        return result, self._finished(done)

    def insert_again(self, row: Row, boot: str, target: str, done: Done) -> None:
        """Within a change: put samples back into the way of one connection, with new numbers."""
        first = self.ledger.append_again(len(row.samples), row.readings, target)
        self.store.insert(make_row(first, row.samples, row.readings, row.data, boot, target))
        done.batches.append(Batch(first, row.samples, boot, row.readings, target))
        for name in self.ledger.accounts:
            if name != target:
                done.lose(name, [(first, self.ledger.head)])

    def rewrite(self, why: str) -> tuple[None, Done]:
        """Copy all that can be read into a new file. Raises sqlite3.Error, OSError, TransientError."""
        done = Done()
        needed = self.used_bytes + self._config.min_free
        if not why and self.store.free_disk() < needed:
            raise TransientError(
                f"a copy of the buffer needs {needed / 2**20:.0f} MiB of free disk, `min_free` included", reason="disk"
            )
        before, self._suspect = self._suspect, self._suspect or why
        try:
            self._rebuild(done)
        except BaseException:
            self._suspect = before  # who asked is told; the file is as it was, and so is what can be asked of it
            raise
        return None, self._finished(done)

    def serve(self, names: Sequence[str], max_age: Mapping[str, float], _done: Done) -> None:
        """Within a change: keep readings for these connections from now on. New ones begin with the oldest row."""
        self._names, self._max_age = tuple(names), max_age
        self.retention.limit_ages(max_age)
        self._open_and_close_accounts()

    # within a transaction

    def _insert(self, row: Row, part: Done) -> None:
        ledger = self.ledger
        if not self.retention.make_room(len(row.data), ledger, part):
            ledger.totals.rejected["buffer_full"] += row.readings
            part.refused += row.readings
            return
        first = ledger.append(len(row.samples), row.readings)
        self.store.insert(make_row(first, row.samples, row.readings, row.data, self._boot, row.target))
        part.batches.append(Batch(first, row.samples, self._boot, row.readings, row.target))
        part.stored += row.readings

    def _apply_settles(self, part: Done) -> list[Settle]:
        """Book the settles; returns those that would make a cursor too ragged to save.

        Those do not count as unsaved, or they would keep the lane that fills the gaps from going on.
        """
        for settle in self._settles[self._deferred :]:
            if settle.outcome != "passed":
                part.settled[settle.connection] += 1
        todo, before = self._settles, -1
        while todo and len(todo) != before:  # what one of them fills may have been in the way of an earlier one
            before, todo = len(todo), [settle for settle in todo if not self._apply_settle(settle)]
        for settle in todo[:-ISLANDS]:  # rather a long cursor than a long list of what a crash forgets
            self._apply_settle(settle, ragged=True)
        return todo[-ISLANDS:]

    def _apply_settle(self, settle: Settle, *, ragged: bool = False) -> bool:
        """Book one, unless it would make the cursor too `ragged`."""
        account, span = self.ledger.accounts.get(settle.connection), (settle.first, settle.last)
        if account is None:
            return True  # it came as the last word of a connection that is no longer configured
        too_ragged = settle.in_place and len(account.cursor) >= ISLANDS and account.cursor.would_grow(*span)
        if too_ragged and not ragged:
            return False
        new = account.take(settle)
        if settle.outcome == "passed":
            return True
        readings = settle.readings
        if new != [span] or settle.first <= self.ledger.thinned:  # some of it is settled or gone: count the rest
            counted = self.store.count_readings(new)
            # Where a row cannot be read, it is what all others together leave over.
            readings = max(0, account.pending - self.store.unsettled(account)) if counted is None else counted
        if settle.outcome == "dead" and new:
            self._bury(settle, readings)
        account.settle(settle, readings)
        return True

    def _bury(self, settle: Settle, readings: int) -> None:
        samples = [
            sample
            for batch in self.store.batches(settle.first, settle.last)
            for sample in batch.samples[max(0, settle.first - batch.first) : settle.last - batch.first + 1]
        ]
        if not samples:
            return  # not readable: the loss is booked where that is found out
        data = encode_batch(samples)
        room = self.retention.has_room(len(data))
        if room:
            self.store.bury(settle, readings, wall_us(), self._boot, data, DEAD_LETTERS)
        elif self._letters_fit:
            log.warning("no room to keep readings that %s refused (%s)", settle.connection, settle.reason)
        self._letters_fit = room

    # questions

    def verify(self) -> Verification:
        """Count everything anew and compare."""
        return verify(self.store, self.ledger)


def _place(path: Path) -> tuple[int, int]:
    """Which file it is: another disk that is mounted over it may use the same inode."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _place_if_there(path: Path) -> tuple[int, int] | None:
    try:
        return _place(path)
    except FileNotFoundError:
        return None


def _translated(path: Path, error: sqlite3.Error | OSError) -> ConfigError | TransientError:
    if needs_a_person(error):
        return ConfigError(f"the buffer {path} cannot be written ({error}); check its owner and permissions")
    why = error.strerror if isinstance(error, OSError) else error
    return TransientError(f"the buffer {path} cannot be opened: {why}", reason="disk")
