"""Who may have how many messages in flight.

The window bounds what a crash can make the receiver see twice: messages under way, and those whose confirmation is not
on the disk yet. The lanes share it so that none starves another: what has priority finds a place kept free for it, and
leaves one to the others; the backlog and what is sent once more have a share together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

from edged.uplink.api import Lane
from edged.uplink.pace import Pace

_BACKGROUND = (Lane.HISTORICAL, Lane.REPLAY)


class Window:
    """Slots for messages in flight; the lanes wait for them in turn."""

    def __init__(self, size: int, share: float, unsaved: Callable[[], int], pace: Pace | None = None) -> None:
        """`share`: the largest that backlog and replays may have together; `pace` may allow them less.

        `unsaved` says how many confirmed messages the disk does not know of yet; they count too.
        """
        self.size = size
        self._unsaved = unsaved
        self._share = background_slots(size, share)
        self._pace = pace
        self._in_flight = dict.fromkeys(Lane, 0)
        self.in_flight = 0
        """How many messages are under way."""
        self._active: set[Lane] = set()
        self._careful: set[Lane] = set()
        self._waiting: set[Lane] = set()
        self._served: Lane | None = None
        self._moved = 0.0
        self._changed = asyncio.Event()
        self.starved = asyncio.Event()
        """Set when a lane waits because of what the disk does not know of yet: save it."""

    def open(self, lane: Lane) -> None:
        """The lane has something to send: from now on it has its share."""
        self._active.add(lane)

    def rest(self, lane: Lane) -> None:
        """The lane has nothing to send for now: the others may have its share."""
        if lane in self._active:
            self._active.discard(lane)
            self._changed.set()

    def close(self, lane: Lane) -> None:
        """The lane has nothing more to send: the others may have its share."""
        self._active.discard(lane)
        self._careful.discard(lane)
        self._changed.set()

    def busy_since(self) -> float | None:
        """Since when nothing has moved although something is under way or waits for a slot; monotonic seconds."""
        return self._moved if self.in_flight or self._waiting else None

    def alive(self) -> None:
        """Something has moved: a slot was taken or given back, or the receiver has said that it takes nothing now."""
        self._moved = monotonic()

    def heard(self, now: float, took: float) -> None:
        """A message was confirmed after so many seconds."""
        if self._pace:
            self._pace.heard(now, took)

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
        if not (self._waiting or self.in_flight):
            self.alive()
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
        self.in_flight += 1
        self._served = lane
        self.alive()
        self._changed.set()

    def give_back(self, lane: Lane) -> None:
        """A message is no longer in flight."""
        self._in_flight[lane] -= 1
        self.in_flight -= 1
        self.alive()
        self._changed.set()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place on the live lane, for what is no reading: the answer to a command."""
        await self.take(Lane.LIVE)
        try:
            yield
        finally:
            self.give_back(Lane.LIVE)

    def changed(self) -> None:
        """Something that the slots depend on has changed: look again."""
        self._changed.set()

    async def idle(self) -> None:
        """Wait until nothing is in flight."""
        while self.in_flight:
            self._changed.clear()
            await self._changed.wait()

    def _free(self, lane: Lane) -> bool:
        if self.in_flight + self._unsaved() >= self.size - self._kept_free(lane):
            return False
        if lane in self._careful:
            return self.in_flight == 0
        if self._careful and any(other in self._waiting or self._in_flight[other] for other in self._careful):
            return False
        if lane in _BACKGROUND:
            return sum(self._in_flight[one] for one in _BACKGROUND) < self._background()
        return self._in_flight[lane] < self._cap(lane)

    def _kept_free(self, lane: Lane) -> int:
        """One slot for what has priority, as long as there may be such and none is under way."""
        waits_for_priority = Lane.PRIORITY in self._active and not self._in_flight[Lane.PRIORITY]
        return 1 if waits_for_priority and lane is not Lane.PRIORITY and self.size > 1 else 0

    def _has_turn(self, lane: Lane) -> bool:
        """Whether no other lane waits that could go on and comes first: with priority, or not served last."""
        others = [other for other in self._waiting if other is not lane and self._free(other)]
        if not others:
            return True
        if self.size > 1 and Lane.PRIORITY in (lane, *others):
            return lane is Lane.PRIORITY
        return lane is not self._served

    def _background(self) -> int:
        if Lane.LIVE not in self._active:
            return self.size
        return min(self._share, self._pace.slots) if self._pace else self._share

    def _cap(self, lane: Lane) -> int:
        if lane is Lane.PRIORITY:
            return max(1, self.size - 1) if self._waiting - {lane} else self.size
        return max(1, self.size - self._share) if self._active.intersection(_BACKGROUND) else self.size


def background_slots(size: int, share: float) -> int:
    """How many slots of a window backlog and replays may have."""
    return max(1, min(size - 1, round(size * share)))
