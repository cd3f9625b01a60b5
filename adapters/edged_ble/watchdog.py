"""When silence of a radio is suspicious, and what to do about it. Pure: it is told the time, and only answers.

Every radio hears something now and then. How long it is silent at most is learnt: the longest silence of each minute
is kept and fades slowly. Silence several times as long starts a ladder: scan again, switch the radio off and on, tell
a person; after that the first two are repeated, ever more rarely, for a place may simply have become quiet.
"""

from __future__ import annotations

from enum import Enum

AT_LEAST, AT_MOST = 30.0, 600.0
"""Seconds of silence that are never suspicious, and that always are."""
UNKNOWN = 60.0
"""The same before anything was heard."""
RAREST = 3600.0
"""Seconds between two steps at most."""
_FACTOR = 5
_WINDOW = 60.0
_FADE = 0.9


class Step(Enum):
    """What to do about the silence."""

    RESTART = "restart the scan"
    POWER = "switch the radio off and on"
    REPORT = "tell a person"


class Watchdog:
    """The ladder of one radio. All times are seconds on one monotonic clock."""

    def __init__(self, now: float, *, at_least: float = AT_LEAST, at_most: float = AT_MOST) -> None:
        self._at_least, self._at_most = at_least, max(at_least, at_most)
        self._last = self._stepped = now
        self._window = now
        self._longest = 0.0
        self._usual = 0.0
        self._steps = 0
        self._reported = False
        self.ever = False
        """Whether anything was ever heard."""

    @property
    def patience(self) -> float:
        """How long a silence may last."""
        longest = max(self._usual, self._longest)
        if not longest:
            return min(max(UNKNOWN, self._at_least), self._at_most)
        return min(max(_FACTOR * longest, self._at_least), self._at_most)

    @property
    def silent_since(self) -> float:
        """When something was last heard."""
        return self._last

    @property
    def reported(self) -> bool:
        """Whether a person has been told of the silence that lasts."""
        return self._reported

    def heard(self, now: float) -> None:
        """Something was heard."""
        # After a step the silence before it proves nothing; the wait since then does, whether the step helped or not.
        gap = now - (self._stepped if self._steps else self._last)
        self._longest = max(self._longest, gap if self.ever or self._steps else 0.0)
        if now - self._window >= _WINDOW:
            self._usual = max(self._longest, self._usual * _FADE)
            self._longest, self._window = 0.0, now
        self._last, self._steps, self._reported, self.ever = now, 0, False, True

    def excuse(self, seconds: float, now: float) -> None:
        """The radio was busy with something else for so long until now: that was no silence."""
        self._last = min(self._last + seconds, max(now, self._last))
        self._stepped = max(self._stepped, self._last)

    def restarted(self, now: float) -> None:
        """Scanning begins anew after the radio was gone: only now can silence mean anything."""
        self._last = self._stepped = max(self._last, now)
        self._steps, self._reported = 0, False

    def due(self) -> float:
        """When the next step is due, should nothing be heard."""
        if not self._steps:
            return max(self._last, self._stepped) + self.patience
        rarer = 2.0 ** max(0, self._steps - len(Step))
        return self._stepped + min(self.patience * rarer, RAREST)

    def step(self, now: float) -> Step | None:
        """What to do now, if anything. Counts as done."""
        if now < self.due():
            return None
        self._steps += 1
        self._stepped = now
        if self._steps <= len(Step):
            step = list(Step)[self._steps - 1]
        else:
            step = Step.RESTART if self._steps % 2 == 0 else Step.POWER
        self._reported |= step is Step.REPORT
        return step
