"""Files that messages are appended to: synchronised before they count, and exchanged when they are full. Blocks.

`name.jsonl` is written; `name-000001-2026-11-21.jsonl.gz` and so on were. What was written is found again in the files
themselves, so that after a crash nothing is written twice and a torn end is cut off.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import gzip
import io
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path

import orjson

from edged.errors import ConfigError, TransientError
from edged.uplink.api import Message

log = logging.getLogger("edged.uplink")

_MODE = 0o640
_MENDED_BY_PEOPLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR})
Key = tuple[str, str]
"""Epoch and flow: within them `seq` only rises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which file, and when it is exchanged for a new one."""

    path: Path
    head: bytes
    """What each file begins with."""
    read: Callable[[bytes], tuple[Key, int] | None]
    """Of the end of a whole message (its last line): where it belongs, and its seq; None if the message goes on."""
    max_size: int
    daily: bool
    keep: int
    """Finished files to keep; 0: all."""
    compress: bool
    min_free: int
    """Bytes that must stay free on the disk."""
    zone: tzinfo
    """Whose midnight ends a day."""
    window: int


def read_json(line: bytes) -> tuple[Key, int] | None:
    """Where a line of edged's own JSON belongs. Raises ValueError if it is none."""
    document = orjson.loads(line)
    try:
        return (str(document["epoch"]), str(document.get("flow", ""))), int(document["seq"])
    except (KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise ValueError("no message of edged") from exc


def read_csv(line: bytes) -> tuple[Key, int] | None:
    """Where a line of CSV belongs; None if others of its message follow. Raises ValueError if it is none."""
    try:
        (fields,) = csv.reader([line.decode()], strict=True)
    except csv.Error as exc:
        raise ValueError(str(exc)) from exc
    _, flow, _, epoch, _, seq, _, left = fields[-8:]
    return None if int(left) else ((epoch, flow), int(seq))


@dataclass(frozen=True, slots=True)
class _End:
    """How a file ends."""

    whole: int
    """Where its last whole message does."""
    foreign: bool
    """Whether lines follow that nobody here wrote, or in another layout: those are not ours to remove."""
    ended: bool
    """Whether that message ends in a line break."""


class Store:
    """The files. Everything here blocks; one thread at a time."""

    def __init__(self, name: str, target: Target, now: Callable[[], datetime]) -> None:
        self._name = name
        self._target = target
        self._now = now
        self._file: io.FileIO | None = None
        self._size = 0
        self._day = ""
        self.written: dict[Key, int] = {}
        """The last seq of each epoch and flow."""

    @property
    def _out(self) -> io.FileIO:
        if self._file is None:
            raise TransientError(f"{self._target.path} is not open", reason="closed")
        return self._file

    # -- opening ---------------------------------------------------------------------------------------------------

    def open(self) -> str:
        """Open the file, put its end in order, and find out what is there; returns one line for people.

        Raises ConfigError when a person must act, TransientError when the disk must.
        """
        path = self._target.path
        opened = False
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._check_room(0)
            self._open()
            self._clean_up()
            cut = self._recover()
            opened = True
        except OSError as exc:
            raise self._translated(exc) from exc
        finally:
            if not opened:
                self.close()
        return f"{path}, {self._size:,} bytes" + (f", {cut:,} torn bytes removed from its end" if cut else "")

    def _translated(self, exc: OSError) -> ConfigError | TransientError:
        if isinstance(exc, BlockingIOError):
            return ConfigError(f"{self._target.path} is being written by another connection or gateway")
        text = f"cannot write {exc.filename or self._target.path}: {exc.strerror or exc}"
        if exc.errno in _MENDED_BY_PEOPLE:
            return ConfigError(f"{text}. The service may write below /var/lib/edged")
        return TransientError(text, reason="full" if exc.errno in {errno.ENOSPC, errno.EDQUOT} else "unreachable")

    def _open(self) -> None:
        """Open or make the file. Raises OSError; BlockingIOError if somebody else writes it."""
        path = self._target.path
        new = not path.exists()
        file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE), "r+")
        opened = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if new:
                os.fchmod(file.fileno(), _MODE)  # whatever the umask is
                _sync(path.parent)
            self._size = file.seek(0, os.SEEK_END)
            opened = True
        finally:
            if not opened:
                file.close()
        self._file = file
        status = os.fstat(file.fileno())
        self._day = self._today() if not self._size else self._day_of(status.st_mtime)

    def _day_of(self, seconds: float) -> str:
        return datetime.fromtimestamp(seconds, self._target.zone).strftime("%Y-%m-%d")

    def _today(self) -> str:
        return self._now().astimezone(self._target.zone).strftime("%Y-%m-%d")

    def _clean_up(self) -> None:
        """Finish what a crash left half done."""
        for path in self._target.path.parent.glob(f"{self._target.path.stem}-*.tmp"):
            path.unlink()
        for path in self._finished():
            whole = path.with_name(path.name + ".gz")
            if path.suffix != ".gz" and whole.exists():
                path.unlink()  # it was compressed, and the result synchronised, before the crash
            elif path.suffix != ".gz" and self._target.compress:
                self._compress(path)

    def _recover(self) -> int:
        """Cut off a torn end, and learn what is there; returns the bytes cut off."""
        finished = self._finished()
        self.written = {}
        for path in finished[-1:]:
            with (
                contextlib.suppress(OSError, EOFError, zlib.error),  # a damaged old one is no reason to stop
                gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines,
            ):
                self._learn(lines)
        self._out.seek(0)
        with open(os.dup(self._out.fileno()), "rb") as lines:  # noqa: PTH123  # a descriptor, so that the lock stays
            found = self._learn(lines)
        if found.foreign:
            log.warning("%s: %s ends in lines of another kind: it is put aside as it is", self._name, self._target.path)
            self._exchange()
            return 0
        cut = self._size - found.whole
        if cut:
            self._out.truncate(found.whole)
        if not found.ended:
            self._out.seek(found.whole)
            self._out.write(b"\n")
        self._size = self._out.seek(0, os.SEEK_END)
        if cut or not found.ended:
            os.fsync(self._out.fileno())
        return cut

    def _learn(self, lines: Iterable[bytes]) -> _End:
        """Note what whole messages there are; returns how it ends."""
        at = whole = 0
        foreign, ended = False, True
        for line in lines:
            at += len(line)
            if at == len(line) and line == self._target.head:
                whole = at
                continue
            try:
                found = self._target.read(line)
            except ValueError:  # torn, zeros after a power cut, or not ours
                foreign = foreign or (line.endswith(b"\n") and bool(line.strip(b"\0\n")))
                continue
            if found is not None:
                self.written[found[0]] = max(found[1], self.written.get(found[0], 0))
                whole, foreign, ended = at, False, line.endswith(b"\n")
        return _End(whole, foreign=foreign, ended=ended)

    # -- writing ---------------------------------------------------------------------------------------------------

    def append(self, messages: list[Message]) -> None:
        """Write them and wait for the disk. Raises ConfigError and TransientError; then nothing was written."""
        target = self._target
        data = b"".join(message.payload for message in messages)
        try:
            self._same_file()
            over = target.daily and self._day < self._today()  # not when a clock starts in 1970
            if self._size > len(target.head) and (over or self._size + len(data) > target.max_size):
                self._exchange()
            self._check_room(len(data))
            self._write(data)
        except OSError as exc:
            raise self._translated(exc) from exc
        for message in messages:
            key = key_of(message)
            self.written[key] = max(int(message.properties["seq"]), self.written.get(key, 0))

    def _check_room(self, size: int) -> None:
        """Raises TransientError if the disk would be too full."""
        folder, least = self._target.path.parent, self._target.min_free
        free = shutil.disk_usage(folder).free
        if least and free - size < least:
            raise TransientError(
                f"only {free:,} bytes are free at {folder}, and {least:,} are to stay so", reason="full"
            )

    def _same_file(self) -> None:
        """Somebody may have moved or removed it."""
        try:
            there = self._target.path.stat()
        except FileNotFoundError:
            there = None
        ours = os.fstat(self._out.fileno())
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            log.warning("%s: %s was moved or removed; a new one is begun", self._name, self._target.path)
            self.close()
            self._target.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._open()

    def _write(self, data: bytes) -> None:
        self._size = self._out.seek(0, os.SEEK_END)  # wherever that is now: others may write and cut, too
        whole = (b"" if self._size else self._target.head) + data
        done = False
        try:
            left = memoryview(whole)
            while left:
                left = left[self._out.write(left) or 0 :]
            os.fsync(self._out.fileno())
            done = True
        finally:
            if not done:  # never half a message
                with contextlib.suppress(OSError):
                    self._out.truncate(self._size)
        self._size += len(whole)

    def _exchange(self) -> None:
        """Put the file aside and begin a new one."""
        path = self._target.path
        number = max((_number(one) for one in self._finished()), default=0) + 1
        finished = path.with_name(f"{path.stem}-{number:06}-{self._day}{path.suffix}")
        os.fsync(self._out.fileno())
        path.rename(finished)
        _sync(path.parent)
        self.close()
        self._open()
        if self._target.compress:
            try:
                self._compress(finished)
            except OSError as exc:
                log.warning("%s: %s stays as it is: %s", self._name, finished, exc.strerror or exc)
        if self._target.keep:
            for old in self._finished()[: -self._target.keep]:
                old.unlink(missing_ok=True)

    def _compress(self, path: Path) -> None:
        """Raises OSError; then nothing has changed."""
        temporary, result = path.with_name(path.name + ".tmp"), path.with_name(path.name + ".gz")
        done = False
        try:
            with (
                path.open("rb") as source,
                os.fdopen(
                    os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE), "wb"
                ) as sink,
            ):
                os.fchmod(sink.fileno(), _MODE)
                with gzip.GzipFile(path.name, "wb", 6, sink) as packed:
                    shutil.copyfileobj(source, packed, 256 * 1024)
                sink.flush()
                os.fsync(sink.fileno())
            temporary.rename(result)
            _sync(path.parent)
            done = True
        finally:
            if not done:
                temporary.unlink(missing_ok=True)
        path.unlink()

    def _finished(self) -> list[Path]:
        """The files that were put aside, the oldest first; one that is there twice counts as one."""
        path = self._target.path
        known = re.compile(rf"{re.escape(path.stem)}-\d{{6,}}-[\d-]+{re.escape(path.suffix)}(\.gz)?")
        found = [one for one in path.parent.iterdir() if known.fullmatch(one.name)]
        return sorted(found, key=lambda one: (_number(one), one.name))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def key_of(message: Message) -> Key:
    """Where a message belongs."""
    return message.properties["epoch"], message.properties.get("flow", "")


def _number(path: Path) -> int:
    found = re.search(r"-(\d{6,})-[\d-]+\.", path.name)
    return int(found[1]) if found else 0


def _sync(folder: Path) -> None:
    """A new name lasts only when its folder is on the disk."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
