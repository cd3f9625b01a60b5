"""Opening the file whatever state it is in: create, check, quarantine and salvage. Never refuses for damage."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edged.buffer.counters import Ledger
from edged.buffer.lock import Lock
from edged.buffer.salvage import salvage, settle_books
from edged.buffer.store import APPLICATION, FORMAT, USABLE, Store
from edged.buffer.table import DamagedError, is_corrupt
from edged.errors import ConfigError, PermanentError

log = logging.getLogger("edged.buffer")
_MAGIC = b"SQLite format 3\x00"
_PLAUSIBLE_FORMAT = 1000
"""A version beyond this was not written by a newer edged, but by a broken disk."""
_KEEP_QUARANTINED = 2
_OWN_TABLES = {"log", "state"}


@dataclass(slots=True)
class Opened:
    """A buffer file that is ready for work."""

    store: Store
    epoch: str
    ledger: Ledger
    mended: str = ""
    """What was wrong with it and what could be saved, where it was damaged."""


def new_epoch() -> str:
    """An opaque name for one life of a file."""
    return secrets.token_hex(8)


def open_buffer(path: Path, max_bytes: int, lock: Lock, *, migrate: bool = True) -> Opened:
    """Open or create the file. Without `migrate`, one of an older format stays as it is where that can be.

    Raises DamagedError (then `rebuild` it), ConfigError (newer format, foreign file) and sqlite3.Error.
    """
    opened = _open(path, max_bytes, migrate=migrate)
    try:
        _recognise(opened, lock)
    except BaseException:
        opened.store.close()
        raise
    return opened


def _open(path: Path, max_bytes: int, *, migrate: bool = True) -> Opened:
    fresh = _check_header(path)
    store = Store(path, max_bytes)
    try:
        store.prepare()
        tables = _tables(store.db)
        version = _check_format(path, store, tables)
        if not tables:
            fresh = True
            store.create(new_epoch())
        elif version < (FORMAT if migrate else USABLE):
            store.migrate(version)
            log.info("the buffer %s was brought from format %d to %d", path, version, FORMAT)
        ledger = store.load()
        _check_size(store, ledger)
    except BaseException as exc:
        store.close()
        no_such_table = not fresh and isinstance(exc, sqlite3.OperationalError) and "no such" in str(exc)
        if is_corrupt(exc) or no_such_table or isinstance(exc, ValueError):
            raise DamagedError(str(exc)) from exc
        raise
    return Opened(store, store.epoch, ledger)


def _check_header(path: Path) -> bool:
    """Whether there is no file yet."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except FileNotFoundError:
        magic = b""
    except OSError as exc:
        raise ConfigError(f"the buffer {path} cannot be read: {exc.strerror}; check its owner and permissions") from exc
    if magic and magic != _MAGIC:
        raise DamagedError("file is not a database")
    if not magic:
        _set_aside_journal(path, _stamp(path))
        finished = path.with_name(path.name + ".new")
        if not path.exists() and finished.exists():
            finished.replace(path)  # a crash in the middle of `_replace`: only there can the old file be away
            return False
    return not magic


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def _check_format(path: Path, store: Store, tables: set[str]) -> int:
    application, version = store.pragma("application_id"), store.pragma("user_version")
    if tables and not tables >= _OWN_TABLES and application != APPLICATION:
        raise ConfigError(f"{path} is the database of another program; set another `buffer: path`")
    if tables and (application != APPLICATION or not 0 < version < _PLAUSIBLE_FORMAT):
        raise DamagedError(f"its header says application {application:#x}, format {version}")
    if version > FORMAT:
        raise ConfigError(
            f"the buffer {path} was written by a newer edged (format {version}; this one knows {FORMAT}): "
            "update edged, or move the file away to begin an empty one"
        )
    return version


def _check_size(store: Store, ledger: Ledger) -> None:
    last = store.last_row()
    if last > ledger.head:
        raise DamagedError(f"its last row is {last}, but its head {ledger.head}")
    if store.checkpoint() and store.pragma("page_count") * store.page > store.file_bytes():
        raise DamagedError("the file is shorter than it should be")


def _recognise(opened: Opened, lock: Lock) -> None:
    """Begin a new epoch if this is a copy, or older than what its witness saw: its seqs may be in use already."""
    store, ledger = opened.store, opened.ledger
    seen_epoch, seen_head = lock.witness or ("", 0)
    if store.inode != store.path.stat().st_ino:
        why = "the file was copied or restored"
    elif seen_epoch and seen_epoch != opened.epoch and ledger.head:
        why = "another file was put in its place"
    elif seen_epoch == opened.epoch and seen_head > ledger.head:
        why = f"it ends at seq {ledger.head} but had reached {seen_head}: its journal was lost or an old copy restored"
        for account in ledger.accounts.values():
            account.cursor.add(ledger.head + 1, seen_head)
        ledger.head = seen_head
    else:
        if seen_head and not ledger.head:  # its epoch is a new one already
            why = f"the file was deleted or emptied after seq {seen_head}; what had not been delivered of it is lost"
            log.warning("the buffer %s begins the new epoch %s: %s", store.path, opened.epoch, why)
        return
    opened.epoch = new_epoch()
    for account in ledger.accounts.values():
        account.lanes.clear()
    with store.transaction():
        store.begin_epoch(opened.epoch)
        store.save(ledger)
    log.warning("the buffer %s begins the new epoch %s: %s", store.path, opened.epoch, why)


def rebuild(
    path: Path, max_bytes: int, why: str, known: Opened | None, witness: tuple[str, int] | None = None
) -> Opened:
    """Replace a damaged file by a new one that holds what can be read of it, and keep the damaged one aside.

    `known` is what the writer knows, when it was at work: then epoch and numbers go on. Otherwise a new epoch begins.
    Its ledger is changed. Without a reason `why` the file is sound and only to be made smaller.
    Raises sqlite3.Error and OSError when the disk does not allow it now, PermanentError if a sound file would not fit:
    nothing is lost then.
    """
    new = path.with_name(path.name + ".new")
    _remove(new)
    epoch = known.epoch if known else new_epoch()
    store = Store(new, max_bytes)
    try:
        store.prepare()
        store.create(epoch)
        saved = salvage(path, store, known.store if known else None)
        if not (why or saved.complete):
            raise PermanentError("its rows do not fit into a new file of `max_bytes`", reason="too_large")
        ledger, saved.lost = settle_books(store, known.ledger if known else saved.ledger, witness, fresh=known is None)
        ledger.lose(saved.lost)
        with store.transaction():
            store.save(ledger)
        store.checkpoint()
    except BaseException:
        store.close()
        _remove(new)
        raise
    store.close()
    aside = _replace(path, new)
    if known:
        known.store.close()
    opened = _open(path, max_bytes)
    if why:
        kept = f"the damaged file is kept as {aside.name}" if aside.exists() else "there is nothing to keep of the file"
        opened.mended = f"it was damaged ({why}): {saved}; {kept}"
        log.error("the buffer %s: %s; epoch %s", path, opened.mended, epoch)
        _keep_newest(path)
    else:
        _remove(aside)
        log.info("the buffer %s was rewritten: %s", path, saved)
    return opened


def journals(path: Path) -> tuple[Path, Path]:
    """The files that SQLite keeps beside a database: its journal, and the index of that."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def _stamp(path: Path) -> Path:
    """A free name for a damaged file."""
    base = f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside, n = path.with_name(base), 1
    while aside.exists() or journals(aside)[0].exists():
        aside, n = path.with_name(f"{base}-{n}"), n + 1
    return aside


def _set_aside_journal(path: Path, aside: Path) -> None:
    """A journal must never be applied to a file it does not belong to."""
    journal, index = journals(path)
    if journal.exists() and journal.stat().st_size:
        journal.rename(journals(aside)[0])
    for leftover in (journal, index):
        leftover.unlink(missing_ok=True)


def _replace(path: Path, new: Path) -> Path:
    """Put the new file in the place of the old one, which stays under another name."""
    aside = _stamp(path)
    if path.exists():
        belong(new, path)
        path.rename(aside)
    _set_aside_journal(path, aside)
    new.replace(path)
    _remove(new)
    _sync_directory(path.parent)
    return aside


def belong(file: Path, like: Path) -> None:
    """Give a file the owner and the mode of another: root may mend what the service has to write. Raises OSError."""
    wanted, present = like.stat(), file.stat()
    if (wanted.st_uid, wanted.st_gid) != (present.st_uid, present.st_gid):
        with suppress(PermissionError):  # then it is ours, as everything that we write
            os.chown(file, wanted.st_uid, wanted.st_gid)
    file.chmod(stat.S_IMODE(wanted.st_mode))


def _remove(file: Path) -> None:
    for part in (file, *journals(file)):
        part.unlink(missing_ok=True)


def _keep_newest(path: Path) -> None:
    """Damaged files must not fill the disk."""
    latest: dict[Path, float] = {}
    for part in path.parent.glob(f"{path.name}.corrupt-*"):  # of some only the journal was left
        file = part.with_name(part.name.removesuffix("-wal").removesuffix("-shm"))
        latest[file] = max(part.stat().st_mtime, latest.get(file, 0.0))
    for file in sorted(latest, key=lambda file: latest[file])[:-_KEEP_QUARANTINED]:
        _remove(file)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
