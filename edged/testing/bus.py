"""A bus without a wire, for tests of the scheduler: devices that answer, are slow, or are silent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edged.adapter import Job, Plan, PollResult
from edged.clock import mono_us, wall_us
from edged.errors import TransientError
from edged.model import Sample, Value


@dataclass(frozen=True, slots=True)
class FakeJob:
    """What `FakeBus.prepare` returns."""

    device: str
    points: tuple[str, ...]


@dataclass(slots=True)
class FakeDevice:
    """How a device behaves; change it while the test runs."""

    seconds: float = 0.0
    """How long an answer takes."""
    silent: bool = False
    """Does not answer: every poll costs `timeout` and fails."""
    value: Value = 1
    timeout: float = 0.05
    polls: list[float] = field(default_factory=list)
    """The moments (loop time) at which it was polled or probed."""


class FakeBus:
    """Satisfies `edged.adapter.Bus`. Time passes as on a real bus; set `link_down` to take all of it away."""

    def __init__(self, devices: Mapping[str, FakeDevice], *, concurrency: int = 1) -> None:
        self.devices = devices
        self.concurrency = concurrency
        self.link_down = False
        self.busy = 0
        self.most_busy = 0
        self.closed = 0

    def prepare(self, device: str, points: Sequence[str]) -> FakeJob:
        """A job for these points."""
        return FakeJob(device, tuple(points))

    def plan(self, job: Job) -> Plan:  # noqa: ARG002  # the signature is the protocol's
        """Nothing is known of a fake's cost."""
        return Plan()

    async def poll(self, job: Job, *, probe: bool = False, raw: bool = False) -> PollResult:  # noqa: ARG002  # likewise
        """One sample with the device's value for every point. Raises TransientError as the device was told to."""
        device = self.devices[job.device]
        device.polls.append(asyncio.get_running_loop().time())
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            if self.link_down:
                raise TransientError("no connection to the fake bus", reason="unreachable")
            if device.silent:
                await asyncio.sleep(device.timeout)
                raise TransientError(f"no answer within {device.timeout}s", reason="timeout")
            await asyncio.sleep(device.seconds)
        finally:
            self.busy -= 1
        values = (device.value,) * len(job.points)
        return PollResult([Sample(job.device, wall_us(), mono_us(), job.points, values)])

    async def write(self, device: str, point: str, value: Value) -> None:  # noqa: ARG002  # a fake device has one value
        """Set the device's value."""
        self.devices[device].value = value

    async def close(self) -> None:
        """Count the calls."""
        self.closed += 1
