"""Copies of the databases of a gateway that runs, without holding it up.

The buffer is copied row by row, in reads that each end within milliseconds, and made consistent by a last short one.
SQLite's online backup begins anew whenever another process has written between two of its steps, which the gateway
does every second; and in one step it is a reader that keeps the journal from being emptied, until the buffer has to
wait rather than let it outgrow its limit. The small database of commands is copied in one step of it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edged.buffer.store import APPLICATION, FORMAT, LETTER_COLUMNS, PAGE, Store, open_reader, read_state
from edged.buffer.table import COLUMNS, DamagedError, StoredRow, read_rows
from edged.errors import ConfigError, TransientError

_READINGS = 20_000
"""Copied in one read."""
_ROUNDS = 4
"""What was written during one round is copied by the next; the last, consistent read has little left."""
_PAUSE = 0.002
"""Seconds between two reads: the gateway's own reads and writes come first."""
_ATTEMPTS = 3
_NO_INODE = 0
"""No file has it: whoever opens the copy knows that it is one, and begins a new epoch."""
_SLOTS = ", ".join("?" * 10)


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy of the buffer holds."""

    epoch: str
    head: int
    readings: int
    pending: Mapping[str, int]
    """Connection → readings that wait for it."""


def copy_buffer(source: Path, target: Path) -> Copied:
    """Copy a buffer, in use or not, into a new file. Raises ConfigError (not a buffer), TransientError."""
    for _ in range(_ATTEMPTS):
        target.unlink(missing_ok=True)
        try:
            with closing(open_reader(source)) as reader, closing(_new(target)) as copy:
                inode = source.stat().st_ino
                copied = _Copy(source, reader, copy).run()
                if source.stat().st_ino == inode:
                    return copied
        except (sqlite3.Error, DamagedError, ValueError, FileNotFoundError) as exc:
            hint = "try with sudo, or again; `edged verify` shows whether it is sound, `edged buffer repair` mends it"
            raise TransientError(f"the buffer {source} cannot be copied ({exc}); {hint}", reason="disk") from exc
    raise TransientError(f"the buffer {source} was replaced again and again while it was copied", reason="disk")


def _new(target: Path) -> sqlite3.Connection:
    """A database that is thrown away unless it becomes whole, so it needs neither journal nor syncing."""
    db = sqlite3.connect(target, isolation_level=None)
    for pragma in (f"page_size = {PAGE}", "journal_mode = OFF", "synchronous = OFF", "cache_size = -512"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    return db


class _Copy:
    """One attempt."""

    def __init__(self, source: Path, reader: sqlite3.Connection, copy: sqlite3.Connection) -> None:
        self._source, self._reader, self._db = source, reader, copy
        self._store = Store(source, 0, copy)  # which it only asks for its inode

    def run(self) -> Copied:
        if int(self._reader.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION:
            raise ConfigError(f"{self._source} is not a buffer of edged")
        if int(self._reader.execute("PRAGMA user_version").fetchone()[0]) > FORMAT:
            raise ConfigError(f"the buffer {self._source} was written by a newer edged: update edged")
        self._store.create("")
        reached = 0
        for _ in range(_ROUNDS):
            (goal,) = self._reader.execute("SELECT coalesce(max(seq), 0) FROM log").fetchone()
            while reached < goal and (group := read_rows(self._reader, reached, max_readings=_READINGS)):
                self._insert(group)
                reached = group[-1][0]
                time.sleep(_PAUSE)
        self._reader.execute("BEGIN")  # from its first read on, everything is of one moment
        try:
            epoch, _, ledger = read_state(self._reader)
            while group := read_rows(self._reader, reached, max_readings=_READINGS):
                self._insert(group)
                reached = group[-1][0]
            self._reconcile()
            self._letters()
        finally:
            self._reader.execute("COMMIT")
        with self._store.transaction():
            self._store.epoch, self._store.inode = epoch, _NO_INODE
            self._store.save(ledger)
        pending = {name: account.pending for name, account in ledger.accounts.items()}
        return Copied(epoch, ledger.head, ledger.kept, pending)

    def _insert(self, rows: list[StoredRow]) -> None:
        with self._store.transaction():
            self._db.executemany(f"INSERT INTO log VALUES ({_SLOTS})", rows)  # noqa: S608  # constants

    def _reconcile(self) -> None:
        """Take back what has left the log meanwhile, and take what was thinned as it is now."""
        ours, theirs = _marks(self._db), _marks(self._reader)
        gone: list[tuple[int]] = []
        other: list[int] = []
        mine, its = next(ours, None), next(theirs, None)
        while mine is not None or its is not None:
            if its is None or (mine is not None and mine[0] < its[0]):
                gone.append((mine[0],))  # type: ignore[index]  # one of the two is there, and it is this one
                mine = next(ours, None)
            elif mine is None or its[0] < mine[0]:
                other.append(its[0])
                its = next(theirs, None)
            else:
                if mine != its:
                    gone.append((mine[0],))
                    other.append(its[0])
                mine, its = next(ours, None), next(theirs, None)
        with self._store.transaction():
            self._db.executemany("DELETE FROM log WHERE seq = ?", gone)
        for seq in other:
            row = self._reader.execute(f"SELECT {COLUMNS} FROM log WHERE seq = ?", (seq,)).fetchone()  # noqa: S608  # constants
            self._insert([row])

    def _letters(self) -> None:
        with self._store.transaction():
            for row in self._reader.execute(f"SELECT {LETTER_COLUMNS} FROM dead_letters"):  # noqa: S608  # constants
                self._db.execute(f"INSERT INTO dead_letters ({LETTER_COLUMNS}) VALUES ({_SLOTS})", row)  # noqa: S608  # constants


def _marks(db: sqlite3.Connection) -> Iterator[tuple[int, ...]]:
    """What tells a row from another, in order."""
    rows: Iterator[tuple[int, ...]] = db.execute("SELECT seq, first, crc FROM log ORDER BY seq")
    return rows


def copy_commands(source: Path, target: Path) -> None:
    """Copy the commands and the twin, in use or not, into a new file. Raises TransientError."""
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as reader,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            reader.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, and nothing beside it
    except sqlite3.Error as exc:
        raise TransientError(f"the commands in {source} cannot be copied ({exc})", reason="disk") from exc


def problems_of(path: Path) -> Iterator[str]:
    """What SQLite finds wrong with a database; nothing if it is sound."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as db:
            for (line,) in db.execute("PRAGMA integrity_check(5)"):
                if line != "ok":
                    yield str(line)
    except sqlite3.Error as exc:
        yield str(exc)
