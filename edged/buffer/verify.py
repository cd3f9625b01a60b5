"""Counts everything in the file anew and holds it against the book."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from edged.buffer.counters import Ledger, Verification
from edged.buffer.store import Store
from edged.buffer.table import DamagedError


def verify(store: Store, ledger: Ledger) -> Verification:
    """Whether every row is sound, and every counter agrees with the rows. It reads the whole file."""
    try:
        rows, readings, damaged = store.count_all()
        problems = list(_differences(store, ledger, rows, readings))
        problems += [f"samples {first} to {last} are damaged" for first, last in damaged]
    except (sqlite3.Error, DamagedError) as exc:
        return Verification((f"the file cannot be read: {exc}",))
    return Verification(tuple(problems), rows, readings)


def _differences(store: Store, ledger: Ledger, rows: int, readings: int) -> Iterator[str]:
    totals = ledger.totals
    compared = {
        "readings read": (totals.read, ledger.stored + totals.suppressed + totals.rejected.total()),
        "rows": (ledger.rows, rows),
        "readings in the file": (ledger.kept, readings),
    }
    for name, account in ledger.accounts.items():
        compared[f"readings pending for {name}"] = (account.pending, store.unsettled(account))
    for what, (book, found) in compared.items():
        if book != found:
            yield f"{what}: {book} booked, {found} found"
    if store.last_row() > ledger.head:
        yield f"there are samples up to {store.last_row()}, but {ledger.head} is the last number given"
