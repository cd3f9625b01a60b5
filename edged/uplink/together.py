"""Parts of a range that are worked out of all of it, so that none of them may be settled before the others. Pure.

What an interval yields may be too large for one message. Its parts are then messages of their own, but the readings
behind them stay until all are delivered: after a crash the interval must be worked out anew, of all its readings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edged.buffer.cursor import Intervals, Span


@dataclass(slots=True, eq=False)
class Together:
    """One such range, and which of its parts have a verdict."""

    first: int
    last: int
    _covered: Intervals | None = None
    _verdicts: list[tuple[int, Callable[[], None]]] = field(default_factory=list)

    def add(self, first: int, last: int, settle: Callable[[], None]) -> None:
        """A part has its verdict; `settle` books it."""
        if self._covered is None:
            self._covered = Intervals(self.first - 1)
        self._covered.add(first, last)
        self._verdicts.append((first, settle))

    def settle(self, missing: list[Span]) -> bool:
        """Book all verdicts, if they cover whatever is `missing` of the range; whether they do."""
        covered = self._covered
        if covered is None or any(covered.missing(*span) for span in missing):
            return False
        for _, settle in sorted(self._verdicts, key=lambda verdict: verdict[0]):
            settle()
        return True
