"""When the next flush happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

FIRST_FLUSH = 0.1
"""Seconds after which the first readings of a run are flushed, however long `flush` is."""
COUNTS_SECONDS = 30.0
"""Counts without samples are not worth a write of their own: what a crash loses of them, it loses on both sides."""
RETRY_FIRST, RETRY_LONGEST = 0.1, 10.0
"""Pauses, in seconds, between tries to write to a disk that refuses; they double."""


HURRIES = 10
"""So many flushes out of turn may follow each other, one more each second: an alarm that flutters must not wear the
flash out."""


class Cadence:
    """Calls `due` on a fixed grid of flush times, but only when it was asked to."""

    def __init__(self, every: float, due: Callable[[], None]) -> None:
        self._every = every
        self._due = due
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._first = True
        self.soon = False
        """Whether it will call at the next time on the grid, or when another try is due."""
        self.retry = 0.0
        """The pause before the next try, while the disk refuses."""
        self._hurries = float(HURRIES)
        self._hurried = self._begin

    def may_hurry(self) -> bool:
        """Whether a flush out of turn is affordable now: then it counts as one."""
        now = self._loop.time()
        self._hurries = min(HURRIES, self._hurries + now - self._hurried)
        self._hurried = now
        if self.retry or self._hurries < 1:
            return False
        self._hurries -= 1
        return True

    def ask(self) -> None:
        """Call at the next time."""
        if not self.soon:
            self._set(0.0)
            self.soon = True

    def ask_sometime(self) -> None:
        """Call within a while, unless it calls sooner anyway."""
        if self._timer is None:
            self._set(COUNTS_SECONDS)

    def _set(self, patience: float) -> None:
        if self._timer:
            self._timer.cancel()
        now = self._loop.time() + patience
        every = min(self._every, FIRST_FLUSH) if self._first else self._every
        wait = self.retry or every - (now - self._begin) % every
        self._timer = self._loop.call_at(now + wait, self._call)

    def _call(self) -> None:
        self.cancel()
        self._due()

    def cancel(self) -> None:
        """Forget what was asked."""
        if self._timer:
            self._timer.cancel()
        self._timer, self.soon = None, False

    def committed(self, *, samples: bool) -> None:
        """A try succeeded."""
        self.retry = 0.0
        self._first = self._first and not samples

    def failed(self) -> None:
        """A try failed: wait longer before the next."""
        self.retry = min(max(self.retry * 2, RETRY_FIRST), RETRY_LONGEST)
