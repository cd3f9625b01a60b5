"""Releases of edged side by side: which one runs, which one is on trial, and whether that does as well as the other.

    HOME/releases/NAME/   one release each: a whole environment, marked by its `release.json` when it is complete
    HOME/current          a link to the one that runs, changed by one rename
    HOME/previous         a link to the one before: it watches over the new one, and is what there is to go back to
    HOME/trial.json       there while an upgrade is under way; survives a power cut, so that the next boot can settle it
    HOME/upgrade.json     what became of the last one

HOME is /usr/lib/edged for Debian's package and /opt/edged for a bundle. An environment that lies elsewhere has no
releases. Who changes what, and when: `edged.cli.upgrade`.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from edged.errors import ConfigError

Outcome = Literal["good", "rolled-back", "refused", "interrupted"]
KEPT = 2
"""Releases that stay: the one that runs and the one before."""
_MARK = "release.json"
_SHOWN = 3.0
"""What was polled so often in the time of a trial, on the average, should show something in it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """An upgrade that is under way."""

    old: str
    new: str
    boot: str
    """The boot in which it was asked for."""
    began: str
    """ISO 8601, UTC."""
    watch: float
    """Seconds for which the new one is watched."""
    worked: tuple[str, ...] = ()
    """The parts that worked before, and should have shown that they do when the watch ends."""
    databases: tuple[str, ...] = ()
    """Files of the state that have a format."""
    socket: str = ""
    """Where the gateway answers."""
    invocation: str = ""
    """systemd's name for the life of the process that was there before."""
    before: str = ""
    """The release before the old one."""
    why: str = ""
    """Why it has to be undone, once that is so."""


@dataclass(frozen=True, slots=True)
class Record:
    """What became of an upgrade."""

    outcome: Outcome
    old: str
    new: str
    began: str
    ended: str
    why: str = ""

    def __str__(self) -> str:
        match self.outcome:
            case "good":
                return f"upgraded to {self.new} on {self.ended} (before: {self.old})"
            case "rolled-back":
                return f"{self.new} was ROLLED BACK to {self.old} on {self.ended}: {self.why}"
            case "refused":
                return f"the upgrade to {self.new} was refused on {self.ended}, {self.old} goes on: {self.why}"
            case _:
                return f"the upgrade to {self.new} was interrupted, {self.old} goes on: {self.why}"


class Home:
    """The folder of all releases of this installation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._trial, self._record = path / "trial.json", path / "upgrade.json"

    def release(self, name: str) -> Path:
        """Where it lies."""
        return self.path / "releases" / name

    def names(self) -> list[str]:
        """The complete releases, newest first."""
        marks = sorted(self.path.glob(f"releases/*/{_MARK}"), key=lambda mark: mark.parent.stat().st_mtime)
        return [mark.parent.name for mark in reversed(marks)]

    def link(self, which: Literal["current", "previous"]) -> str:
        """The release that the link names; empty if there is none, or it is not complete."""
        link = self.path / which
        name = link.readlink().name if link.is_symlink() else ""
        return name if name and (self.release(name) / _MARK).exists() else ""

    def set_link(self, which: Literal["current", "previous"], name: str) -> None:
        """Point it to a release, in one step that a power cut either leaves undone or done. Raises OSError."""
        fresh = self.path / f".{which}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(f"releases/{name}")
        fresh.replace(self.path / which)
        _sync(self.path)

    def trial(self) -> Trial | None:
        """The upgrade that is under way."""
        found = _read(self._trial)
        if found is None:
            return None
        try:  # another release may have written it
            return Trial(**{key.name: found[key.name] for key in fields(Trial) if key.name in found})
        except TypeError:
            return None

    def begin(self, trial: Trial) -> None:
        """Note that an upgrade is under way, or how far it is. Raises OSError."""
        _write(self._trial, asdict(trial))

    def end(self, record: Record) -> None:
        """Note what became of it. Raises OSError."""
        _write(self._record, asdict(record))
        self._trial.unlink(missing_ok=True)
        _sync(self.path)

    def last(self) -> Record | None:
        """What became of the last upgrade."""
        found = _read(self._record)
        return None if found is None else Record(**{key.name: found.get(key.name, "") for key in fields(Record)})

    def prune(self) -> list[str]:
        """Remove all releases but the one that runs and the one before; returns their names. Raises OSError."""
        keep = {self.link("current"), self.link("previous")}
        gone = [folder for folder in (self.path / "releases").iterdir() if folder.name not in keep]
        for folder in gone:
            shutil.rmtree(folder)
        return sorted(folder.name for folder in gone)


def home_of(prefix: Path | None = None) -> Home | None:
    """Where the releases lie that the environment at `prefix`, or this one, is one of; None if it is none."""
    folder = (prefix or Path(sys.prefix)).resolve()
    return Home(folder.parents[1]) if folder.parent.name == "releases" and (folder / _MARK).exists() else None


def needed_home() -> Home:
    """The same for this environment. Raises ConfigError if it is none."""
    home = home_of()
    if home is None:
        raise ConfigError(
            f"{sys.prefix} is a plain environment, without releases side by side: upgrade it with pip, then "
            "`edged service install`; Debian's package and a bundle bring releases"
        )
    return home


def on_trial() -> bool:
    """Whether this release has not proved itself yet: then it leaves files in a form that the one before can use."""
    home = home_of()
    trial = home.trial() if home else None
    return trial is not None and trial.new == Path(sys.prefix).resolve().name


def outcome() -> dict[str, str] | None:
    """What became of the last upgrade, as plain data for people and machines; None if there was none."""
    home = home_of()
    record = home.last() if home else None
    return None if record is None else asdict(record)


def _read(path: Path) -> dict[str, Any] | None:
    """What is in a file; None if it is not there or cannot be understood."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """The file is either the old or the new one, whole, whenever the power fails."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.chmod(0o644)
    fresh.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- the formats of files ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Format:
    """The form that a database has, and those that this release knows."""

    path: Path
    found: int
    """0: there is none yet."""
    known: int
    usable: int
    """The oldest that this release can work with as it is, without bringing it up to date."""

    @property
    def newer(self) -> bool:
        """Whether this release cannot use it at all."""
        return self.found > self.known

    @property
    def one_way(self) -> bool:
        """Whether this release changes it at once, so that the one before could not use it any more."""
        return 0 < self.found < self.usable


def format_of(path: Path, known: int, usable: int) -> Format:
    """Ask the file. Raises ConfigError if it cannot be read."""
    if not path.exists():
        return Format(path, 0, known, usable)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            return Format(path, int(db.execute("PRAGMA user_version").fetchone()[0]), known, usable)
    except sqlite3.Error as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc


# -- the judgement -----------------------------------------------------------------------------------------------------


def working(status: Mapping[str, Any]) -> set[str]:
    """The devices and connections that work, by what `edged status --json` says."""
    devices = {f"device {one['device']}" for one in _devices(status) if one.get("health") == "ok"}
    connections: Mapping[str, Any] = status.get("connections", {})
    return devices | {f"connection {name}" for name, one in connections.items() if one.get("connected")}


def expected(status: Mapping[str, Any], uptime: float, watch: float) -> tuple[str, ...]:
    """Those of them that should work again within `watch` seconds after a restart: not what is polled once an hour."""
    rare = {
        f"device {one['device']}" for one in _devices(status) if one.get("polls", 0) * watch < _SHOWN * max(uptime, 1)
    }
    return tuple(sorted(working(status) - rare))


def _devices(status: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    for bus in status.get("buses", ()):
        yield from bus.get("devices", ())


def reasons(status: Mapping[str, Any], parts: Iterable[str]) -> list[str]:
    """A line for each reason why some of the parts do not work."""
    said = {f"device {one['device']}": one.get("last_error", "") for one in _devices(status)}
    said |= {f"connection {name}": one.get("detail", "") for name, one in status.get("connections", {}).items()}
    grouped: dict[str, list[str]] = {}
    for part in parts:
        grouped.setdefault(said.get(part) or "nothing has come yet", []).append(part)
    return [f"{', '.join(named)}: {reason}" for reason, named in grouped.items()]


@dataclass(slots=True)
class Watch:
    """Counts, over the time of a trial, how often what worked before works."""

    worked: tuple[str, ...]
    looks: int = 0
    up: dict[str, int] = field(default_factory=dict)
    _last: Mapping[str, Any] = field(default_factory=dict)

    def look(self, status: Mapping[str, Any]) -> None:
        """Once more."""
        self.looks += 1
        self._last = status
        for part in working(status).intersection(self.worked):
            self.up[part] = self.up.get(part, 0) + 1

    def failed(self) -> list[str]:
        """What worked before and does not work now, nor did most of the time; told to people."""
        now = working(self._last)
        down = [part for part in self.worked if part not in now and 2 * self.up.get(part, 0) <= self.looks]
        return [f"worked before: {line}" for line in reasons(self._last, down)]
