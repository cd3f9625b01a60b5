"""The folder that backups go to: whether it is the disk that is meant, and which of the backups in it are kept."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edged.backup.archive import manifest_of
from edged.backup.manifest import Manifest
from edged.errors import ConfigError, EdgedError, TransientError

_REMOVABLE = ("/media", "/mnt", "/run/media")
_OCTAL = re.compile(r"\\([0-7]{3})")
SUFFIX = ".tar.gz"


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup in a folder."""

    path: Path
    size: int
    manifest: Manifest | None
    problem: str = ""
    """Why there is no manifest."""

    @property
    def time(self) -> datetime:
        """When it was made; the beginning of time if that is not known."""
        if self.manifest is None:
            return datetime.fromisoformat("1970-01-01T00:00:00+00:00")
        return datetime.fromisoformat(self.manifest.time)


def check(folder: Path, root: Path = Path("/")) -> None:
    """Raise ConfigError unless backups can go there: above all, not below a mount point where nothing is mounted.

    `root` stands for `/` where the system's own files are looked into.
    """
    place = str(folder.absolute())
    mounted = _mounted(root)
    missing = [point for point in _in_fstab(root) if _holds(point, place) and point not in mounted]
    base = next((base for base in _REMOVABLE if _holds(base, place)), "")
    if base and not missing and not any(_holds(base, point) and _holds(point, place) for point in mounted):
        missing = [base]
    if missing:
        raise ConfigError(
            f"nothing is mounted at {missing[-1] if not base else folder}: is the stick or disk plugged in? `lsblk` "
            "shows what there is. Without it a backup would fill the system's own disk"
        )
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder} for backups: make it, for the user edged to write to")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder} may not be written by this user: sudo chown edged {folder}, or mount it so")


def provide(folder: Path) -> None:
    """Make the folder that backups go to by default. Raises ConfigError."""
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as exc:
        hint = "; try with sudo" if isinstance(exc, PermissionError) else ""
        raise ConfigError(f"there is no folder {folder}, and none can be made: {exc.strerror or exc}{hint}") from exc


def _holds(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _mounted(root: Path) -> list[str]:
    return [words[4] for words in _table(root / "proc/self/mountinfo") if len(words) > 4]  # noqa: PLR2004  # man 5 proc


def _in_fstab(root: Path) -> Iterator[str]:
    for words in _table(root / "etc/fstab"):
        if len(words) > 1 and words[1].startswith("/") and words[1] != "/":
            yield words[1].rstrip("/")


def _table(path: Path) -> Iterator[list[str]]:
    """The words of the lines of fstab and its like, in which blanks are written in octal."""
    try:
        lines = path.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            yield [_OCTAL.sub(lambda hit: chr(int(hit[1], 8)), word) for word in line.split()]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else makes a backup there meanwhile, and what a killed one has left is gone. Raises TransientError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientError(f"another backup is being made in {folder}", reason="busy") from None
        for junk in folder.glob(".edged-*"):
            with contextlib.suppress(OSError):
                if junk.is_dir() and not junk.is_symlink():
                    shutil.rmtree(junk)
                else:
                    junk.unlink()
        yield
    finally:
        os.close(handle)


def kept(folder: Path, gateway: str = "") -> list[Kept]:
    """The backups in a folder, of one gateway or of all, the oldest first. Raises ConfigError if it cannot be read."""
    found = []
    try:
        names = [path.name for path in folder.iterdir()]  # unlike `glob` it raises where the folder is shut
    except FileNotFoundError:
        return []
    except OSError as exc:
        hint = "; try with sudo" if isinstance(exc, PermissionError) else ""
        raise ConfigError(f"{folder} cannot be read: {exc.strerror or exc}{hint}") from exc
    for name in fnmatch.filter(names, f"edged-{gateway}-*{SUFFIX}" if gateway else f"edged-*{SUFFIX}"):
        path = folder / name
        try:
            size, manifest, problem = path.stat().st_size, manifest_of(path), ""
        except (EdgedError, OSError) as exc:
            size, manifest, problem = 0, None, str(exc)
        if not gateway or manifest is None or manifest.gateway == gateway:
            found.append(Kept(path, size, manifest, problem))
    return sorted(found, key=lambda one: (one.time, one.path.name))


def surplus(found: Sequence[Kept], *, keep: int, weeks: int, max_bytes: int = 0) -> list[Kept]:
    """Those that may go, oldest first: all but the newest `keep` and the last of each of the newest `weeks` weeks.

    With `max_bytes` also more of the oldest, until the rest fits. Never the newest, and none that cannot be read: a
    person should see it. `found`: oldest first. Pure.
    """
    readable = [one for one in found if one.manifest is not None]
    last_of = {one.time.isocalendar()[:2]: one for one in readable}
    weekly = [last_of[week] for week in sorted(last_of)[-weeks:]] if weeks else []
    staying = [one for one in readable if one in readable[-keep:] or one in weekly]
    while max_bytes and len(staying) > 1 and sum(one.size for one in staying) > max_bytes:
        staying = staying[1:]
    return [one for one in readable if one not in staying]


def file_name(manifest: Manifest) -> str:
    """What the file of a backup is called."""
    moment = datetime.fromisoformat(manifest.time)
    return f"edged-{manifest.gateway or 'unknown'}-{moment:%Y%m%dT%H%M%SZ}{SUFFIX}"
