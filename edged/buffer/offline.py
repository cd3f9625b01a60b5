"""Looks at the file of a stopped gateway without changing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edged.buffer.counters import BufferStats, ConnectionStats
from edged.buffer.reader import Reader
from edged.buffer.service import Times, choice, chosen_of, letter_records, verification
from edged.buffer.store import APPLICATION, FORMAT, Store, check_there, open_reader
from edged.buffer.table import DamagedError, needs_a_person
from edged.buffer.verify import verify
from edged.errors import ConfigError, TransientError
from edged.model import Sample


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    """Raises ConfigError (not there, not a buffer, of a newer edged), TransientError (it cannot be read)."""
    check_there(path)
    if not path.stat().st_size:
        raise ConfigError(f"{path} is empty: edged makes a new buffer of it at its next start")
    try:
        with closing(open_reader(path)) as db:
            store = Store(path, 0, db)
            if store.pragma("application_id") != APPLICATION:
                raise ConfigError(f"{path} is not a buffer of edged, or its beginning is damaged")
            if store.pragma("user_version") > FORMAT:
                raise ConfigError(f"the buffer {path} was written by a newer edged: update edged")
            yield store
    except (sqlite3.Error, DamagedError, ValueError) as exc:
        if needs_a_person(exc):
            hint = "check its owner and permissions, or copy it with its -wal to where you may write"
            raise ConfigError(f"the buffer {path} cannot be read ({exc}); {hint}") from exc
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise TransientError(
                f"the buffer {path} is held by another program ({exc}); try again", reason="disk"
            ) from exc
        hint = "edged repairs it at its next start, or with `edged buffer repair`"
        raise TransientError(f"the buffer {path} cannot be read ({exc}); {hint}", reason="disk") from exc


def look(path: Path, action: str, options: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What `edged.buffer.service.perform` tells, of those actions that change nothing. Raises EdgedError."""
    with _opened(path) as store:
        if action == "letters":
            with closing(Reader(path)) as reader:
                connection = next(iter(options.get("connection", ())), "")
                return {
                    "letters": letter_records(
                        reader.letters(), connection, known=store.load().accounts if connection else ()
                    )
                }
        stats = _stats(store)
        if action == "stats":
            return asdict(stats)
        if action == "verify":
            return verification(stats, verify(store, store.load()))
        raise KeyError(action)


def export(
    path: Path, options: Mapping[str, Sequence[str]], times: Times | None = None
) -> Iterator[tuple[int, Sample]]:
    """See `edged.buffer.service.export`. Raises EdgedError."""
    chosen, doubtful = choice(options), times.doubtful if times else {}
    with _opened(path), closing(Reader(path)) as reader:
        batches, after = reader.history(0, chosen.begin, chosen.end, doubtful)
        while after:
            for batch in batches:
                yield from chosen_of(batch, chosen, times)
            batches, after = reader.history(after, chosen.begin, chosen.end, doubtful)


def _stats(store: Store) -> BufferStats:
    ledger = store.load()
    totals = ledger.totals
    return BufferStats(
        epoch=store.epoch,
        head=ledger.head,
        read=totals.read,
        stored=ledger.stored,
        suppressed=totals.suppressed,
        rejected=totals.rejected.total(),
        rejected_by=dict(totals.rejected),
        waiting=0,
        rows=ledger.rows,
        readings=ledger.kept,
        file_bytes=store.file_bytes(),
        wal_bytes=store.wal_bytes(),
        used_bytes=store.used_pages() * store.pragma("page_size"),
        alarm="",
        detail="",
        commits=0,
        commit_seconds=0.0,
        connections={name: ConnectionStats.of(account) for name, account in ledger.accounts.items()},
        removed={},
        lost=ledger.lost,
    )
