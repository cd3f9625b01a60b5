"""How many lines a flood of commands may put into the log. Pure: the audit log keeps every command.

Each command has a line of its own while they are few; of many, those beyond the first of a period are summed up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

LINES = 20
"""Of one period."""
PERIOD = 10.0
"""Seconds."""


@dataclass(slots=True)
class Flood:
    """Counts the lines of one period after the other. Times are seconds of any clock that only goes forward."""

    _began: float = float("-inf")
    _said: int = 0
    _unsaid: Counter[str] = field(default_factory=Counter)

    def may_say(self, now: float, outcome: str) -> bool:
        """Whether a command that ended so gets a line of its own; if not, it is counted."""
        if now - self._began >= PERIOD and not self._unsaid:
            self._began, self._said = now, 0
        self._said += 1
        if self._said <= LINES:
            return True
        self._unsaid[outcome] += 1
        return False

    def summary(self, now: float) -> str:
        """What was not said of a period that is over; empty if there is nothing to say."""
        if not self._unsaid or now - self._began < PERIOD:
            return ""
        counted, self._unsaid = self._unsaid, Counter()
        self._began, self._said = now, 0
        return ", ".join(f"{count:,} {outcome}" for outcome, count in counted.most_common())
