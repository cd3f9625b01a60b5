"""How long to wait for a unit's answer: learnt from how long it took so far.

Pure.
"""

from __future__ import annotations

_FLOOR = 0.2
"""Seconds that a unit is given at least, unless something else is said."""
_ENOUGH = 8
"""So many answers make a habit."""
_MARGIN, _EXTRA = 2.5, 0.05
"""A unit is given so many times the longest it took lately, and so many seconds more."""
_FADE = 0.999
"""By how much each answer makes the longest one fade."""


class Pace:
    """One unit. Times are from the end of the request to the beginning of the answer, seconds."""

    __slots__ = ("_answers", "_floor", "_longest", "_misses", "ceiling", "late", "latest")

    def __init__(self, floor: float = _FLOOR) -> None:
        self._floor = floor
        self._longest = 0.0
        self._answers = 0
        self._misses = 0
        self.ceiling = 0.0
        """What the configuration allows."""
        self.late = 0
        """How many answers came after they were given up."""
        self.latest = 0.0
        """How long the latest of them took, seconds."""

    @property
    def known(self) -> bool:
        """Whether it has ever answered."""
        return self._answers > 0

    def patience(self, ceiling: float) -> float:
        """How long to wait now. Each time in vain doubles it, up to what the configuration allows."""
        self.ceiling = ceiling
        if self._answers < _ENOUGH:
            return ceiling
        learnt = max(self._floor, _MARGIN * self._longest + _EXTRA) * 2.0 ** min(self._misses, 8)
        return min(learnt, ceiling)

    def answered(self, took: float) -> None:
        """It answered after so many seconds."""
        self._answers += 1
        self._misses = 0
        self._longest = max(took, self._longest * _FADE)

    def missed(self) -> None:
        """It did not."""
        self._misses += 1

    def came_late(self, took: float) -> None:
        """It did, but too late."""
        self.late += 1
        self.latest = max(took, self.latest)
        self._longest = max(took, self._longest)
