"""What one device said: kept until it is fetched. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

from edged.adapter import ALL_GOOD, Quality, Sample, Value, bad

from .ledger import Ticket

KEPT = 1000
"""Most messages kept between two polls; the oldest go first, and a note says so."""
_TIDY = 32
_SHAPES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """The values of one message. `wall` and `mono` are the same moment, microseconds."""

    number: int
    wall: int
    mono: int
    values: Mapping[str, Value]
    quality: Mapping[str, Quality]
    overall: Quality | None
    """What is uncertain about all of them."""
    ticket: Ticket | None = None


@dataclass(slots=True, eq=False, weakref_slot=True)
class MqttJob:
    """Some points of a device, and what of them was fetched. Satisfies `edged.adapter.Job`."""

    device: str
    points: tuple[str, ...]
    thin: bool
    """One message in each period is enough: the period is longer than a second."""
    delivered: int = 0
    """The number of the last packet fetched."""
    fetched: bool = False
    """Whether anything was ever fetched."""
    lost: int = 0
    silent: bool = False
    """Whether it was told that the device is silent, and it has not said anything since."""
    missed: frozenset[str] = frozenset()
    """The points that are stale, and were reported so."""
    _shapes: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def sample(self, packet: Packet) -> Sample | None:
        """The sample of a packet; None if it has none of the job's points."""
        keys = tuple(packet.values)
        names = self._shapes.get(keys)
        if names is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            names = self._shapes[keys] = tuple(point for point in self.points if point in packet.values)
        if not names:
            return None
        quality: dict[int, Quality] = {}
        if packet.quality or packet.overall is not None:
            qualities = [packet.quality.get(name, packet.overall) for name in names]
            quality = {i: one for i, one in enumerate(qualities) if one is not None}
        values = [packet.values[name] for name in names]
        return Sample(self.device, packet.wall, packet.mono, names, values, quality or ALL_GOOD)

    def wanted(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        """Those of these packets that are to be handed over: all, or the newest of each point."""
        mine = [packet for packet in packets if not packet.values.keys().isdisjoint(self.points)]
        if not self.thin:
            return mine
        kept: list[Packet] = []
        points: set[str] = set()
        for packet in reversed(mine):
            new = packet.values.keys() & set(self.points)
            if not new <= points:
                kept.append(packet)
                points |= new
        return kept[::-1]

    def without(self, points: Sequence[str], reason: str, wall: int, mono: int) -> Sample:
        """That these points have no value."""
        quality = dict.fromkeys(range(len(points)), bad(reason))
        return Sample(self.device, wall, mono, tuple(points), (None,) * len(points), quality)


class Listener:
    """What one device said."""

    def __init__(self, release: Callable[[Ticket | None], None]) -> None:
        self._release = release
        self._packets: deque[Packet] = deque()
        self.jobs: WeakSet[MqttJob] = WeakSet()
        self.count = 0
        """Packets, ever."""
        self.written = 0
        """The number of the last packet before the last write."""
        self.seen = 0
        """When it was heard last (mono), whatever it said; 0 for never."""
        self.began = 0
        """When its first packet came (mono)."""
        self.offline = False
        self.points: dict[str, int] = {}
        """Point → when it came last (mono)."""
        self.newest: Packet | None = None
        self.raw: tuple[str, bytes, bytes] = ("", b"", b"")
        """Topic, payload and frame of its last message, for people."""

    def notice(self, mono: int) -> None:
        """It is there, whatever it said."""
        self.seen = max(self.seen, mono)

    def hear(self, packet: Packet) -> None:
        """Keep a packet until all jobs have it."""
        self.count = packet.number
        self.newest = packet
        self.notice(packet.mono)
        self.began = self.began or packet.mono
        for point in packet.values:
            self.points[point] = max(self.points.get(point, packet.mono), packet.mono)
        self._packets.append(packet)
        if len(self._packets) >= _TIDY and len(self._packets) & len(self._packets) - 1 == 0:
            self.tidy()
        if len(self._packets) > KEPT:
            old = self._packets.popleft()
            for job in self.jobs:
                job.lost += old.number > job.delivered
            if self._is_taken():
                self._release(old.ticket)

    def since(self, number: int) -> list[Packet]:
        """The packets after this one that are still kept."""
        return [packet for packet in self._packets if packet.number > number]

    def fetch(self, job: MqttJob) -> Sequence[Packet]:
        """What a job has not had yet; from now on it has."""
        packets = job.wanted(self.since(job.delivered))
        job.delivered, job.fetched = self.count, True
        self.tidy()
        return packets

    def tidy(self) -> None:
        """Forget what nobody waits for any more."""
        if not self._is_taken():
            return
        needed = {one.number for job in self.jobs for one in job.wanted(self.since(job.delivered))}
        if len(needed) == len(self._packets):
            return
        for packet in self._packets:
            if packet.number not in needed:
                self._release(packet.ticket)
        self._packets = deque(packet for packet in self._packets if packet.number in needed)

    def _is_taken(self) -> bool:
        """Whether anybody takes what comes. Who only looks leaves it at the broker, for the gateway."""
        return any(job.fetched for job in self.jobs)

    def stale(self, job: MqttJob, before: int) -> tuple[str, ...]:
        """Points that came once, and not since `before` (mono), although others did; each is named once."""
        late = frozenset(point for point in job.points if self.points.get(point, self.began) < before)
        fresh, job.missed = late - job.missed, late
        return tuple(point for point in job.points if point in fresh)
