"""Commands that come back from a backup: none of them is carried out a second time.

A backup knows nothing of what happened after it was made. So what waited then may have been carried out since, and
is never begun again; and what another file knows of later commands, it goes on knowing.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from edged.downlink.store import connect
from edged.errors import TransientError

_WHY = "the gateway was restored from a backup in which this waited; whether it was carried out since is not known"
_COLUMNS = (
    "entrance, id, device, point, value, raw, confirm, requester, topic, correlation, received, absolute, until_wall, "
    "until_boot, boot, state, reason, detail, was, changed, told"
)


def settle(file: Path, newer: Path | None, now: int) -> int:
    """Make the commands of a restored file harmless; returns how many had waited.

    What was under way when the backup was made stays so: it is only read back, as after a crash. `newer`: the file in
    whose place it comes; of what both know, that one is right. `now`: microseconds since 1970. Raises TransientError.
    """
    try:
        with closing(connect(file)) as db:
            known = [] if newer is None else _rows(newer)
            db.execute("BEGIN IMMEDIATE")
            slots = ", ".join("?" * len(_COLUMNS.split(",")))
            db.executemany(f"INSERT OR REPLACE INTO command ({_COLUMNS}) VALUES ({slots})", known)  # noqa: S608  # constants
            waited = db.execute(
                "UPDATE command SET state = 'failed', reason = 'restored', detail = ?, changed = ? "
                "WHERE state = 'accepted'",
                (_WHY, now),
            ).rowcount
            db.execute("COMMIT")
            db.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.Error as exc:
        raise TransientError(f"the commands of the backup cannot be prepared ({exc})", reason="disk") from exc
    return waited


def _rows(file: Path) -> list[tuple[object, ...]]:
    """The commands of a file; none if it cannot be read: then it has nothing to say."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as db:
            return db.execute(f"SELECT {_COLUMNS} FROM command ORDER BY number").fetchall()  # noqa: S608  # constants
    except sqlite3.Error:
        return []
