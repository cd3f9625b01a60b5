"""The SQLite file, synchronously and from one thread: pages, rows and transactions, but no policy."""

from __future__ import annotations

import os
import sqlite3
import stat
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from edged.buffer.batch import PRIORITY, Batch
from edged.buffer.counters import Account, Ledger, Settle
from edged.buffer.cursor import Span
from edged.buffer.table import RowHead, StoredRow, check_numbers, decode_row, read_rows
from edged.errors import ConfigError

FORMAT = 3
"""The version of the file's layout, in SQLite's user_version."""
USABLE = 2
"""The oldest that can be worked with as it is: what came after it only makes things faster. A release that is on trial
leaves such a file as it is, so that the release before can go on with it."""
APPLICATION = 0x65646764
"""`edgd` in SQLite's application_id."""
PAGE = 1024
"""Bytes. A commit of few readings writes two or three pages; small ones keep that cheap on flash."""
_FRAME_HEADER = 24
_SHM_BLOCK = 32_768
_SHM_FRAMES = 4_000
_COUNT_READINGS = 10_000
"""How much is read at a time to count or copy rows."""
BUSY_SECONDS = 2.0
_MIGRATIONS = {
    1: "ALTER TABLE log ADD COLUMN target TEXT NOT NULL DEFAULT ''",
    2: "CREATE INDEX by_target ON log (target) WHERE target <> ''",
}
"""Format → what makes the next one of it."""
LETTER_COLUMNS = "id, connection, first, last, readings, time, reason, detail, boot, data"


class Letter(NamedTuple):
    """What a receiver refused for ever, without its readings. `time` in microseconds since 1970."""

    id: int
    connection: str
    first: int
    last: int
    readings: int
    time: int
    reason: str
    detail: str


def check_there(path: Path) -> None:
    """Raises ConfigError where there is no file, or where one may not even look."""
    try:
        there = stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except OSError as exc:
        raise ConfigError(f"the buffer {path} cannot be read: {exc.strerror}; use sudo") from exc
    if not there:
        raise ConfigError(f"there is no buffer {path}: name its file with --file")


def open_reader(path: Path, *, damaged: bool = False) -> sqlite3.Connection:
    """A second connection that only reads. It ends each read at once, so that it never holds back a checkpoint."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    if _at_rest(path):
        uri += "&immutable=1"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    connection.text_factory = _tolerant
    try:
        if damaged:
            connection.execute("PRAGMA writable_schema = ON")  # so that SQLite reads a file that lacks its end at all
        connection.execute("PRAGMA cache_size = -256")
        if connection.execute("PRAGMA user_version").fetchone() == (1,):
            # Found before the table itself; so that what only looks need not know what format 1 lacked.
            connection.execute("CREATE TEMP VIEW log AS SELECT *, '' AS target FROM main.log")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _at_rest(path: Path) -> bool:
    """Whether nobody uses it, and SQLite could not make the index that it needs otherwise: on a read-only stick."""
    wal, shm = path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
    return not os.access(path.parent, os.W_OK) and not shm.exists() and not _size(wal)


def read_state(connection: sqlite3.Connection) -> tuple[str, int, Ledger]:
    """(epoch, inode, ledger). Raises ValueError if they are damaged, sqlite3.Error."""
    row = connection.execute("SELECT epoch, inode, head, crc, ledger FROM state WHERE id = 1").fetchone()
    if row is None:
        raise ValueError("its state is missing")
    return parse_state(*row)


def parse_state(epoch: object, inode: object, head: object, crc: object, text: object) -> tuple[str, int, Ledger]:
    """(epoch, inode, ledger) of the state's columns. Raises ValueError if they are damaged."""
    if not (isinstance(text, bytes) and isinstance(epoch, str) and isinstance(inode, int) and isinstance(head, int)):
        raise ValueError("its counters and cursors are damaged")  # noqa: TRY004  # one error for one kind of damage
    if crc != _state_crc(epoch, inode, head, text):
        raise ValueError("its counters and cursors are damaged")
    return epoch, inode, Ledger.parse(head, text)


def _state_crc(epoch: str, inode: int, head: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(f"{epoch},{inode},{head}".encode()))


class Store:
    """An open file. Whatever fails raises sqlite3.Error; the transaction is rolled back."""

    def __init__(self, path: Path, max_bytes: int, db: sqlite3.Connection | None = None) -> None:
        """`db`: a connection that only reads, to look at a file without preparing it for work."""
        self.path = path
        self._wal = path.with_name(path.name + "-wal")
        self.wal_budget = min(max(max_bytes // 8, 128 * 1024), 4 * 2**20)
        self._max_bytes = max_bytes
        self.page = PAGE
        self.max_pages = 0
        """The hard limit of the database file."""
        self.max_transaction = self.wal_budget // 4
        """How many bytes of rows one transaction should hold, so that the journal stays within its budget."""
        self.epoch = ""
        self.inode = 0
        self.closed = False
        self.db = db or sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        self.db.text_factory = _tolerant

    def prepare(self) -> None:
        """Set the connection up. The first access to the file: raises sqlite3.DatabaseError if it is not a database."""
        self.db.execute(f"PRAGMA page_size = {PAGE}")
        self.page = self.pragma("page_size")
        frames = self.wal_budget // (self.page + _FRAME_HEADER)
        shm = _SHM_BLOCK * (1 + frames // _SHM_FRAMES)
        self.max_pages = (self._max_bytes - self.wal_budget - shm) // self.page
        for pragma in (
            "auto_vacuum = NONE",
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = OFF",
            "cache_size = -1024",
            "temp_store = MEMORY",
            f"wal_autocheckpoint = {frames // 2}",
            f"journal_size_limit = {self.wal_budget}",
            f"max_page_count = {self.max_pages}",
        ):
            self.db.execute(f"PRAGMA {pragma}").fetchall()

    def create(self, epoch: str) -> None:
        """Make the tables in an empty file."""
        schema = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
        self.epoch, self.inode = epoch, self.path.stat().st_ino
        with self.transaction():
            for statement in _statements(schema):
                self.db.execute(statement)
            self.db.execute(f"PRAGMA application_id = {APPLICATION}")
            self.db.execute(f"PRAGMA user_version = {FORMAT}")
            self.db.execute("INSERT INTO state VALUES (1, '', 0, 0, 0, x'')")
            self.save(Ledger())

    def migrate(self, version: int) -> None:
        """Bring a file of an older format up to date."""
        with self.transaction():
            for older in range(version, FORMAT):
                self.db.execute(_MIGRATIONS[older])
            self.db.execute(f"PRAGMA user_version = {FORMAT}")

    def close(self) -> None:
        """Close it; the last one to close moves the journal into the database."""
        self.closed = True
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable when left."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def pragma(self, name: str) -> int:
        """A number SQLite knows."""
        return int(self.db.execute(f"PRAGMA {name}").fetchone()[0])

    # state

    def load(self) -> Ledger:
        """Read epoch, inode and ledger. Raises ValueError if they are not readable."""
        self.epoch, self.inode, ledger = read_state(self.db)
        return ledger

    def save(self, ledger: Ledger, waiting: int = 0) -> None:
        """Write them, within a transaction. See `Ledger.dump` for `waiting`."""
        text = ledger.dump(waiting)
        crc = _state_crc(self.epoch, self.inode, ledger.head, text)
        self.db.execute(
            "UPDATE state SET epoch = ?, inode = ?, head = ?, crc = ?, ledger = ? WHERE id = 1",
            (self.epoch, self.inode, ledger.head, crc, text),
        )

    def begin_epoch(self, epoch: str) -> None:
        """Give the file a new life: with the next `save`."""
        self.epoch, self.inode = epoch, self.path.stat().st_ino

    # rows

    def insert(self, row: StoredRow) -> None:
        """Append one row, within a transaction."""
        self.db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def heads(self, after: int = 0) -> Generator[RowHead]:
        """The rows beyond `after` in order, without their data. Exhaust or close it before writing."""
        columns = "seq, first, readings, earliest, latest, skew, boot, length(data), target"
        cursor = self.db.execute(f"SELECT {columns} FROM log WHERE seq > ? ORDER BY seq", (after,))  # noqa: S608  # a constant
        end = 0
        try:
            for row in cursor:
                check_numbers(row, end)
                seq, first, readings, _, latest, skew, boot, size, target = row
                yield RowHead(
                    seq, first, readings, latest, boot, skew if isinstance(skew, int) else 0, size or 0, target
                )
                end = seq
        finally:
            cursor.close()

    def overlaps(self, first: int, last: int) -> bool:
        """Whether a row is there that holds some of first..last."""
        row = self.db.execute("SELECT first FROM log WHERE seq >= ? ORDER BY seq LIMIT 1", (first,)).fetchone()
        return row is not None and int(row[0]) <= last

    def first_row(self) -> int:
        """The seq of the oldest sample that is there; 0 if there is none."""
        row = self.db.execute("SELECT first FROM log ORDER BY seq LIMIT 1").fetchone()
        return int(row[0]) if row else 0

    def last_row(self) -> int:
        """The seq of the last row; 0 if there is none."""
        return int(self.db.execute("SELECT coalesce(max(seq), 0) FROM log").fetchone()[0])

    def totals(self) -> tuple[int, int]:
        """(rows, readings) that are there."""
        row = self.db.execute("SELECT count(*), coalesce(sum(readings), 0) FROM log").fetchone()
        return int(row[0]), int(row[1])

    def delete(self, first: int, last: int) -> tuple[int, int]:
        """Delete the rows that lie within first..last, in a transaction; returns (rows, readings)."""
        deleted = self.db.execute(
            "DELETE FROM log WHERE seq BETWEEN ? AND ? AND first >= ? RETURNING readings", (first, last, first)
        ).fetchall()
        return len(deleted), sum(readings for (readings,) in deleted if isinstance(readings, int))

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The readable batches that hold some of first..last."""
        for row in read_rows(self.db, first - 1, through=last):
            batch = decode_row(row)
            if batch is not None:
                yield batch

    def count_readings(self, spans: Sequence[Span]) -> int | None:
        """How many readings the samples of these ranges hold; None if some of them cannot be read."""
        readings = samples = 0
        for first, last in spans:
            for batch in self.batches(first, last):
                within = batch.samples[max(0, first - batch.first) : last - batch.first + 1]
                readings += sum(len(sample.values) for sample in within)
                samples += len(within)
        return readings if samples == sum(last - first + 1 for first, last in spans) else None

    def unsettled(self, account: Account) -> int:
        """Readings in the rows that the account has not settled, counted one by one."""
        total, partly = 0, []
        with closing(self.heads(account.cursor.low)) as rows:
            for row in rows:
                missing = account.missing(row.first, row.seq, priority=row.target == PRIORITY)
                if missing == [row.span]:
                    total += row.readings
                else:
                    partly.extend(missing)
        return total + sum(self.count_readings([span]) or 0 for span in partly)

    def count_all(self) -> tuple[int, int, list[Span]]:
        """(rows, readings, ranges of damaged rows), every checksum checked."""
        rows = readings = after = 0
        damaged: list[Span] = []
        while group := read_rows(self.db, after, max_readings=_COUNT_READINGS):
            rows += len(group)
            readings += sum(row[2] for row in group)
            damaged += [(row[1], row[0]) for row in group if decode_row(row) is None]
            after = group[-1][0]
        return rows, readings, damaged

    def gaps(self, after: int, head: int) -> list[Span]:
        """The ranges within after+1..head of which no row is left."""
        missing: list[Span] = []
        for row in self.heads(after):  # to its end, so it is closed
            if row.first > after + 1:
                missing.append((after + 1, row.first - 1))
            after = max(after, row.seq)
        if head > after:
            missing.append((after + 1, head))
        return missing

    def waiting_for(self, name: str, head: int) -> tuple[list[Span], int]:
        """(Ranges up to head of which nothing is there for a new connection, readings of the rest)."""
        gaps: list[Span] = []
        after = readings = 0
        for row in self.heads():  # to its end, so it is closed
            if row.target not in {"", PRIORITY, name}:
                continue
            if row.first > after + 1:
                gaps.append((after + 1, row.first - 1))
            after = row.seq
            readings += row.readings
        if head > after:
            gaps.append((after + 1, head))
        return gaps, readings

    # dead letters

    def bury(self, settle: Settle, readings: int, time: int, boot: str, data: bytes, keep: int) -> None:
        """Keep what was refused, the newest `keep` of them."""
        added = self.db.execute(
            "INSERT INTO dead_letters (connection, first, last, readings, time, reason, detail, boot, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (settle.connection, settle.first, settle.last, readings, time, settle.reason, settle.detail, boot, data),
        )
        self.db.execute("DELETE FROM dead_letters WHERE id <= ?", ((added.lastrowid or 0) - keep,))

    def drop_dead_letters(self, count: int) -> int:
        """Delete the oldest ones; returns how many."""
        query = "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters ORDER BY id LIMIT ?)"
        return self.db.execute(query, (count,)).rowcount

    # space

    def pages_for(self, size: int) -> int:
        """How many pages a row of this many bytes of data needs at most."""
        return 2 + size // (self.page - 4)

    def used_pages(self) -> int:
        """Pages in use, uncommitted changes included."""
        return self.pragma("page_count") - self.pragma("freelist_count")

    def wal_bytes(self) -> int:
        """The size of the journal."""
        return _size(self._wal)

    def file_bytes(self) -> int:
        """The size of the database file."""
        return _size(self.path)

    def checkpoint(self) -> bool:
        """Move the journal into the database and empty it; False if another reader prevents that."""
        busy, _, _ = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def free_disk(self) -> int:
        """Bytes that the file system has left for us."""
        status = os.statvfs(self.path.parent)
        return status.f_bavail * status.f_frsize


def _tolerant(text: bytes) -> str:
    """Damaged text is no error of its own; the checksum of its row tells."""
    return text.decode("utf-8", "replace")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
