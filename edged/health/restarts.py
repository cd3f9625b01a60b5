"""Why the gateway was started, kept over restarts and power cuts in `runs.json` beside the buffer.

A run notes that it has begun, and a stop in good order that it has ended. A run that never noted its end died: with the
machine, if the boot is another one now; else by itself, and why tells systemd, whose word the unit puts into
`last-result` (`ExecStopPost=`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edged.config.compiled import store
from edged.health.document import Reason, Restarts, Start

log = logging.getLogger("edged.health")

FILE, RESULT = "runs.json", "last-result"
_KEPT = 20
_RESULTS: dict[str, Reason] = {"watchdog": "watchdog", "oom-kill": "memory"}
"""Of systemd's `$SERVICE_RESULT` those that are told apart; any other is a crash."""


def why(previous: dict[str, Any] | None, boot: str, version: str, result: str) -> Reason:
    """Why a run begins, by what the one before has noted. Pure."""
    if previous is None:
        return "first"
    if previous.get("ended"):
        return "clean" if previous.get("version") == version else "upgrade"
    if previous.get("boot") != boot:
        return "power"
    return _RESULTS.get(result, "crash")


class Runs:
    """The book of starts and ends. Never a reason to fail: a disk that refuses costs one line in the log."""

    def __init__(self, state: Path) -> None:
        self._file = state / FILE
        self._result = state / RESULT
        self._counts: Counter[str] = Counter()
        self._last: list[Start] = []
        self._reloads = 0
        self._run: dict[str, Any] = {}
        self._complained = False
        self.changed = False
        """Whether there is something that `keep` has not written yet."""

    def begin(self, boot: str, version: str, time: str) -> Reason:
        """Note a start; returns why it was."""
        previous = self._load()
        reason = why(previous, boot, version, self._systemd_says())
        self._run = {"boot": boot, "version": version, "ended": False}
        self._counts[reason] += 1
        self._last = [*self._last, Start(time=time, reason=reason, version=version)][-_KEPT:]
        self.keep()
        return reason

    def reloaded(self) -> None:
        """Note that another configuration has been taken over; the disk sees it with the next `keep`."""
        self._reloads += 1
        self.changed = True

    def end(self) -> None:
        """Note a stop in good order."""
        self._run["ended"] = True
        self.keep()

    def state(self) -> Restarts:
        """For people and machines."""
        return Restarts(by_reason=dict(self._counts), last=list(self._last), reloads=self._reloads)

    def _systemd_says(self) -> str:
        try:
            said = self._result.read_text("ascii", errors="replace").strip()
            self._result.unlink()
        except OSError:
            return ""
        return said

    def _load(self) -> dict[str, Any] | None:
        """What the run before has noted; None if there was none. A damaged book is begun anew."""
        try:
            record = json.loads(self._file.read_bytes())
            counts = Counter({str(reason): int(count) for reason, count in record["by_reason"].items()})
            last = [Start(**one) for one in record["last"]][-_KEPT:]
            self._reloads = int(record["reloads"])
            previous = dict(record["run"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as exc:
            log.warning("%s cannot be read (%s): restarts are counted anew", self._file, exc)
            return None
        self._counts, self._last = counts, last
        return previous

    def keep(self) -> None:
        """Write it down."""
        self.changed = False
        record = {
            "run": self._run, "by_reason": self._counts, "last": [asdict(one) for one in self._last],
            "reloads": self._reloads,
        }  # fmt: skip
        try:
            store(self._file, json.dumps(record).encode())
        except OSError as exc:
            if not self._complained:
                log.warning("%s cannot be written (%s): why edged was started may be told wrong", self._file, exc)
            self._complained = True
