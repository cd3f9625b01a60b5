"""The rows of the log as they stand in the file: how they are made, checked and read."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edged.buffer.batch import Batch
from edged.buffer.codec import decode_batch
from edged.buffer.cursor import Span
from edged.model import Sample

COLUMNS = "seq, first, readings, earliest, latest, boot, skew, crc, data, target"
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_A_PERSON_MUST_ACT = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
StoredRow = tuple[int, int, int, int, int, str, int, int, bytes, str]
"""A row of the log, as `COLUMNS`."""


class DamagedError(Exception):
    """The file is not what we wrote; the message says why."""


def is_corrupt(error: BaseException) -> bool:
    """Whether the file is damaged, as opposed to a disk that is full, slow or read-only."""
    return isinstance(error, DamagedError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT


def needs_a_person(error: BaseException) -> bool:
    """Whether the file is there, but may not be used."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _A_PERSON_MUST_ACT


@dataclass(frozen=True, slots=True)
class RowHead:
    """What accounting needs of a row, without its data."""

    seq: int
    first: int
    readings: int
    latest: int
    boot: str
    skew: int
    size: int
    target: str

    @property
    def span(self) -> Span:
        """Its range of sequence numbers."""
        return self.first, self.seq


def row_crc(row: Sequence[object]) -> int:
    """The checksum of a row: of its numbers as decimal text with commas, then its data."""
    seq, first, readings, earliest, latest, boot, skew, _crc, data, target = row
    head = f"{seq},{first},{readings},{earliest},{latest},{boot},{skew}{',' if target else ''}{target}".encode()
    return zlib.crc32(data, zlib.crc32(head))  # type: ignore[arg-type]  # bytes, by the table's STRICT schema


def make_row(
    first: int, samples: Sequence[Sample], readings: int, data: bytes, boot: str, target: str = ""
) -> StoredRow:
    """The row that holds these samples, encoded as `data`."""
    times = [sample.time for sample in samples]
    last = samples[-1]
    numbers = (first + len(samples) - 1, first, readings, min(times), max(times), boot, last.time - last.mono)
    return (*numbers, row_crc((*numbers, 0, data, target)), data, target)


def decode_row(row: StoredRow) -> Batch | None:
    """The batch of a row, or None if the row is damaged."""
    try:
        if row_crc(row) != row[7]:
            return None
        batch = decode_batch(row[8], row[1], row[5], row[2])
    except (ValueError, TypeError):
        return None
    if batch.last != row[0]:
        return None
    return replace(batch, target=row[9]) if row[9] else batch


def read_rows(
    connection: sqlite3.Connection,
    after: int,
    *,
    through: int | None = None,
    max_readings: int = 2**62,
    target: str = "",
) -> list[StoredRow]:
    """The rows that end beyond `after` and begin at or before `through`: one at least, if there is one.

    With a `target` only its rows. Raises sqlite3.Error, and DamagedError if the rows do not follow each other.
    """
    rows: list[StoredRow] = []
    readings, end = 0, after
    which = "target <> '' AND target = ? AND seq > ?" if target else "? = '' AND seq > ?"
    cursor = connection.execute(f"SELECT {COLUMNS} FROM log WHERE {which} ORDER BY seq", (target, after))  # noqa: S608  # constants
    try:
        for row in cursor:
            check_numbers(row[:6], end if rows else 0)
            if through is not None and row[1] > through:
                break
            if rows and readings + row[2] > max_readings:
                break
            rows.append(row)
            readings += row[2]
            end = row[0]
    finally:
        cursor.close()
    return rows


def check_numbers(row: Sequence[object], end: int) -> None:
    """Whether a row can follow one that ends at `end`. What a damaged page holds can be of any type and value."""
    seq, first, readings, earliest, latest, *_ = row
    for number in (seq, first, readings, earliest, latest):
        if not isinstance(number, int):
            raise DamagedError(f"the rows beyond sample {end} are damaged")
    if not (end < first <= seq and readings >= 0):  # type: ignore[operator]  # integers, as checked
        raise DamagedError(f"the rows beyond sample {end} are damaged")
