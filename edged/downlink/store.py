"""The commands on the disk: one small SQLite file, one thread, one transaction for all that waits for it.

A row is written when a command is accepted, before its write goes over the wire, and when its result is known. So a
command whose row says `executing` after a crash may have been carried out, and any other was not since.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from edged.downlink.api import Command, CommandResult, Reply, State
from edged.downlink.expiry import Deadline
from edged.errors import ConfigError, TransientError
from edged.model import Value

log = logging.getLogger("edged.commands")

T = TypeVar("T")
EXECUTING = "executing"
"""The state on the disk while the write is under way."""
KEPT = 1000
"""So many finished commands stay in the audit log, besides those that may still come a second time."""
MOST_ROWS = 30_000
"""With more, no new command is taken: what is done cannot be forgotten before its expiry."""
_PRUNE_EVERY = 200
_PATIENCE = 10.0
"""Seconds to wait for the disk."""
FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS command (
    number INTEGER PRIMARY KEY AUTOINCREMENT, entrance TEXT NOT NULL, id TEXT NOT NULL, device TEXT NOT NULL,
    point TEXT NOT NULL, value TEXT NOT NULL, raw BLOB, confirm INTEGER NOT NULL, requester TEXT NOT NULL,
    topic TEXT NOT NULL, correlation BLOB NOT NULL, received INTEGER NOT NULL, absolute INTEGER NOT NULL,
    until_wall INTEGER, until_boot INTEGER NOT NULL, boot TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    detail TEXT NOT NULL, was TEXT NOT NULL, changed INTEGER NOT NULL, told TEXT NOT NULL, UNIQUE (entrance, id));
CREATE TABLE IF NOT EXISTS desired (
    device TEXT NOT NULL, point TEXT NOT NULL, value TEXT NOT NULL, time INTEGER NOT NULL, PRIMARY KEY (device, point)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS twin (device TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = (
    "number, entrance, id, device, point, value, raw, confirm, requester, topic, correlation, received, absolute, "
    "until_wall, until_boot, boot, state, reason, detail, was, changed, told"
)


@dataclass(slots=True)
class Row:
    """A command with all that is known of it."""

    number: int
    entrance: str
    command: Command
    deadline: Deadline
    received: int
    """Microseconds since the Unix epoch."""
    state: str
    reason: str = ""
    detail: str = ""
    was: Value = None
    """What was read back."""
    changed: int = 0
    told: str = ""
    """The last state that its sender took notice of."""

    def result(self) -> CommandResult:
        """For the sender. A write that is under way counts as accepted."""
        command = self.command
        return CommandResult(
            id=command.id, device=command.device, point=command.point,
            state=State.ACCEPTED if self.state == EXECUTING else State(self.state), reason=self.reason,
            detail=self.detail, value=self.was, time=self.changed, reply=command.reply,
        )  # fmt: skip


class Desired(NamedTuple):
    """What a point was told to be."""

    device: str
    point: str
    value: Value
    time: int


def _json(value: Value) -> str:
    return orjson.dumps(value).decode()


def _row(columns: Sequence[Any]) -> Row:
    (
        number, entrance, ident, device, point, value, raw, confirm, requester, topic, correlation, received, absolute,
        until_wall, until_boot, boot, state, reason, detail, was, changed, told,
    ) = columns  # fmt: skip
    command = Command(
        id=ident, device=device, point=point, value=orjson.loads(value), raw=raw, confirm=bool(confirm),
        requester=requester, reply=Reply(topic, correlation),
    )  # fmt: skip
    deadline = Deadline(until_boot, boot, until_wall, absolute=bool(absolute))
    return Row(number, entrance, command, deadline, received, state, reason, detail, orjson.loads(was), changed, told)


@dataclass(slots=True)
class _Work:
    do: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]


@dataclass(slots=True)
class Store:
    """The file. `run` must be running for anything to be done."""

    path: Path
    _waiting: list[_Work] = field(default_factory=list)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _pool: ThreadPoolExecutor | None = None
    _db: sqlite3.Connection | None = None
    _added: int = 0
    _rows: int = 0
    """How many there are, at least; counted now and then."""

    # -- life ------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file; a damaged one is set aside. Raises ConfigError if there can be none."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="commands")
        await asyncio.get_running_loop().run_in_executor(self._pool, self._open)

    async def run(self) -> None:
        """Carry out what is asked for, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._flush()

    async def close(self) -> None:
        """Carry out what still waits, and close."""
        if self._pool is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._flush()
        pool, self._pool = self._pool, None
        pool.submit(self._close)
        pool.shutdown(wait=False)

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, when it is durable. Raises TransientError `storage` if it cannot be."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Work(work, done))
        self._wanted.set()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await done
        except TimeoutError:
            raise TransientError(f"the disk has not taken it within {_PATIENCE:g} s", reason="storage") from None

    async def _flush(self) -> None:
        # What nobody waits for any more must not be done behind their backs.
        works = [work for work in self._waiting if not work.done.done()]
        self._waiting.clear()
        if not works or self._pool is None:
            return
        loop = asyncio.get_running_loop()
        try:
            values = await asyncio.shield(loop.run_in_executor(self._pool, self._commit, works))
        except TransientError as exc:
            for work in works:
                if not work.done.done():
                    work.done.set_exception(exc)
            return
        for work, value in zip(works, values, strict=True):
            if not work.done.done():
                work.done.set_result(value)

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._db = connect(self.path)
            except sqlite3.DatabaseError as exc:
                if isinstance(exc, sqlite3.OperationalError):
                    raise
                aside = self.path.with_name(f"{self.path.name}.damaged")
                log.error("%s is damaged (%s): it is kept as %s, and a new one begins", self.path, exc, aside.name)  # noqa: TRY400  # one line for people
                self.path.replace(aside)
                for extra in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + extra).unlink(missing_ok=True)
                self._db = connect(self.path)
        except (OSError, sqlite3.Error) as exc:
            raise ConfigError(f"{self.path} cannot be opened: {exc}") from exc

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _commit(self, works: Sequence[_Work]) -> list[Any]:
        db = self._db
        if db is None:
            raise TransientError("the command store is not open", reason="storage")
        try:
            db.execute("BEGIN IMMEDIATE")
            values = [work.do(db) for work in works]
            db.execute("COMMIT")
        except sqlite3.Error as exc:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise TransientError(f"commands cannot be stored: {exc}", reason="storage") from exc
        return values

    # -- commands --------------------------------------------------------------------------------------------------

    async def add(self, row: Row, wall: int, boottime: int, *, trusted: bool) -> Row:
        """Store a new command, and give it its number; of one that is known, the row as it stands.

        Raises TransientError `storage`, or `full` if there are too many.
        """
        self._added += 1
        prune = self._added % _PRUNE_EVERY == 1

        def work(db: sqlite3.Connection) -> Row | None:
            if prune:
                _prune(db, row.deadline.boot, wall if trusted else 0, boottime)
                self._rows = db.execute("SELECT count(*) FROM command").fetchone()[0]
            command, deadline = row.command, row.deadline
            known = db.execute(
                f"SELECT {_COLUMNS} FROM command WHERE entrance = ? AND id = ?",  # noqa: S608  # constants
                (row.entrance, command.id),
            ).fetchone()
            if known is not None:
                return _row(known)
            if self._rows >= MOST_ROWS:
                return None
            self._rows += 1
            cursor = db.execute(
                f"INSERT INTO command ({_COLUMNS}) VALUES (NULL, {', '.join('?' * 21)})",  # noqa: S608  # constants
                (
                    row.entrance, command.id, command.device, command.point, _json(command.value), command.raw,
                    command.confirm, command.requester, command.reply.topic, command.reply.correlation, row.received,
                    deadline.absolute, deadline.wall, deadline.boottime, deadline.boot, row.state, row.reason,
                    row.detail, _json(row.was), row.changed, row.told,
                ),
            )  # fmt: skip
            row.number = cursor.lastrowid or 0
            return row

        stored = await self.do(work)
        if stored is None:
            raise TransientError(
                f"{MOST_ROWS} commands are kept that could come again: give them a shorter expiry", reason="full"
            )
        return stored

    async def update(self, row: Row, desired: Desired | None = None) -> None:
        """Write how a command stands, and what its point is told to be by that. Raises TransientError."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE command SET state = ?, reason = ?, detail = ?, was = ?, changed = ? WHERE number = ?",
                (row.state, row.reason, row.detail, _json(row.was), row.changed, row.number),
            )
            if desired is not None:
                db.execute(
                    "INSERT OR REPLACE INTO desired VALUES (?, ?, ?, ?)",
                    (desired.device, desired.point, _json(desired.value), desired.time),
                )

        await self.do(work)

    async def told(self, numbers: Sequence[tuple[int, str]]) -> None:
        """Note which states the senders know of. Raises TransientError."""
        pairs = [(state, number) for number, state in numbers]
        await self.do(lambda db: db.executemany("UPDATE command SET told = ? WHERE number = ?", pairs).rowcount)

    async def unfinished(self) -> list[Row]:
        """Those to be carried out, oldest first. Raises TransientError."""
        where = "state IN ('accepted', 'executing') ORDER BY number"
        return await self.do(lambda db: _select(db, where, ()))

    async def untold(self, most: int) -> list[Row]:
        """Those whose sender does not know the last state, the newest of them, oldest first. Raises TransientError."""
        where = "told != state AND state != 'executing' AND entrance != 'local' ORDER BY number DESC LIMIT ?"
        return (await self.do(lambda db: _select(db, where, (most,))))[::-1]

    async def newest(self, most: int, device: str = "", *, ident: str = "") -> list[Row]:
        """The audit log, newest first; of one device, or of one id. Raises TransientError."""
        where = "(? = '' OR device = ?) AND (? = '' OR id = ?) ORDER BY number DESC LIMIT ?"
        return await self.do(lambda db: _select(db, where, (device, device, ident, ident, most)))

    # -- the twin --------------------------------------------------------------------------------------------------

    async def desired(self) -> list[Desired]:
        """What every point was last told to be. Raises TransientError."""
        found = await self.do(lambda db: db.execute("SELECT device, point, value, time FROM desired").fetchall())
        return [Desired(device, point, orjson.loads(value), time) for device, point, value, time in found]

    async def reported(self, devices: Sequence[str]) -> dict[str, bytes]:
        """What was kept of these devices, by name; nothing of those that are not known. Raises TransientError."""
        query = "SELECT data FROM twin WHERE device = ?"
        found = await self.do(lambda db: [db.execute(query, (device,)).fetchone() for device in devices])
        return {device: bytes(row[0]) for device, row in zip(devices, found, strict=True) if row is not None}

    async def keep(self, twins: Sequence[tuple[str, bytes]]) -> None:
        """Keep what devices reported. Raises TransientError."""
        await self.do(lambda db: db.executemany("INSERT OR REPLACE INTO twin VALUES (?, ?)", twins).rowcount)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, made if need be. Raises sqlite3.Error, ConfigError (of a newer edged)."""
    db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    ready = False
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 256")
        db.execute("PRAGMA journal_size_limit = 1048576")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise ConfigError(f"{path} was written by a newer edged; install that, or move the file away")
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("SELECT count(*) FROM command").fetchone()
        ready = True
    finally:
        if not ready:
            db.close()
    return db


def _select(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> list[Row]:
    return [_row(columns) for columns in db.execute(f"SELECT {_COLUMNS} FROM command WHERE {where}", values)]  # noqa: S608  # constants


def _prune(db: sqlite3.Connection, boot: str, wall: int, boottime: int) -> None:
    """Forget finished commands beyond the newest, unless they may still come a second time. `wall`: 0 if unknown."""
    db.execute(
        "DELETE FROM command WHERE state NOT IN ('accepted', 'executing') AND number <= "
        "(SELECT number FROM command ORDER BY number DESC LIMIT 1 OFFSET ?) AND "
        "CASE WHEN boot = ? THEN until_boot <= ? ELSE until_wall IS NULL OR until_wall <= ? END",
        (KEPT, boot, boottime, wall),
    )


def read_offline(path: Path, most: int, device: str = "") -> list[Row]:
    """The audit log of a gateway that does not run, newest first. Raises ConfigError."""
    if not path.exists():
        raise ConfigError(f"there are no commands at {path}: name the state folder with --state")
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
        try:
            return _select(db, "(? = '' OR device = ?) ORDER BY number DESC LIMIT ?", (device, device, most))
        finally:
            db.close()
    except sqlite3.Error as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc
