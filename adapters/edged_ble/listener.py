"""What one configured sender said: new measurements are kept until they are polled, repetitions are recognised."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

from edged.adapter import Quality, Value

from .codecs.advert import Advertisement, Decoder

KEPT = 512
"""Most measurements kept between two polls; the oldest go first, and a note says so."""
_TIDY = 32
"""With so many it is looked which of them nobody waits for: with hundreds of sensors they would fill the memory."""
CONFIRM = 60.0
"""Seconds after which a sensor that says the same again, and numbers nothing, has measured it anew."""

_EVENT = 2e6
"""Microseconds of silence between two equal events; one press of a button is sent many times."""
_SHAPES = 16


@dataclass(frozen=True, slots=True)
class Packet:
    """One measurement."""

    number: int
    mono: int
    wall: int
    rssi: int
    values: Mapping[str, Value]
    quality: Mapping[str, Quality]


@dataclass(slots=True)
class _Said:
    """The last message of one shape."""

    number: int | None
    values: dict[str, Value]
    taken: int
    heard: int
    event: bool


class Reader(Protocol):
    """Somebody who fetches the measurements of a listener."""

    delivered: int
    """The number of the last one fetched."""
    lost: int
    """How many went before they were fetched."""
    thin: bool
    """It wants of each shape only the newest, and all events."""


class Listener:
    """The ear for one device. Moments are microseconds: `mono` on the monotonic clock, `wall` since the epoch."""

    def __init__(self, decoder: Decoder | None, expect: float) -> None:
        self.decoder = decoder
        self._expect = expect * 1e6
        self._confirm = min(CONFIRM, expect / 2) * 1e6
        self._packets: deque[Packet] = deque()
        self.newest: Packet | None = None
        """The last measurement."""
        self.readers: WeakSet[Reader] = WeakSet()
        self._said: dict[tuple[str, ...], _Said] = {}
        self._events = {name for name, kind in decoder.points.items() if kind.event} if decoder else set()
        self.count = 0
        """Measurements, ever."""
        self.sightings = 0
        """Advertisements, ever, repetitions included."""
        self.seen = 0
        """When it was heard last (mono), whatever it said; 0 for never."""
        self.seen_wall = 0
        self.rssi = 0
        self.last = 0
        """When its last measurement came (mono); 0 for never."""
        self.problem = ""
        """Why what it said last could not be read."""
        self.foreign = 0
        """Advertisements that were of another format, since the last good one."""
        self.bytes = b""
        """What its last measurement was made of, for people."""
        self._arrival = asyncio.Event()
        self.fields: dict[str, int] = {}
        """Field → when it came last (mono)."""

    def hear(self, adv: Advertisement, mono: int, wall: int) -> None:
        """Take an advertisement."""
        self.sightings += 1
        self.seen, self.seen_wall, self.rssi = mono, wall, adv.rssi
        if self.decoder is None:
            return
        if self.last and mono - self.last > self._expect:
            self.decoder.reset()  # it may have been restarted; or else what it counts would be refused for ever
        decoded = self.decoder.decode(adv)
        if decoded is None:
            self.foreign += 1
            return
        if decoded.problem or not decoded.values:
            self.problem = decoded.problem
            return
        if self._repeats(decoded.packet_id, decoded.values, mono):
            return
        self.count += 1
        self.last, self.problem, self.foreign = mono, "", 0
        self.fields.update(dict.fromkeys(decoded.values, mono))
        self.bytes = b"".join((*adv.manufacturer_data.values(), *adv.service_data.values()))
        self._arrival.set()
        self.newest = Packet(self.count, mono, wall, adv.rssi, decoded.values, decoded.quality)
        self._packets.append(self.newest)
        if len(self._packets) >= _TIDY and len(self._packets) & len(self._packets) - 1 == 0:
            self.tidy()
        if len(self._packets) > KEPT:
            self._lose(self._packets.popleft())

    def tidy(self) -> None:
        """Forget what every reader has fetched, and what the thin ones alone have not and will not want."""
        readers = list(self.readers)
        all_have = min((one.delivered for one in readers), default=self.count)
        prompt_have = min((one.delivered for one in readers if not one.thin), default=self.count)
        shapes: set[tuple[str, ...]] = set()
        kept: list[Packet] = []
        for packet in reversed(self._packets):
            if packet.number <= all_have:
                break
            shape = tuple(packet.values)
            if packet.number > prompt_have or shape not in shapes or not self._events.isdisjoint(shape):
                kept.append(packet)
            shapes.add(shape)
        self._packets = deque(reversed(kept))

    def _lose(self, packet: Packet) -> None:
        for one in self.readers:
            one.lost += packet.number > one.delivered

    def _repeats(self, number: int | None, values: Mapping[str, Value], mono: int) -> bool:
        """Whether this is what it said before. Some sensors take turns with several messages."""
        shape = tuple(values)
        before = self._said.get(shape)
        if before is not None and before.number == number and (number is not None or before.values == dict(values)):
            since = before.heard if before.event else before.taken
            before.heard = mono
            if number is not None or mono - since < (_EVENT if before.event else self._confirm):
                return True
        if len(self._said) >= _SHAPES:
            self._said.clear()
        self._said[shape] = _Said(number, dict(values), mono, mono, not self._events.isdisjoint(shape))
        return False

    def restart(self) -> None:
        """The sender begins to count anew."""
        self._said.clear()
        if self.decoder is not None:
            self.decoder.reset()

    async def wait(self, seconds: float) -> None:
        """Wait for the next measurement, but no longer than this."""
        self._arrival.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrival.wait()

    def since(self, number: int) -> list[Packet]:
        """The measurements after this one that are still kept."""
        return [packet for packet in self._packets if packet.number > number]
