"""The configurations that were applied: the files each consisted of, when, and how it went.

One JSON file each, for the owner only: what a person wrote, with `!secret NAME` as it stands there. The daemon adds
entries; `edged config` reads them and puts files back. Bounded: the newest `KEEP`, and always the newest good one.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edged.config.compiled import store
from edged.config.inputs import digest
from edged.errors import ConfigError, TransientError

KEEP = 20
_FILE = re.compile(r"[0-9]{6}\.json")
_DAMAGED = ValueError, LookupError, TypeError, AttributeError
"""What reading an entry raises that is not as it was written."""

Result = Literal["trial", "good", "rolled-back", "set-aside"]
"""`trial`: applied, and not yet watched for long enough. `set-aside`: never applied; a rollback replaced it."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a configuration."""

    content: bytes
    mode: int = 0o640
    uid: int = -1
    gid: int = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration."""

    number: int
    time: str
    """When it was applied, ISO 8601."""
    result: Result
    main: str
    """Absolute path of the file that `edged run` was given."""
    files: Mapping[str, Source]
    """Absolute path → its content."""
    changes: tuple[str, ...] = ()
    """What was different from the one before, in words."""
    why: str = ""
    """With `rolled-back`: why."""

    @property
    def fingerprint(self) -> str:
        """The same for the same files with the same content."""
        return fingerprint({path: digest(source.content) for path, source in self.files.items()})


def fingerprint(sources: Mapping[str, str]) -> str:
    """What stands for a set of files, given as path → digest."""
    return hashlib.sha256(json.dumps(sorted(sources.items())).encode()).hexdigest()


def snapshot(sources: Mapping[str, str]) -> dict[str, Source]:
    """The files' content, which must still be what was validated. Raises TransientError."""
    found = {}
    for path, expected in sources.items():
        try:
            source = read_source(Path(path))
        except OSError as exc:
            raise TransientError(f"{path} cannot be read any more: {exc.strerror or exc}") from exc
        if digest(source.content) != expected:
            raise TransientError(f"{path} was changed while it was being checked; try again")
        found[path] = source
    return found


def read_source(path: Path) -> Source:
    """A file as it is now. Raises OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        return Source(file.read(), status.st_mode & 0o777, status.st_uid, status.st_gid)


class History:
    """The entries in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self) -> list[Entry]:
        """All that can be read, oldest first. Raises ConfigError where this user may not look."""
        try:
            names = sorted(name for name in os.listdir(self._folder) if _FILE.fullmatch(name))  # noqa: PTH208  # names are enough
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise ConfigError(f"{self._folder} cannot be read ({exc.strerror}): try again with sudo") from exc
        found = []
        for name in names:
            with contextlib.suppress(FileNotFoundError, *_DAMAGED):
                found.append(self._load(self._folder / name))
        return found

    def last_good(self, main: Path | None = None) -> Entry | None:
        """The newest that proved itself; with `main`, of those of this file."""
        wanted = None if main is None else os.path.abspath(main)  # noqa: PTH100  # links stay as they are
        good = (entry for entry in reversed(self.entries()) if entry.result == "good")
        return next((entry for entry in good if wanted in {None, entry.main}), None)

    def on_trial(self, main: Path, mark: str) -> Entry | None:
        """The newest, if it is of this file with this fingerprint, and its trial came to no end."""
        for newest in self.entries()[-1:]:
            wanted = ("trial", os.path.abspath(main), mark)  # noqa: PTH100  # links stay as they are
            if (newest.result, newest.main, newest.fingerprint) == wanted:
                return newest
        return None

    def find(self, number: int) -> Entry:
        """The entry of this number. Raises ConfigError."""
        entries = self.entries()
        for entry in entries:
            if entry.number == number:
                return entry
        known = ", ".join(str(entry.number) for entry in entries) or "none"
        raise ConfigError(f"there is no configuration number {number} in the history; there are: {known}")

    def add(  # one parameter a fact
        self, main: Path, files: Mapping[str, Source], *, time: str, result: Result, changes: tuple[str, ...] = ()
    ) -> Entry:
        """Keep one more. Raises OSError."""
        entries = self.entries()
        number = max((entry.number for entry in entries), default=0) + 1
        entry = Entry(number, time, result, os.path.abspath(main), files, changes)  # noqa: PTH100  # links stay as they are
        self._save(entry)
        self._prune([*entries, entry])
        return entry

    def conclude(self, entry: Entry, result: Result, why: str = "") -> Entry:
        """Note how it went. Raises OSError."""
        concluded = dataclasses.replace(entry, result=result, why=why)
        self._save(concluded)
        return concluded

    def _prune(self, entries: list[Entry]) -> None:
        kept = {entry.number for entry in entries[-KEEP:]}
        good = next((entry.number for entry in reversed(entries) if entry.result == "good"), None)
        for entry in entries:
            if entry.number not in kept and entry.number != good:
                self._path(entry.number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06}.json"

    def _save(self, entry: Entry) -> None:
        record: dict[str, Any] = dataclasses.asdict(entry)
        for file in record["files"].values():
            file["content"] = base64.b64encode(file["content"]).decode()
        path = self._path(entry.number)
        store(path, json.dumps(record).encode())
        owner = self._folder.parent.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:  # a person with sudo; the daemon must be able to read it
            for one in (self._folder, path):
                os.chown(one, owner.st_uid, owner.st_gid)

    @staticmethod
    def _load(path: Path) -> Entry:
        try:
            record = json.loads(path.read_bytes())
        except PermissionError as exc:
            raise ConfigError(f"{path} may not be read by this user: try again with sudo") from exc
        files = {
            name: Source(base64.b64decode(file["content"]), file["mode"], file["uid"], file["gid"])
            for name, file in record.pop("files").items()
        }
        return Entry(**{**record, "changes": tuple(record["changes"])}, files=files)


def lay_out(entry: Entry, root: Path) -> Path:
    """Write the files of an entry below `root`, each at its own path there; returns the main file. Raises OSError.

    What is included by an absolute path is still taken from where it is.
    """
    for path, source in entry.files.items():
        place = root / Path(path).relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source.content)
    main = root / Path(entry.main).relative_to("/")
    target = os.path.realpath(entry.main)
    if target != entry.main and Path(target).name == main.name:
        # `conf.d` and `profiles` are looked for beside what a link leads to.
        beside = root / Path(target).relative_to("/")
        beside.parent.mkdir(parents=True, exist_ok=True)
        if not beside.exists():
            main.rename(beside)
            main.symlink_to(beside)
    return main


def put_back(entry: Entry, now: Mapping[str, Source]) -> list[str]:
    """Make the files what they were in `entry`; returns what was done, for people. Raises OSError.

    `now`: the files that the configuration consists of at present; those that `entry` does not have are deleted.
    """
    done = []
    for path, source in entry.files.items():
        if path in now and now[path].content == source.content:
            continue
        target = Path(os.path.realpath(path))
        existing = now.get(path)
        keep = existing or source
        store_in_place(target, source.content, keep)
        done.append(f"{path}: {'restored' if existing else 'put back'}")
    for path in now:
        if path not in entry.files:
            Path(path).unlink(missing_ok=True)
            done.append(f"{path}: removed (it is kept in the history)")
    return done


def store_in_place(path: Path, content: bytes, like: Source) -> None:
    """Replace a file as a whole, with the owner and mode of `like`. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store(path, content)
    path.chmod(like.mode)
    if os.geteuid() == 0 and like.uid >= 0:
        os.chown(path, like.uid, like.gid)
