"""How much of the backlog may be under way, so that it fills the link but no queue on the way. Pure.

A message that waits in a queue on the way to the receiver (a modem's, the kernel's) delays every fresh one behind it.
Therefore the time until a message is confirmed is watched, as LEDBAT (RFC 6817) and TCP Vegas do: while it stays near
the shortest one, more may be under way; when it grows, less.
"""

from __future__ import annotations

SPAN = 60.0
"""Seconds after which the shortest time is measured anew: the link may have changed."""
TOLERATED = 0.1
"""Seconds of delay that do not matter."""
_FIRST = 2.0
_CUT = 0.7


class Pace:
    """A number of messages, at least one, that adapts."""

    def __init__(self, most: int) -> None:
        """`most`: as many there may be at best."""
        self._most = most
        self._slots = min(_FIRST, most)
        self._starting = True
        self._shortest = float("inf")
        self._measured = float("-inf")
        self._emptying = 0.0
        """Since when the queues are being emptied, so that the link is measured and not they; 0 if they are not."""
        self._cut = float("-inf")

    @property
    def slots(self) -> int:
        """How many messages of the backlog may be under way."""
        return int(self._slots)

    def heard(self, now: float, took: float) -> None:
        """A message, of whatever lane, was confirmed after so many seconds. `now`: of any clock that goes forward."""
        if self._emptying and now - took < self._emptying:
            return
        if self._emptying or now - self._measured == float("inf"):
            self._shortest, self._measured, self._emptying, self._starting = took, now, 0.0, True
        elif now - self._measured > SPAN:
            self._slots, self._emptying = 1.0, now
            return
        self._shortest = min(self._shortest, took)
        if took <= self._shortest + max(self._shortest / 2, TOLERATED):
            self._slots = min(self._most, self._slots + (0.5 if self._starting else 1.0 / self._slots))
        elif now - self._cut > took:  # what is confirmed until then was sent before the cut
            self._slots, self._starting, self._cut = max(1.0, self._slots * _CUT), False, now
