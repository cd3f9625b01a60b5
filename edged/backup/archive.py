"""The file of a backup: a tar of plain files, compressed by gzip, the manifest first.

Any tool can unpack it. We read only what we write: ustar headers of regular files, in the order of the manifest, of the
size and content that it says. Everything else is refused before a byte of it is written anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import os
import secrets
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from edged.backup.manifest import MAX_MANIFEST, NAME, Manifest, Member, parse
from edged.errors import ConfigError, PermanentError, TransientError

_PIECE = 256 * 1024
_LEVEL = 1
"""Nearly all of it, the rows of the buffer, is compressed already."""
_UNREADABLE = (OSError, EOFError, zlib.error)


def digest_of(path: Path) -> tuple[int, str]:
    """(Size, SHA-256) of a file. Raises OSError."""
    sums = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            sums.update(piece)
            size += len(piece)
    return size, sums.hexdigest()


def write(target: Path, manifest: Manifest, sources: Mapping[str, bytes | Path]) -> int:
    """Make the archive, for its owner only: whole and durable, or not there at all. Returns its size.

    `sources`: member → its content, or the file that has it. Raises ConfigError, TransientError (full disk).
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as raw:
                _fill(raw, manifest, sources)
                raw.flush()
                os.fsync(raw.fileno())
                size = raw.tell()
            temporary.rename(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as exc:
        raise refused(target.parent, exc) from exc
    return size


def refused(folder: Path, error: OSError) -> ConfigError | TransientError:
    """What to say where a folder does not take a backup."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return TransientError(f"{folder} is full: the backup was not made; make room, or keep fewer", reason="disk")
    return ConfigError(f"no backup can be written to {folder}: {error.strerror or error}")


def _fill(raw: IO[bytes], manifest: Manifest, sources: Mapping[str, bytes | Path]) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        text = manifest.dump()
        tar.addfile(_header(NAME, len(text), 0o600), io.BytesIO(text))
        for member in manifest.members:
            source = sources[member.name]
            entry = _header(member.name, member.size, member.mode)
            if isinstance(source, bytes):
                tar.addfile(entry, io.BytesIO(source))
            else:
                with source.open("rb") as file:
                    tar.addfile(entry, file)


def _header(name: str, size: int, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    return entry


def sync_folder(folder: Path) -> None:
    """Make what was renamed in it durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Archive:
    """An archive that is being read, once, from front to back."""

    manifest: Manifest
    _file: _Readable

    def each(self, take: Callable[[Member, Iterator[bytes]], None]) -> None:
        """Hand every member to `take` with its content, in pieces, and check that all is as the manifest says.

        What `take` leaves unread is read for it. Raises PermanentError `backup` at the first thing that is wrong.
        """
        for member in self.manifest.members:
            header = _read_header(self._file)
            if header is None:
                raise _damaged(f"{member.name} is missing")
            if header.name != member.name or header.size != member.size:
                raise _damaged(
                    f"where {member.name} ({member.size:,} bytes) should be is {header.name!r} ({header.size:,} bytes)"
                )
            sums = hashlib.sha256()
            pieces = _pieces(self._file, member.size, sums.update)
            take(member, pieces)
            for _ in pieces:
                pass
            if sums.hexdigest() != member.sha256:
                raise _damaged(f"{member.name} is not what was put in: its checksum differs")
        if _read_header(self._file) is not None:
            raise _damaged("there is more in it than its manifest says")
        while piece := self._file.read(_PIECE):
            if piece.strip(b"\0"):
                raise _damaged("there is something behind its end")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive at `path`.

    Raises ConfigError (not there, of a newer edged), PermanentError (damaged, or no backup).
    """
    try:
        raw = path.open("rb")
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    with raw, gzip.GzipFile(fileobj=raw, mode="rb") as file:
        try:
            header = _read_header(file)
            if header is None or header.name != NAME:
                raise _damaged("it does not begin with a manifest: this is no backup of edged")
            if header.size > MAX_MANIFEST:
                raise _damaged("its manifest is too large")
            manifest = parse(b"".join(_pieces(file, header.size)))
            yield Archive(manifest, file)
        except _UNREADABLE as exc:
            if getattr(exc, "errno", None):
                raise  # of the disk, not of the archive
            raise _damaged(f"it is cut off or damaged ({exc})") from exc


def manifest_of(path: Path) -> Manifest:
    """What an archive says of itself, without looking at the rest. Raises ConfigError, PermanentError."""
    try:
        with opened(path) as archive:
            return archive.manifest
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def _damaged(text: str) -> PermanentError:
    return PermanentError(text, reason="backup")


def _read_header(file: _Readable) -> tarfile.TarInfo | None:
    """The next header; None at the end. Raises PermanentError where it is not a plain file's."""
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise _damaged("it is cut off")
    if not block.strip(b"\0"):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as exc:
        raise _damaged(f"a header is damaged ({exc})") from exc
    if header.type != tarfile.REGTYPE:
        raise _damaged(f"{header.name!r} is not a plain file")
    return header


def _pieces(file: _Readable, size: int, see: Callable[[bytes], None] = lambda _piece: None) -> Iterator[bytes]:
    """The next `size` bytes, and then the padding behind them."""
    left = size
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise _damaged("it is cut off")
        left -= len(piece)
        see(piece)
        yield piece
    file.read(-size % tarfile.BLOCKSIZE)


def extract_to(places: Mapping[str, Path]) -> Callable[[Member, Iterator[bytes]], None]:
    """For `Archive.each`: writes the members that have a place, each into a new file, durable. Raises OSError."""

    def take(member: Member, pieces: Iterator[bytes]) -> None:
        place = places.get(member.name)
        if place is None:
            return
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    return take


def room(folder: Path, needed: int, spare: int = 0) -> None:
    """Raise TransientError unless `folder` has so many bytes left, and `spare` beyond."""
    with contextlib.suppress(FileNotFoundError):
        status = os.statvfs(folder)
        free = status.f_bavail * status.f_frsize
        if free < needed + spare:
            raise TransientError(
                f"{folder} has {free / 2**20:,.0f} MiB left, and {(needed + spare) / 2**20:,.0f} MiB are needed",
                reason="disk",
            )
