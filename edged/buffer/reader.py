"""What the reader thread does: fetch and decode what is no longer in memory. Synchronous, one thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from edged.buffer.batch import PRIORITY, Batch
from edged.buffer.cursor import Span
from edged.buffer.store import Letter, open_reader
from edged.buffer.table import COLUMNS, decode_row, read_rows

_PAGE = 10_000
"""Readings."""
_LONGEST_ROW = 3_600_000_000
"""Microseconds from the first to the last sample of a row, and more: a disk that refuses makes them long."""


class Reader:
    """A connection of its own, opened when first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._opened = 0
        self.generation = 0
        """Set by the event loop: rises when the file was replaced, so that it must be opened anew."""

    def _connect(self) -> sqlite3.Connection:
        if self._opened != self.generation:
            self.close()
        if self._db is None:
            self._opened = self.generation
            self._db = open_reader(self._path)
        return self._db

    def batches(
        self, after: int, through: int | None, max_readings: int, target: str
    ) -> tuple[list[Batch], list[Span]]:
        """(sound batches beyond `after`, damaged ranges and gaps among them). Raises sqlite3.Error, DamagedError.

        With a `target` only its rows: what lies between them is no gap.
        """
        batches: list[Batch] = []
        unreadable: list[Span] = []
        end = after
        for row in read_rows(self._connect(), after, through=through, max_readings=max_readings, target=target):
            seq, first = row[0], row[1]
            batch = decode_row(row)
            if batch is not None:
                batches.append(batch)
            else:
                unreadable.append((first, seq))
            if first > end + 1 and not target:
                unreadable.append((end + 1, first - 1))
            end = seq
        return batches, unreadable

    def history(self, after: int, begin: int, end: int, doubtful: Mapping[str, int]) -> tuple[list[Batch], int]:
        """(Some of the batches beyond `after` that reach into [begin, end), how far that was; 0 if that is all).

        `doubtful`: see `Buffer.history`. Damaged ones, and what was only put back for one connection, are left out.
        Raises sqlite3.Error.
        """
        other = " OR (boot = ? AND latest - skew < ?)" * len(doubtful)
        query = (
            f"SELECT {COLUMNS} FROM log WHERE seq > ? AND ((latest >= ? AND earliest < ?){other})"  # noqa: S608  # constants
            " AND target IN ('', ?) ORDER BY seq LIMIT 50"
        )
        of_boots = [value for boot, until in doubtful.items() for value in (boot, until + _LONGEST_ROW)]
        found: list[Batch] = []
        readings = reached = 0
        with closing(self._connect().execute(query, (after, begin, end, *of_boots, PRIORITY))) as rows:
            for row in rows:
                batch, reached = decode_row(row), row[0]
                if batch is not None:
                    found.append(batch)
                    readings += batch.readings
                if readings > _PAGE:
                    break
        return found, reached

    def letters(self) -> list[Letter]:
        """The dead letters, oldest first. Raises sqlite3.Error."""
        rows = self._connect().execute(f"SELECT {', '.join(Letter._fields)} FROM dead_letters ORDER BY id")  # noqa: S608  # constants
        return [Letter(*row) for row in rows.fetchall()]

    def earliest(self, after: int) -> int:
        """The time of the oldest sample in the first row beyond `after`; 0 if there is none. Raises sqlite3.Error."""
        query = "SELECT earliest FROM log WHERE seq > ? ORDER BY seq LIMIT 1"
        row = self._connect().execute(query, (after,)).fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._db is not None:
            self._db.close()
            self._db = None
