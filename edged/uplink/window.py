"""Who may have how many messages in flight.

The window bounds what a crash can make the receiver see twice: messages under way, and those whose confirmation is not
on the disk yet. Two lanes share it so that neither starves the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edged.uplink.api import Lane


class Window:
    """Slots for messages in flight; the lanes wait for them in turn."""

    def __init__(self, size: int, share: float, unsaved: Callable[[], int]) -> None:
        """`unsaved` says how many confirmed messages the disk does not know of yet; they count too."""
        self.size = size
        self._unsaved = unsaved
        self._historical = max(1, min(size - 1, round(size * share)))
        self._in_flight = dict.fromkeys(Lane, 0)
        self._active: set[Lane] = set()
        self._careful: set[Lane] = set()
        self._waiting: set[Lane] = set()
        self._served: Lane | None = None
        self._changed = asyncio.Event()
        self.starved = asyncio.Event()
        """Set when a lane waits because of what the disk does not know of yet: save it."""

    @property
    def in_flight(self) -> int:
        """How many messages are under way."""
        return sum(self._in_flight.values())

    def open(self, lane: Lane) -> None:
        """The lane has something to send: from now on it has its share."""
        self._active.add(lane)

    def close(self, lane: Lane) -> None:
        """The lane has nothing more to send: the others may have its share."""
        self._active.discard(lane)
        self._careful.discard(lane)
        self._changed.set()

    def be_careful(self, lane: Lane) -> None:
        """Until `trust`: nothing else is in flight beside a message of this lane."""
        self._careful.add(lane)

    def trust(self, lane: Lane) -> None:
        """The lane need not be alone any more."""
        self._careful.discard(lane)
        self._changed.set()

    def alone(self, lane: Lane) -> bool:
        """Whether the message of this lane that is in flight has been so alone."""
        return lane in self._careful

    async def take(self, lane: Lane) -> None:
        """Wait for a slot and take it."""
        self._waiting.add(lane)
        try:
            while not (self._free(lane) and self._has_turn(lane)):
                if 2 * self._unsaved() >= self.size:
                    self.starved.set()
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._waiting.discard(lane)
        self._in_flight[lane] += 1
        self._served = lane
        self._changed.set()

    def give_back(self, lane: Lane) -> None:
        """A message is no longer in flight."""
        self._in_flight[lane] -= 1
        self._changed.set()

    def changed(self) -> None:
        """Something that the slots depend on has changed: look again."""
        self._changed.set()

    async def idle(self) -> None:
        """Wait until nothing is in flight."""
        while self.in_flight:
            self._changed.clear()
            await self._changed.wait()

    def _free(self, lane: Lane) -> bool:
        if self.in_flight + self._unsaved() >= self.size:
            return False
        if lane in self._careful:
            return self.in_flight == 0
        if any(other in self._waiting or self._in_flight[other] for other in self._careful):
            return False
        return self._in_flight[lane] < self._cap(lane)

    def _has_turn(self, lane: Lane) -> bool:
        """Whether no other lane waits that could go on and was not served last."""
        return lane is not self._served or not any(self._free(other) for other in self._waiting if other is not lane)

    def _cap(self, lane: Lane) -> int:
        if len(self._active) < len(Lane):
            return self.size
        return max(1, self._historical if lane is Lane.HISTORICAL else self.size - self._historical)
