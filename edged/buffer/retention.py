"""Which rows leave the log, and the limits of the file. Works within the writer's transactions."""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from edged.buffer.batch import PRIORITY
from edged.buffer.counters import Account, GivenUp, Ledger
from edged.buffer.cursor import Span, common
from edged.buffer.jobs import Done, Limit
from edged.buffer.store import Store
from edged.buffer.table import DamagedError, RowHead, decode_row, read_rows
from edged.buffer.thinning import Thinner
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
_ROWS = 1000
"""How many rows are looked at together."""


class Retention:
    """The limits of one open file."""

    def __init__(self, store: Store, config: BufferConfig, boot: str, max_age: Mapping[str, float]) -> None:
        """`max_age`: by connection, seconds; 0 or missing where there is no such limit."""
        self._store = store
        self._config = config
        self._boot = boot
        self._max_age = max_age
        self._thinner = Thinner(store, config.thin_interval)
        # What grew too old while nobody looked goes with the first commit, and not ten seconds later.
        self._retained = -math.inf if config.max_age or any(max_age.values()) else time.monotonic()
        self._acted = False
        self.full: Limit = ""

    def limit_ages(self, max_age: Mapping[str, float]) -> None:
        """From now on these limits, by connection."""
        self._max_age = max_age

    @property
    def due(self) -> bool:
        """Whether it is time to look for rows that may leave."""
        return bool(self.full) or time.monotonic() - self._retained > RETAIN_SECONDS

    def retain(self, ledger: Ledger, done: Done) -> None:
        """Give up what is too old, and delete what every connection has settled unless it is kept as history."""
        self._retained = time.monotonic()
        for name, account in ledger.accounts.items():
            limits = [age for age in (self._config.max_age, self._max_age.get(name, 0)) if age]
            if limits:
                self._expire(name, account, min(limits), done)
        if self._config.max_age and not ledger.accounts:
            last = self._last_old((1, ledger.head), self._config.max_age, unknown=False)
            self._delete((1, last), ledger)
        for span in _settled(ledger):
            last = self._last_old(span, self._config.retention, unknown=True) if self._config.retention else span[1]
            self._delete((span[0], last), ledger)

    def _expire(self, name: str, account: Account, age: float, done: Done) -> None:
        """Give up rows that are too old for one connection, from its oldest on."""
        after = account.cursor.low
        while True:
            old: list[RowHead] = []
            young = False
            with closing(self._store.heads(after)) as rows:
                for row in rows:
                    asked_for = row.target not in {"", PRIORITY}  # sent once more, whatever its age
                    young = not asked_for and not self._older(row, age, unknown=False)
                    if young or len(old) == _ROWS:
                        break
                    after = row.seq
                    if not asked_for:
                        old.append(row)
            self._book(old, "expired", name, account, done)
            if young or len(old) < _ROWS:
                return

    def _older(self, row: RowHead, age: float, *, unknown: bool) -> bool:
        """Whether a row is older than that. Within this boot the monotonic clock decides.

        `unknown` is the answer where the clock was not set in another boot.
        """
        if row.boot == self._boot:
            actual = mono_us() - (row.latest - row.skew)
        elif row.latest < _CLOCK_SET:
            return unknown
        else:
            actual = wall_us() - row.latest
        return actual > age * 1e6

    def _last_old(self, span: Span, age: float, *, unknown: bool) -> int:
        """Where the rows of a span cease to be older than that."""
        last = span[0] - 1
        with closing(self._store.heads(last)) as rows:
            for row in rows:
                if row.seq > span[1] or not self._older(row, age, unknown=unknown):
                    break
                last = row.seq
        return last

    def make_room(self, size: int, ledger: Ledger, done: Done) -> bool:
        """Free pages until `size` bytes of data fit, as the configuration says. False if they do not."""
        store, pages = self._store, self._store.pages_for(size)
        limit, which = self._limit()
        if store.used_pages() + pages <= limit:
            return True
        self.retain(ledger, done)
        while store.used_pages() + pages > limit:
            share = max(pages, limit // EVICT_SHARE)
            if self._forget(share, ledger):
                continue
            self.full, self._acted = which, True
            if not (store.drop_dead_letters(100) or self._give_way(share, ledger, done)):
                return False
        return True

    def _give_way(self, pages: int, ledger: Ledger, done: Done) -> bool:
        """Give up some of what waits; False if that is not possible or not wanted."""
        if self._config.when_full == "drop-newest":
            return False
        if self._config.when_full == "thin" and self._thinner.reduce(ledger):
            return True
        chosen = self._oldest(0, 2**62, pages)
        if chosen:
            for name, account in ledger.accounts.items():
                self._book(chosen, "evicted", name, account, done)
            self._delete((chosen[0].first, chosen[-1].seq), ledger)
        return bool(chosen)

    def _forget(self, pages: int, ledger: Ledger) -> bool:
        """Delete the oldest of what is only kept as history; False if there is none."""
        if self._config.retention:
            for first, last in _settled(ledger):
                chosen = [row for row in self._oldest(first - 1, last, pages) if row.first >= first]
                if chosen:
                    self._delete((chosen[0].first, chosen[-1].seq), ledger)
                    return True
        return False

    def _oldest(self, after: int, through: int, pages: int) -> list[RowHead]:
        """The first rows beyond `after`, as many as make up these pages."""
        chosen: list[RowHead] = []
        with closing(self._store.heads(after)) as rows:
            for row in rows:
                if row.seq > through:
                    break
                chosen.append(row)
                pages -= self._store.pages_for(row.size) - 1
                if pages <= 0:
                    break
        return chosen

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
        self._thinner.begin()
        thinning = self._thinner.most if self._config.when_full == "thin" else 0
        expected = size + size // 8 + 64 * store.page + thinning
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
                account.give_up(max(0, account.pending - self._store.unsettled(account)), "corrupt")
                done.lose(name, missing)
                lost = True
        if lost or rows:
            ledger.lose([span])
            log.error("samples %d to %d of the buffer were damaged on disk and are lost", *span)

    def _limit(self) -> tuple[int, Limit]:
        """(pages the database may use for rows, which limit says so)."""
        store, present = self._store, self._store.pragma("page_count")
        by_size = store.max_pages - _RESERVED_PAGES
        if not self._config.min_free:
            return by_size, "size"  # a disk that is full refuses, and then readings wait in memory
        by_disk = present + max(0, store.free_disk() - self._config.min_free) // store.page
        return (by_size, "size") if by_size <= by_disk else (by_disk, "disk")

    def _book(self, rows: Sequence[RowHead], why: GivenUp, name: str, account: Account, done: Done) -> None:
        """Book what one connection had not settled of these rows, and will not get."""
        whole, partly = 0, []
        for row in rows:
            missing = account.missing(row.first, row.seq, priority=row.target == PRIORITY)
            if missing == [row.span]:
                whole += row.readings
            else:
                partly.extend(missing)
        counted = self._store.count_readings(partly)
        for row in rows:
            missing = account.cursor.add(row.first, row.seq)
            if missing:
                done.lose(name, missing)
        if counted is None:  # partly settled and not readable: it is what all others together leave over
            account.give_up(max(0, account.pending - self._store.unsettled(account)), why)
        else:
            account.give_up(whole + counted, why)

    def _delete(self, span: Span, ledger: Ledger) -> None:
        rows, readings = self._store.delete(*span)
        ledger.rows -= rows
        ledger.kept -= readings


def _settled(ledger: Ledger) -> list[Span]:
    """What no connection needs any more."""
    low, spans = common(account.cursor for account in ledger.accounts.values())
    return [(1, low), *spans] if low else spans
