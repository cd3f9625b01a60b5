"""The file beside the buffer that keeps a second daemon out, and bears witness to how far the log had got."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

from edged.errors import ConfigError, TransientError

_LINE = re.compile(rb"pid (\d+) epoch ([0-9a-f]+) head (\d+)\n")
_DISK = {errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT}
"""Errors that end by themselves, or when a person has seen to the disk. The configuration is right."""


class Lock:
    """`buffer.db.lock`, held while the process lives.

    After each commit it notes epoch and head, without waiting for the disk. If the buffer later knows less than its
    witness, then its journal was lost or an old copy was put in its place, and its sequence numbers must not be
    used again.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises ConfigError if another process has it, or if the directory cannot be written; TransientError if its disk
        cannot, at present.
        """
        self.path = path.with_name(path.name + ".lock")
        self._buffer = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = self._open()
        except OSError as exc:
            if exc.errno in _DISK:
                raise TransientError(f"the buffer cannot be written at {path}: {exc.strerror}", reason="disk") from exc
            hint = "check `buffer: path` and the directory's owner"
            raise ConfigError(f"the buffer cannot be written at {path}: {exc.strerror}; {hint}") from exc
        found = _LINE.match(os.pread(self._fd, 200, 0))
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._fd)
            owner = f"process {int(found[1])}" if found else "another process"
            raise ConfigError(
                f"the buffer {path} is in use by {owner}; stop it, or set another `buffer: path`"
            ) from exc
        self.witness: tuple[str, int] | None = (
            (found[2].decode(), int(found[3])) if found and found[2] != b"0" else None
        )
        """(epoch, head) as the last process left them."""
        os.ftruncate(self._fd, 0)
        self.note(*(self.witness or ("0", 0)))

    def _open(self) -> int:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        owner = (self._buffer if self._buffer.exists() else self._buffer.parent).stat()
        with suppress(PermissionError):  # root may have asked for something: the service must be able to go on
            os.fchown(fd, owner.st_uid, owner.st_gid)
        return fd

    def hold(self) -> None:
        """Take it anew where somebody deleted the file: or a second daemon would find nothing that keeps it out.

        Raises OSError if one was faster, or the directory cannot be written.
        """
        with suppress(FileNotFoundError):
            if os.path.samestat(self.path.stat(), os.fstat(self._fd)):
                return
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(fd)
            raise OSError(exc.errno, "its .lock file was deleted, and another process has it now") from exc
        os.close(self._fd)
        self._fd = fd

    def note(self, epoch: str, head: int) -> None:
        """Remember how far the log has got. A full disk is no reason to fail: the note is a second safety."""
        line = f"pid {os.getpid()} epoch {epoch} head {head}\n".encode()
        with suppress(OSError):
            os.pwrite(self._fd, line, 0)

    def release(self) -> None:
        """Let another process have the buffer. The file stays, for what it notes."""
        os.close(self._fd)
