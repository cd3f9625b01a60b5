"""Makes a backup, and by schedule: when one is due, with room made for it, tried out, and old ones removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edged.backup.archive import refused, write
from edged.backup.check import Verdict, verify
from edged.backup.collect import collected
from edged.backup.manifest import Manifest
from edged.backup.place import Kept, alone, check, file_name, kept, provide, surplus
from edged.clock import wall_us
from edged.config.model import BackupConfig
from edged.errors import ConfigError, PermanentError, TransientError
from edged.timesync import RELEASED

_EARLY = 600
"""Seconds that a backup may come before its time, so that a timer which is a little early does not skip one."""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made, and what it says of itself."""

    path: Path
    size: int
    manifest: Manifest
    verdict: Verdict


def create(main: Path, state: Path, folder: Path, *, secrets: bool, gateway: str = "") -> Made:
    """Make one and try it out. `gateway`: its id, where the configuration has errors and so does not say.

    Raises ConfigError, TransientError, and PermanentError where what was made is not whole: then it is not kept.
    """
    try:
        with alone(folder), collected(main, state, folder, secrets=secrets, gateway=gateway) as found:
            path = _free(folder / file_name(found.manifest))
            size = write(path, found.manifest, found.sources)
    except OSError as exc:
        raise refused(folder, exc) from exc
    verdict = verify(path)
    if not verdict.ok:
        path.unlink(missing_ok=True)
        raise PermanentError(f"the backup is not whole, and was removed: {verdict.problems[0]}", reason="backup")
    return Made(path, size, found.manifest, verdict)


def _free(path: Path) -> Path:
    number, stem = 1, path.name.removesuffix(".tar.gz")
    while path.exists():
        path = path.with_name(f"{stem}-{number}.tar.gz")
        number += 1
    return path


def due(found: list[Kept], every: float, now: datetime) -> bool:
    """Whether another one is to be made. One of the future was made by a wrong clock, and does not count."""
    times = [one.time for one in found if one.manifest is not None and one.time <= now]
    return not times or (now - times[-1]).total_seconds() >= every - _EARLY


def scheduled(
    main: Path, state: Path, config: BackupConfig, gateway: str, before: Callable[[], object] = lambda: None
) -> tuple[Made | None, list[Path]]:
    """What the timer does: (the backup, if one was due; what was removed). See `create` for what is raised.

    `before` is called when one is due.
    """
    folder = Path(config.directory)
    now = wall_us()
    if now < RELEASED:
        raise TransientError("the clock is not set: no backup is made until it is", reason="clock")
    if folder.parent == state:
        provide(folder)
    check(folder)
    found = kept(folder, gateway)
    if not due(found, config.every, datetime.fromtimestamp(now / 1e6, UTC)):
        return None, []
    removed = make_room(folder, found, int(config.min_free)) if found else []
    before()
    made = create(main, state, folder, secrets=config.secrets, gateway=gateway)
    left = kept(folder, gateway)
    for one in surplus(left, keep=config.keep, weeks=config.keep_weeks, max_bytes=int(config.max_bytes)):
        if one.path != made.path:
            one.path.unlink(missing_ok=True)
            removed.append(one.path)
    return made, removed


def make_room(folder: Path, found: list[Kept], min_free: int) -> list[Path]:
    """Remove the oldest while there is too little room, but never the newest that is good. Returns what was removed."""
    removed: list[Path] = []
    needed = min_free + 3 * found[-1].size
    if shutil.disk_usage(folder).free >= needed:
        return removed
    good = _newest_good(found)
    for one in found:
        if shutil.disk_usage(folder).free >= needed or good is None:
            break
        if one is not good and one.manifest is not None and one.time < good.time:
            one.path.unlink(missing_ok=True)
            removed.append(one.path)
    return removed


def _newest_good(found: list[Kept]) -> Kept | None:
    for one in reversed(found):
        try:
            if one.manifest is not None and verify(one.path).ok:
                return one
        except (ConfigError, TransientError):  # no room to try it out: then none is proved to be good
            continue
    return None
