"""Which rows leave the log, and the limits of the file. Works within the writer's transactions."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing

from edged.buffer.counters import GivenUp, Ledger
from edged.buffer.cursor import Span, common
from edged.buffer.jobs import Done, Limit
from edged.buffer.store import DamagedError, RowHead, Store, decode_row, read_rows
from edged.clock import mono_us, wall_us
from edged.config.model import BufferConfig

log = logging.getLogger("edged.buffer")

RETAIN_SECONDS = 10.0
"""Settled rows are deleted in groups, at most so long after: fewer pages are written."""
EVICT_SHARE = 64
"""A full file gives up at least one part in so many at a time."""
_RESERVED_PAGES = 32
"""Kept free of rows, for the ledger and SQLite's own pages."""
_CLOCK_SET = 1_600_000_000_000_000
"""A wall clock before September 2020 has not been set."""


class Retention:
    """The limits of one open file."""

    def __init__(self, store: Store, config: BufferConfig, boot: str) -> None:
        self._store = store
        self._config = config
        self._boot = boot
        self._retained = time.monotonic()
        self._acted = False
        self.full: Limit = ""

    @property
    def due(self) -> bool:
        """Whether it is time to look for rows that may leave."""
        return bool(self.full) or time.monotonic() - self._retained > RETAIN_SECONDS

    def retain(self, ledger: Ledger, done: Done) -> None:
        """Delete what every connection has settled, and what is too old."""
        self._retained = time.monotonic()
        if self._config.max_age:
            old = []
            with closing(self._store.heads()) as rows:
                for row in rows:
                    if not self._expired(row):
                        break
                    old.append(row)
            self._give_up(old, "expired", ledger, done)
        low, spans = common(account.cursor for account in ledger.accounts.values())
        for span in [(1, low), *spans] if low else spans:
            self._delete(span, ledger)

    def _expired(self, row: RowHead) -> bool:
        """Whether a row is too old. Within this boot the monotonic clock decides; a clock that was not set, never."""
        if row.boot == self._boot:
            age = mono_us() - (row.latest - row.skew)
        elif row.latest < _CLOCK_SET:
            return False
        else:
            age = wall_us() - row.latest
        return age > self._config.max_age * 1e6

    def make_room(self, size: int, ledger: Ledger, done: Done) -> bool:
        """Free pages until `size` bytes of data fit, as the configuration says. False if they do not."""
        store, pages = self._store, self._store.pages_for(size)
        limit, which = self._limit()
        if store.used_pages() + pages <= limit:
            return True
        self.retain(ledger, done)
        while store.used_pages() + pages > limit:
            self.full, self._acted = which, True
            if store.drop_dead_letters(100):
                continue
            drop_oldest = self._config.when_full == "drop-oldest"
            if not (drop_oldest and self._evict(max(pages, limit // EVICT_SHARE), ledger, done)):
                return False
        return True

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes fit with some distance to the limits."""
        limit, _ = self._limit()
        return self._store.used_pages() + self._store.pages_for(size) <= limit - limit // 8

    def relax(self) -> None:
        """End the state of being full when nothing had to go and there is some distance to the limit: say it once."""
        if self.full and not self._acted and self.has_room(0):
            self.full = ""
        self._acted = False

    def bound_journal(self, size: int) -> None:
        """Keep the journal within its share of max_bytes before a transaction with `size` bytes of rows.

        Raises sqlite3.OperationalError if another program prevents that.
        """
        store = self._store
        expected = size + size // 8 + 64 * store.page
        if store.wal_bytes() + expected > store.wal_budget or store.free_disk() < self._config.min_free:
            store.checkpoint()
            if store.wal_bytes() + expected > store.wal_budget:
                raise sqlite3.OperationalError("another program keeps the file open for reading; close it")

    def lose(self, span: Span, ledger: Ledger, done: Done) -> None:
        """Give up samples that could not be read: a damaged row, or a gap where there should be rows.

        Raises DamagedError if more than that is wrong with the file.
        """
        rows = read_rows(self._store.db, span[0] - 1, through=span[1])
        if any(decode_row(row) is not None for row in rows):
            return  # it can be read after all
        if rows and [(row[1], row[0]) for row in rows] != [span]:
            raise DamagedError(f"the rows around sample {span[0]} are damaged")
        self._store.delete(*span)
        ledger.rows, ledger.kept = self._store.totals()  # a damaged row cannot tell how many it held
        lost = False
        for name, account in ledger.accounts.items():
            missing = account.cursor.add(*span)
            if missing:  # how much that was is what all others together leave over
                account.give_up(max(0, account.pending - self._store.unsettled(account.cursor)), "corrupt")
                done.lose(name, missing)
                lost = True
        if lost or rows:
            log.error("samples %d to %d of the buffer were damaged on disk and are lost", *span)

    def _limit(self) -> tuple[int, Limit]:
        """(pages the database may use for rows, which limit says so)."""
        store, present = self._store, self._store.pragma("page_count")
        by_size = store.max_pages - _RESERVED_PAGES
        by_disk = present + max(0, store.free_disk() - self._config.min_free) // store.page
        return (by_size, "size") if by_size <= by_disk else (by_disk, "disk")

    def _evict(self, pages: int, ledger: Ledger, done: Done) -> bool:
        chosen: list[RowHead] = []
        with closing(self._store.heads()) as rows:
            for row in rows:
                chosen.append(row)
                pages -= self._store.pages_for(row.size) - 1
                if pages <= 0:
                    break
        self._give_up(chosen, "evicted", ledger, done)
        return bool(chosen)

    def _give_up(self, rows: Sequence[RowHead], why: GivenUp, ledger: Ledger, done: Done) -> None:
        """Delete neighbouring rows, and book what each connection had not settled of them."""
        if not rows:
            return
        span = rows[0].first, rows[-1].seq
        unsettled: dict[str, int | None] = {}
        for name, account in ledger.accounts.items():
            whole, partly = 0, []
            for row in rows:
                missing = account.cursor.missing(row.first, row.seq)
                if missing == [row.span]:
                    whole += row.readings
                else:
                    partly.extend(missing)
            counted = self._store.count_readings(partly)
            unsettled[name] = None if counted is None else whole + counted
        self._delete(span, ledger)
        for name, account in ledger.accounts.items():
            done.lose(name, account.cursor.add(*span))
            readings = unsettled[name]
            if readings is None:  # partly settled and not readable: it is what all others together leave over
                readings = max(0, account.pending - self._store.unsettled(account.cursor))
            account.give_up(readings, why)

    def _delete(self, span: Span, ledger: Ledger) -> None:
        rows, readings = self._store.delete(*span)
        ledger.rows -= rows
        ledger.kept -= readings
