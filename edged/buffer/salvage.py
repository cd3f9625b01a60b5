"""Copies what can be read of a damaged file into a new one, and makes the counters agree with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edged.buffer.counters import Ledger, Totals
from edged.buffer.cursor import Intervals, Span
from edged.buffer.scan import scan_rows, scan_state
from edged.buffer.store import LETTER_COLUMNS, Store, open_reader, read_state
from edged.buffer.table import COLUMNS, StoredRow, decode_row

_NAMED = 8
"""So many ranges of lost samples are named in the log."""
_SPARE_PAGES = 16
"""Left free when rows are copied into a new file: less than a full file has, so that all of them fit."""


@dataclass(slots=True)
class Saved:
    """What could be read of a damaged file."""

    ledger: Ledger | None = None
    rows: int = 0
    readings: int = 0
    expected: int = 0
    """Readings that its ledger speaks of."""
    complete: bool = True
    lost: list[Span] = field(default_factory=list)
    """Ranges of samples that somebody waited for."""

    def __str__(self) -> str:
        text = f"{self.readings} readings in {self.rows} rows were saved"
        if not self.complete:
            text += ", more did not fit"
        if self.ledger is None:
            text += ", its counters could not be read"
        else:
            text += f", {max(0, self.expected - self.readings)} readings were lost"
        if self.lost:
            text += " (samples " + ", ".join(f"{first}-{last}" for first, last in self.lost[:_NAMED])
            text += f" and {len(self.lost) - _NAMED} ranges more)" if len(self.lost) > _NAMED else ")"
        return text


def salvage(path: Path, store: Store, known: Store | None) -> Saved:
    """Copy all that can be read: along the tree, and where that is broken, from its single pages.

    `known` is the damaged file, if it was open. Raises sqlite3.Error and OSError if the new file cannot be written.
    """
    saved = Saved()
    source = known.db if known and not known.closed else None
    db = source or _damaged_reader(path)
    if db is not None:
        with nullcontext() if source else closing(db):
            with suppress(sqlite3.Error, ValueError):
                _, _, saved.ledger = read_state(db)
            _copy(_readable(db), store, saved)
            _copy_dead_letters(db, store)
    if path.exists() and (known is None or path.stat().st_ino == known.inode):  # not what was put in its place
        saved.ledger = saved.ledger or scan_state(path)
        if saved.ledger is None or saved.rows != saved.ledger.rows:
            _copy(scan_rows(path), store, saved)
    if saved.ledger:
        saved.expected = saved.ledger.kept
    return saved


def _damaged_reader(path: Path) -> sqlite3.Connection | None:
    """None if SQLite can do nothing with the file."""
    try:
        return open_reader(path, damaged=True)
    except sqlite3.Error:
        return None


def _copy(rows: Iterator[StoredRow], store: Store, saved: Saved) -> None:
    """Those that are not there yet, in transactions that the journal can hold."""
    while True:
        size = 0
        with store.transaction():
            for row in rows:
                if store.overlaps(row[1], row[0]):
                    continue
                if store.used_pages() + store.pages_for(len(row[8])) > store.max_pages - _SPARE_PAGES:
                    saved.complete = False
                    return
                store.insert(row)
                saved.rows += 1
                saved.readings += row[2]
                size += len(row[8]) + 200
                if size > store.max_transaction:
                    break
            else:
                return


def _copy_dead_letters(db: sqlite3.Connection, store: Store) -> None:
    """The newest ones, as many as fit."""
    query = f"SELECT {LETTER_COLUMNS} FROM dead_letters ORDER BY id DESC"  # noqa: S608  # a constant
    insert = "INSERT OR IGNORE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    with suppress(sqlite3.DatabaseError), closing(db.execute(query)) as letters:
        sound = (letter for letter in letters if isinstance(letter[-1], bytes))
        while group := _group(sound, store.max_transaction):
            pages = sum(store.pages_for(len(letter[-1])) for letter in group)
            if store.used_pages() + pages > store.max_pages * 3 // 4:
                return
            with store.transaction():
                store.db.executemany(insert, group)


def _readable(db: sqlite3.Connection) -> Iterator[StoredRow]:
    """All sound rows: forward up to the damage, then backward from the end down to it."""
    query = f"SELECT {COLUMNS} FROM log WHERE seq > ? ORDER BY seq"  # noqa: S608  # constants
    reached, above = 0, 2**63
    with suppress(sqlite3.DatabaseError, TypeError):
        for row in db.execute(query, (reached,)):
            if decode_row(row) is not None and row[0] > reached:
                reached = row[0]
                yield row
        return
    with suppress(sqlite3.DatabaseError, TypeError):
        for row in db.execute(f"{query} DESC", (reached,)):
            if decode_row(row) is not None and reached < row[0] < above:
                above = row[0]
                yield row


def _group(letters: Iterator[tuple[Any, ...]], size: int) -> list[tuple[Any, ...]]:
    """The next ones that make up so many bytes."""
    group: list[tuple[Any, ...]] = []
    for letter in letters:
        group.append(letter)
        size -= len(letter[-1]) + 200
        if size <= 0:
            break
    return group


def settle_books(
    store: Store, ledger: Ledger | None, witness: tuple[str, int] | None, *, fresh: bool
) -> tuple[Ledger, list[Span]]:
    """Make the counters agree with the rows that are left: what is missing was lost to damage.

    Returns the ledger, and the ranges of samples that somebody waited for.
    """
    rows = list(store.heads())
    kept = sum(row.readings for row in rows)
    if ledger is None:
        ledger = Ledger(stored=kept, totals=Totals(read=kept))
    ledger.rows, ledger.kept = len(rows), kept
    ledger.head = max(ledger.head, store.last_row(), witness[1] if witness else 0)
    missing = Intervals()
    if not ledger.accounts and rows:
        for gap in store.gaps(rows[0].seq, ledger.head):
            missing.add(*gap)
    for account in ledger.accounts.values():
        if fresh:
            account.lanes.clear()
        for gap in store.gaps(account.cursor.low, ledger.head):
            for span in account.cursor.add(*gap):
                missing.add(*span)
        lost = account.pending - store.unsettled(account)
        account.stored_for += max(0, -lost)
        account.evicted += max(0, lost)
        account.corrupt += max(0, lost)
    return ledger, [*([(1, missing.low)] if missing.low else []), *missing.islands]
