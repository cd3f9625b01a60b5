"""A simulated serial line: a pseudo terminal whose other end takes the time that a real wire takes.

What is written to it arrives at the devices when its last bit would have, their answers trickle in at the line's speed,
and whoever sends while somebody else does garbles both. What can go wrong on a line is a fault that one gives it. The
same seed gives the same faults.

    async with Line(respond, baudrate=9600) as line:
        line.fault = noise_before(2)
        ...  # open line.port
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import tty
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Self

from edged.media.timer import Alarm
from edged.media.uart import Format, heard

_TICK = 0.001
"""Bytes of a frame are handed over in lots of so many seconds, as USB does, and the last one at its own time."""
_ONCE = 4096
_HISTORY = 65_536
_OTHER = 1_000
"""The sender of what a colliding device says."""


@dataclass(frozen=True, slots=True)
class Burst:
    """Bytes that a device sends without a pause."""

    data: bytes
    after: float
    """Seconds between the end of the request, or of the burst before, and the first bit."""
    sender: int = 0
    """Which device. One device answers in the order in which it was asked, however late it is."""


Respond = Callable[[bytes], Sequence[Burst]]
"""What all devices of the line together send on hearing some bytes that a silence ended."""
Fault = Callable[[bytes, Sequence[Burst], Random], Sequence[Burst]]
"""Changes the answer to a request."""


@dataclass(slots=True)
class _Talk:
    """Somebody's bytes on the wire."""

    start: float
    character: float
    data: bytearray
    ours: bool
    """Written by whoever opened the port; else to be handed to it."""
    asks: bool
    """The devices listen to it."""
    done: int = 0
    handed: float = 0.0
    """When some of it was handed over last."""

    @property
    def end(self) -> float:
        return self.start + len(self.data) * self.character

    def garble(self, start: float, end: float, random: Random) -> None:
        """What was on the wire together with something else is anybody's guess."""
        if self.character:
            first = max(int((start - self.start) / self.character), self.done)
            for i in range(first, min(int((end - self.start) / self.character) + 1, len(self.data))):
                self.data[i] ^= random.randrange(1, 256)


class Line:
    """One line. `port` is what to open. Without `baudrate` everything takes no time at all."""

    def __init__(
        self,
        respond: Respond,
        *,
        baudrate: int | None = None,
        character_bits: float = 10,
        silence: float | None = None,
        link: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.respond = respond
        self.fault: Fault | None = None
        """Changes every answer while it is set."""
        self.echo = False
        """Whoever sends hears himself."""
        self.before_echo = b""
        """What he hears before himself, as when an RS-485 line turns round."""
        self.requests = self.answers = 0
        """Requests of whoever opened the port, and answers to anybody."""
        self.early = 0
        """How often somebody began to send before the line was silent for `silence`."""
        self.shortest_gap = float("inf")
        """Seconds from the end of an answer to the next request, at the least so far."""
        self.ends: deque[float] = deque(maxlen=_HISTORY)
        """When the last bits of the answers were over (`time.monotonic()`)."""
        self.handed: deque[float] = deque(maxlen=_HISTORY)
        """When they were in fact handed over, later if the line's process was held up."""
        self.begins: deque[float] = deque(maxlen=_HISTORY)
        """When the requests were taken note of."""
        self.character = character_bits / baudrate if baudrate else 0.0
        self.silence = _silence(baudrate, self.character) if silence is None else silence
        self.port = ""
        self._link = link
        self._random = Random(seed)  # noqa: S311  # faults are to be the same each time
        self._air: list[_Talk] = []
        self._heard = bytearray()
        self._heard_us = False
        self._heard_until = 0.0
        self._last_end = 0.0
        self._busy: dict[int, float] = {}
        """Until when each device is answering."""
        self._alarm = Alarm(self._tick)
        self._loop: asyncio.AbstractEventLoop
        self._master = self._slave = -1

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.plug()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.unplug()
        self._alarm.close()

    def unpace(self) -> None:
        """From now on nothing takes any time."""
        self.character = self.silence = 0.0

    # -- the port ----------------------------------------------------------------------------------------------------

    def plug(self) -> None:
        """Make the port appear, as when a USB adapter is plugged in."""
        if self._master >= 0:
            return
        self._master, self._slave = os.openpty()  # the other end is kept open: else the kernel tells of its absence
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        name = os.ttyname(self._slave)
        if self._link is not None:
            beside = self._link.with_name(self._link.name + ".new")
            beside.unlink(missing_ok=True)
            beside.symlink_to(name)
            beside.replace(self._link)
        self.port = str(self._link or name)
        self._loop.add_reader(self._master, self._readable)

    def unplug(self) -> None:
        """Make the port vanish, whoever has it open."""
        if self._master < 0:
            return
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        self._loop.remove_reader(self._master)
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1
        self._air.clear()
        self._heard.clear()
        self._busy.clear()

    def say(self, *bursts: Burst) -> None:
        """Send without being asked, as a device that only talks does, or a second master."""
        self._answer(bursts, time.monotonic())
        self._tick()

    def second_master(self, request: bytes) -> None:
        """Another master asks, and the devices answer it."""
        self._talk(bytes(request), time.monotonic(), ours=False, asks=True)
        self._tick()

    # -- what goes over the wire -------------------------------------------------------------------------------------

    def _readable(self) -> None:
        self._hear()
        self._tick()

    def _hear(self) -> None:
        now = time.monotonic()
        try:
            data = os.read(self._master, _ONCE)
        except OSError:
            return
        self.begins.append(now)
        self._check_gap(now)
        if self.echo and self.before_echo:
            os.write(self._master, self.before_echo)
        self._talk(data, now, ours=True, asks=True)

    def _check_gap(self, now: float) -> None:
        gap = now - self._last_end
        self.shortest_gap = min(self.shortest_gap, gap)
        # What was to be heard by the clock and has not been handed over yet, nobody can have heard.
        self.early += gap < self.silence or any(
            not talk.ours and talk.done and now - talk.handed < self.silence for talk in self._air
        )

    def _talk(self, data: bytes, start: float, *, ours: bool, asks: bool = False) -> None:
        """Put bytes on the wire from `start` on."""
        if ours and self._air and self._air[-1].ours:
            start = max(start, self._air[-1].end)  # the same sender goes on
        talk = _Talk(start, self.character, bytearray(data), ours, asks)
        for other in self._air:
            if other.start < talk.end and talk.start < other.end:
                other.garble(talk.start, talk.end, self._random)
                talk.garble(other.start, other.end, self._random)
        self._air.append(talk)

    def _answer(self, bursts: Sequence[Burst], at: float) -> None:
        for burst in bursts:
            at = max(at + burst.after, self._busy.get(burst.sender, 0.0))
            self._talk(burst.data, at, ours=False)
            at += len(burst.data) * self.character
            self._busy[burst.sender] = at

    def _tick(self) -> None:
        """Hand over what is due, and come back when there will be more."""
        now = time.monotonic()
        if any(not talk.ours and talk.start < now for talk in self._air):
            self._hear()  # what was sent before some of this is handed over must not seem to have come after it
        for talk in list(self._air):
            if self.echo or not talk.ours:
                self._deliver(talk, now)
            if now >= talk.end:
                self._end(talk)
        if self._heard and now >= self._heard_until + self.silence:
            request, counts = bytes(self._heard), self._heard_us
            self._heard.clear()
            self._heard_us = False
            self._request(request, counts=counts)
            if not self.character:
                self._tick()
                return
        self._schedule(now)

    def _end(self, talk: _Talk) -> None:
        self._air = [other for other in self._air if other is not talk]
        if talk.asks:
            self._heard += talk.data
            self._heard_us |= talk.ours
            self._heard_until = talk.end
        if not talk.ours:
            self._last_end = talk.end
            self.ends.append(talk.end)
            self.handed.append(time.monotonic())

    def _deliver(self, talk: _Talk, now: float) -> None:
        ready = len(talk.data)
        if now < talk.end:
            ready = int((now - talk.start) / talk.character) if now > talk.start else 0
        if ready > talk.done:
            with contextlib.suppress(OSError):  # nobody reads, so that there is no room; or unplugged
                os.write(self._master, talk.data[talk.done : ready])
            talk.done, talk.handed = ready, now

    def _request(self, request: bytes, *, counts: bool) -> None:
        self.requests += counts
        bursts = self.respond(request)
        if self.fault is not None:
            bursts = self.fault(request, bursts, self._random)
        self.answers += bool(bursts)
        # The silence by which a device knows that the request is over is a part of its turnaround.
        self._answer(bursts, self._heard_until if self.character else time.monotonic())

    def _schedule(self, now: float) -> None:
        due = [self._heard_until + self.silence] if self._heard else []
        for talk in self._air:
            if talk.ours and not self.echo:
                due.append(talk.end)
            else:
                due.append(min(talk.end, max(now, talk.start) + max(_TICK, talk.character)))
        if due:
            self._alarm.set(min(due))


def _silence(baudrate: int | None, character: float) -> float:
    """3.5 characters, and 1.75 ms above 19,200 baud (Modbus over Serial Line V1.02, 2.5.1.1)."""
    if not baudrate:
        return 0.0
    return 3.5 * character if baudrate <= 19_200 else 0.00175  # noqa: PLR2004  # the limit named above


# -- faults -----------------------------------------------------------------------------------------------------------


def noise_before(count: int = 1) -> Fault:
    """Stray bytes just before the answer, as when an RS-485 line turns round."""
    return lambda _request, bursts, random: _changed(bursts, lambda data: random.randbytes(count) + data)


def noise_inside(count: int = 1) -> Fault:
    """Stray bytes in the middle of it."""

    def insert(data: bytes, random: Random) -> bytes:
        at = random.randrange(1, len(data)) if len(data) > 1 else 0
        return data[:at] + random.randbytes(count) + data[at:]

    return lambda _request, bursts, random: _changed(bursts, lambda data: insert(data, random))


def noise_after(count: int = 1) -> Fault:
    """Stray bytes just after it."""
    return lambda _request, bursts, random: _changed(bursts, lambda data: data + random.randbytes(count))


def corrupted(bits: int = 1) -> Fault:
    """Some bits of it are wrong."""

    def flip(data: bytes, random: Random) -> bytes:
        number = int.from_bytes(data, "big")
        for bit in random.sample(range(8 * len(data)), min(bits, 8 * len(data))):
            number ^= 1 << bit
        return number.to_bytes(len(data), "big")

    return lambda _request, bursts, random: _changed(bursts, lambda data: flip(data, random))


def truncated(count: int = 1) -> Fault:
    """Its last bytes are missing."""
    return lambda _request, bursts, _random: _changed(bursts, lambda data: data[:-count])


def dropped(count: int = 1) -> Fault:
    """Some bytes of it are missing, anywhere."""

    def drop(data: bytes, random: Random) -> bytes:
        lost = set(random.sample(range(len(data)), min(count, len(data))))
        return bytes(byte for i, byte in enumerate(data) if i not in lost)

    return lambda _request, bursts, random: _changed(bursts, lambda data: drop(data, random))


def paused(seconds: float) -> Fault:
    """There is a pause in the middle of it."""

    def split(_request: bytes, bursts: Sequence[Burst], random: Random) -> Sequence[Burst]:
        parts: list[Burst] = []
        for burst in bursts:
            at = random.randrange(1, len(burst.data)) if len(burst.data) > 1 else 0
            parts += [replace(burst, data=burst.data[:at]), replace(burst, data=burst.data[at:], after=seconds)]
        return parts

    return split


def late(seconds: float) -> Fault:
    """It comes so much later."""
    return lambda _request, bursts, _random: [
        replace(burst, after=burst.after + (0 if i else seconds)) for i, burst in enumerate(bursts)
    ]


def dead() -> Fault:
    """It never comes."""
    return lambda _request, _bursts, _random: ()


def twice(after: float = 0.0) -> Fault:
    """It comes, and comes again."""
    return lambda _request, bursts, _random: [*bursts, *(replace(burst, after=after) for burst in bursts)]


def misheard(sent: Format, listening: Format) -> Fault:
    """It was sent with other settings than those it is heard with, or over swapped wires."""
    return lambda _request, bursts, _random: _changed(bursts, lambda data: heard(data, sent, listening))


def collision(lead: float = 0.0015) -> Fault:
    """A second device with the same number answers too, so much before the first one has ended."""

    def collide(_request: bytes, bursts: Sequence[Burst], random: Random) -> Sequence[Burst]:
        others = (Burst(burst.data[:2] + random.randbytes(len(burst.data) - 2), -lead, _OTHER) for burst in bursts)
        return [burst for pair in zip(bursts, others, strict=True) for burst in pair]

    return collide


def sometimes(share: float, *faults: Fault) -> Fault:
    """One of these, drawn anew for each of this share of the answers."""

    def draw(request: bytes, bursts: Sequence[Burst], random: Random) -> Sequence[Burst]:
        return random.choice(faults)(request, bursts, random) if random.random() < share else bursts

    return draw


def _changed(bursts: Sequence[Burst], change: Callable[[bytes], bytes]) -> Sequence[Burst]:
    return [replace(burst, data=change(burst.data)) for burst in bursts]


FAULTS: Mapping[str, Fault] = {
    "noise-before": noise_before(2),
    "noise-inside": noise_inside(1),
    "noise-after": noise_after(2),
    "corrupted": corrupted(1),
    "truncated": truncated(1),
    "dropped": dropped(1),
    "paused": paused(0.05),
    "late": late(1.2),
    "dead": dead(),
    "twice": twice(),
    "duplicate-unit": collision(),
    "wrong-baud": misheard(Format(9600), Format(19200)),
    "wrong-parity": misheard(Format(9600, "even"), Format(9600)),
    "swapped": misheard(Format(9600, inverted=True), Format(9600)),
}
"""Faults by the names under which `edged simulate --fault` has them. `late` is later than the usual time-out of 1 s."""
