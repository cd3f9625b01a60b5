"""What devices say by themselves, decoded as it arrives and kept until it is polled."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .codecs.decode import Fields
from .codecs.framing import Framer
from .device import Device, Kind

_TORN = 1_500_000
"""Microseconds. No device pauses so long inside a frame; two halves further apart belong to different frames."""


class Heard(NamedTuple):
    """A frame that came by itself."""

    number: int
    fields: Fields
    frame: bytes
    wall: int
    mono: int


@dataclass(slots=True)
class Listener:
    """Decodes what one kind of message of a device says, and keeps it until it is polled."""

    device: Device
    kind: Kind
    framer: Framer
    limit: int
    news: asyncio.Event
    """Set when a frame came."""
    heard: dict[str, deque[Heard]] = field(default_factory=dict)
    """By group: the frames that came last."""
    count: int = 0
    shed: int = 0
    """Frames that nobody fetched in time, where all were to be kept."""
    unknown: int = 0
    """Frames that nobody understood."""
    last: int = 0
    fetched: int = 0
    """The number of the last frame that was delivered."""
    _timer: asyncio.TimerHandle | None = None

    def hear(self, data: bytes, moment: int) -> None:
        """Take what arrived at `moment`, microseconds on the monotonic clock."""
        if moment - self.last > _TORN and self.framer.partial and not self.kind.framing.gap:
            self.restart()
        gap = float(self.kind.framing.gap)
        if gap:
            if self._timer is not None:
                self._timer.cancel()
            if moment - self.last > gap * 1e6:
                self._take(self.framer.gap(), self.last)
            self._timer = asyncio.get_running_loop().call_later(gap, self._silent)
        self.last = moment
        self._take(self.framer.feed(data), moment)

    def restart(self) -> None:
        """Forget a frame that has begun: what comes now does not belong to it."""
        self.framer.reset()
        if self._timer is not None:
            self._timer.cancel()

    def _silent(self) -> None:
        self._take(self.framer.gap(), self.last)

    def _take(self, frames: Sequence[bytes], moment: int) -> None:
        for frame in frames:
            found, _ = self.device.decode(self.kind, frame)
            if found is None:
                self.unknown += 1
                continue
            self.count += 1
            wall = time.time_ns() // 1000 - (time.monotonic_ns() // 1000 - moment)
            group = self.kind.group(next(iter(found), ""))
            kept = self.heard.setdefault(group, deque(maxlen=self.limit))
            self.shed += self.limit > 1 and len(kept) == self.limit and kept[0].number > self.fetched
            kept.append(Heard(self.count, found, frame, wall, moment))
            self.news.set()

    def newest(self, group: str) -> Heard | None:
        """The frame of a group that came last."""
        kept = self.heard.get(group)
        return kept[-1] if kept else None
