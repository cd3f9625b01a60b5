"""What a poller keeps of its jobs and devices, and what it tells people of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edged.adapter import Job
from edged.clock import mono_us, wall_us
from edged.model import Sample, bad

_SMOOTHING = 30.0
"""Seconds over which the load shown to people is averaged."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """How one device does, for people."""

    device: str
    bus: str
    health: str
    """`starting`, `ok` or `down`."""
    since: int
    """Since when, microseconds since the epoch."""
    last_ok: int = 0
    last_error: str = ""
    polls: int = 0
    failures: int = 0
    overruns: int = 0
    seconds: float = 0.0
    """How long its last successful poll took."""


@dataclass(frozen=True, slots=True)
class BusState:
    """How one bus does, for people."""

    bus: str
    adapter: str
    health: str
    """`starting`, `ok` or `down`."""
    since: int
    last_error: str
    load: float
    """Share of the time it was busy, lately."""
    polls: int
    transactions: int
    overruns: int
    devices: Sequence[DeviceState]


@dataclass(slots=True)
class PolledJob:
    """One job on its grid."""

    job: Job
    device: PolledDevice
    every: float
    phase: float
    """A moment (loop time) on its grid, which is the same for all buses."""
    due: float = 0.0

    def next_after(self, now: float) -> float:
        """The first grid point after `now`."""
        periods = (now - self.phase) // self.every + 1
        return self.phase + periods * self.every


@dataclass(slots=True)
class PolledDevice:
    """One device, as the poller finds it."""

    name: str
    jobs: tuple[PolledJob, ...] = ()
    health: str = "starting"
    since: int = field(default_factory=wall_us)
    down_at: float = 0.0
    pause: float = 0.0
    cost: float = 0.0
    """What its last failed attempt cost the bus, seconds."""
    last_ok: int = 0
    last_error: str = ""
    polls: int = 0
    failures: int = 0
    overruns: int = 0
    seconds: float = 0.0
    with_link: bool = False
    """Down because the link was: then its return is told once, by the bus."""
    probe: int = 0
    """The ticket of its probe in the queue; older ones are void."""

    @property
    def down(self) -> bool:
        """Whether it is off the grid."""
        return self.health == "down"

    def state(self, bus: str) -> DeviceState:
        """A snapshot."""
        return DeviceState(
            self.name, bus, self.health, self.since, self.last_ok, self.last_error, self.polls, self.failures,
            self.overruns, self.seconds,
        )  # fmt: skip

    def without_values(self, reason: str) -> Iterator[Sample]:
        """That none of its points has a value now, and why."""
        quality = bad(reason)
        wall, mono = wall_us(), mono_us()
        for job in self.jobs:
            points = job.job.points
            bad_ones = dict.fromkeys(range(len(points)), quality)
            yield Sample(self.name, wall, mono, points, (None,) * len(points), bad_ones)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One job to schedule: which points of which device, how often, and where on its grid (0 to 1) it starts."""

    device: str
    points: Sequence[str]
    every: float
    phase: float = 0.0


@dataclass(slots=True)
class Load:
    """How much of its time a bus is busy, as an exponential average."""

    share: float = 0.0
    _at: float = 0.0
    _since: float = 0.0

    def begin(self, now: float) -> None:
        """Count from now on."""
        self._at = self._since = now

    def spend(self, began: float, now: float, concurrency: int) -> None:
        """One of `concurrency` ways was busy from `began` until `now`."""
        elapsed = max(now - self._at, 1e-6)
        weight = min(elapsed / min(_SMOOTHING, max(now - self._since, elapsed)), 1.0)
        busy = min((now - began) / elapsed, 1.0) / concurrency
        self.share += weight * (busy - self.share)
        self._at = now
