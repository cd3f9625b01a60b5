"""The last step of a restore, which a crash may interrupt: from the journal on, it is carried out to its end.

Everything new lies ready beside its place, and what was there is kept. Imported at each start of the daemon: needs
nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from edged.errors import ConfigError

JOURNAL = "restore.json"


@dataclass(frozen=True, slots=True)
class Step:
    """Put one file or folder in its place."""

    target: str
    old: str
    """Where what was there goes."""
    new: str = ""
    """What takes its place; empty: nothing does."""


def begin(state: Path, steps: Iterable[Step], scratch: Iterable[Path]) -> None:
    """Write the journal: from here on there is no way back. Raises OSError."""
    record = {"steps": [asdict(step) for step in steps], "scratch": [str(path) for path in scratch]}
    temporary = state / f".{JOURNAL}.new"
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
        file.write(json.dumps(record).encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(state / JOURNAL)
    _sync(state)


def finish(state: Path) -> bool:
    """Carry out what a journal says; False if there is none. Can be interrupted and called again.

    Raises ConfigError where this user may not.
    """
    journal = state / JOURNAL
    try:
        with journal.open("rb") as file:
            owner = os.fstat(file.fileno()).st_uid
            record = json.loads(file.read())
        steps = [Step(**one) for one in record["steps"]]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, LookupError) as exc:
        raise ConfigError(f"{journal}, of a restore that was interrupted, cannot be read: {exc}") from exc
    if owner not in {0, os.geteuid()}:  # root must not move files about because another user says so
        raise ConfigError(f"{journal} was not written by this user or by root: look at it, and remove it")
    try:
        for step in steps:
            _carry_out(step)
        for folder in {Path(step.target).parent for step in steps}:
            _sync(folder)
        for path in record["scratch"]:
            shutil.rmtree(path, ignore_errors=True)
        journal.unlink()
        _sync(state)
    except OSError as exc:
        raise ConfigError(
            f"a restore was interrupted and cannot be finished by this user ({exc}): sudo edged backup restore --finish"
        ) from exc
    return True


def _carry_out(step: Step) -> None:
    target, new, old = Path(step.target), step.new, Path(step.old)
    if new and not os.path.lexists(new):
        return  # it is in its place
    if os.path.lexists(target) and not os.path.lexists(old):
        old.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.rename(old)
    if new:
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(new).rename(target)


def _sync(folder: Path) -> None:
    if not folder.is_dir():
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
