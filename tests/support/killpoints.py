"""Kills a backup or a restore at many points and looks at what is left: `python -m tests.support.killpoints FOLDER`.

One process, without threads, that forks: each child does the work on a fresh copy of the folders and is killed with
SIGKILL just before one of its changes to the file system, which Python's own audit events announce.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edged.backup.check import verify
from edged.backup.pending import finish
from edged.backup.place import kept
from edged.backup.restore import Goal, planned, restore
from tests.support.backups import Site, content

POINTS = 14
_AGAIN = 3
"""So many of the restores that had changed nothing are done again."""
_UNTIL_TRIED_OUT = 30
"""Changes that a backup makes; what comes then only tries it out."""
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "sqlite3.connect"}
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR


_LAST = 9


def watch(stop_at: int) -> list[int]:
    """Count changes; be killed at one of them, if there are so many. Returns the count, in a list that changes."""
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & OPEN_TO_WRITE):
            seen[0] += 1
            if seen[0] == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


def in_child(work: Callable[[], None], stop_at: int) -> tuple[bool, int]:
    """(Whether it was killed, how many changes it made if not)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            seen = watch(stop_at)
            work()
            os.write(writing, str(seen[0]).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    killed = os.WIFSIGNALED(status)
    assert killed or status == 0, f"it failed before point {stop_at}"
    return killed, int(said or 0)


def points(count: int) -> list[int]:
    """Evenly spread, the last ones, where things move into their places, all of them."""
    return sorted({*range(1, count, max(1, count // POINTS)), *range(max(1, count - _LAST), count + 1)})


def fresh(folder: Path, name: str) -> Site:
    one = Site(folder / "work")
    shutil.rmtree(one.folder, ignore_errors=True)
    shutil.copytree(folder / name, one.folder)
    return one


def creating(folder: Path) -> dict[str, int]:
    """Either there is a whole backup or none; and the next one clears up."""
    found: Counter[str] = Counter()
    target = folder / "target"

    def work() -> None:
        fresh_site.backup(target)

    fresh_site = fresh(folder, "gateway")
    before = content(fresh_site)
    _, count = in_child(work, 0)
    for stop_at in points(min(count, _UNTIL_TRIED_OUT)):
        shutil.rmtree(target, ignore_errors=True)
        killed, _ = in_child(work, stop_at)
        assert killed
        archives = kept(target) if target.exists() else []
        assert all(verify(one.path).ok for one in archives)
        found["a whole one" if archives else "none"] += 1
        assert content(fresh_site) == before
    fresh_site.backup(target)
    assert not list(target.glob(".*")), "what was left is gone"
    return dict(found)


def restoring(folder: Path) -> dict[str, int]:
    """All is old or all is new, however often it is interrupted."""
    found: Counter[str] = Counter()
    archive = kept(folder / "backups")[0].path

    def work() -> None:
        goal = Goal(one.main, one.state, force=True)
        restore(archive, goal, planned(archive, goal))

    def resume() -> None:
        finish(one.state)

    one = fresh(folder, "later")
    old = content(one)
    _, count = in_child(work, 0)
    new = content(one)
    assert old != new
    for stop_at in points(count):
        one = fresh(folder, "later")
        killed, _ = in_child(work, stop_at)
        assert killed
        in_child(resume, 3)  # what finishes it is interrupted, too
        finish(one.state)
        now = content(one)
        assert now in (old, new), f"a mixture after point {stop_at} of {count}"
        found["new" if now == new else "old"] += 1
        if now == old and found["old"] <= _AGAIN:
            work()
            assert content(one) == new
            assert not list(one.folder.rglob(".restore-*"))
    return dict(found)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps({"creating": creating(place), "restoring": restoring(place)}))
