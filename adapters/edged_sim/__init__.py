"""Devices without hardware: every point is a waveform. Also the template for a new adapter.

    buses:
      lab: {adapter: sim}
    devices:
      oven: {bus: lab, points: {temperature: {waveform: sine, low: 20, high: 180, period: 10m, unit: °C}}}

A new adapter needs no more than this file has: a point, a device and a bus class for the configuration, a `Bus` that
reads, an `Adapter` object, and one line under `edged.adapters` in the entry points of its package.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NoReturn

from edged.adapter import (
    STRICT,
    BusConfig,
    ConfigError,
    DeviceConfig,
    Duration,
    Name,
    PermanentError,
    Plan,
    PlanRequest,
    PointConfig,
    PollResult,
    RawRead,
    Reason,
    Sample,
    Simulator,
    Value,
)
from edged.testing.waveforms import Kind, Waveform, seed_of, waveform


@dataclass(frozen=True, kw_only=True)
class SimPoint(PointConfig):
    """A value that follows a waveform."""

    __pydantic_config__: ClassVar = STRICT

    waveform: Kind = "sine"
    """Its shape."""
    low: float = 0.0
    """Lowest value."""
    high: float = 100.0
    """Highest value."""
    period: Duration = Duration(60)
    """How long one turn takes; of a counter, one step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        waveform(self.waveform, self.low, self.high, period=self.period)


@dataclass(frozen=True, kw_only=True)
class SimDevice(DeviceConfig):
    """A device whose points are waveforms."""

    __pydantic_config__: ClassVar = STRICT

    points: dict[Name, SimPoint] = field(default_factory=dict)  # type: ignore[assignment]  # a narrower point type
    """Its values by name."""


@dataclass(frozen=True, kw_only=True)
class SimBus(BusConfig):
    """A bus that exists only in memory."""

    __pydantic_config__: ClassVar = STRICT

    latency: Duration = Duration(0)
    """How long a device takes to answer."""


_TURNS = 7_000_003
"""By up to a seventh of so many turns, waveforms of the same kind are ahead of each other."""


@dataclass(frozen=True, slots=True)
class _Job:
    device: str
    points: tuple[str, ...]
    waves: tuple[Waveform, ...]
    shifts: tuple[float, ...]
    """Seconds by which each waveform is ahead."""


class _Bus:
    """Satisfies `edged.adapter.Bus`."""

    concurrency = 1

    def __init__(self, name: str, config: SimBus, devices: Mapping[str, SimDevice]) -> None:
        self._name = name
        self._config = config
        self._devices = devices
        self._written: dict[tuple[str, str], Value] = {}
        self._shapes: dict[tuple[int, tuple[str, ...]], tuple[tuple[str, ...], tuple[Waveform, ...]]] = {}
        """What devices of one profile share: their points' names, and the waveforms."""

    def prepare(self, device: str, points: Sequence[str]) -> _Job:
        """Look the waveforms up once."""
        configs = self._devices[device].points
        key = id(configs), tuple(points)
        if key not in self._shapes:
            chosen = [configs[Name(point)] for point in points]
            waves = tuple(waveform(p.waveform, p.low, p.high, period=p.period) for p in chosen)
            self._shapes[key] = key[1], waves
        names, waves = self._shapes[key]
        shifts = (configs[Name(point)].period * (seed_of(self._name, device, point) % _TURNS) / 7 for point in points)
        return _Job(device, names, waves, tuple(shifts))

    def plan(self, job: _Job) -> Plan:
        """One request."""
        return Plan([PlanRequest(f"{len(job.points)} waveforms", float(self._config.latency))])

    async def poll(self, job: _Job, *, probe: bool = False, raw: bool = False) -> PollResult:  # noqa: ARG002  # as announced
        """The waveforms' values of now, or what was written."""
        if self._config.latency:
            await asyncio.sleep(self._config.latency)
        wall, mono = time.time_ns() // 1000, time.monotonic_ns() // 1000
        values: list[Value] = [wave(wall / 1e6 + shift) for wave, shift in zip(job.waves, job.shifts, strict=True)]
        if self._written:
            values = [
                self._written.get((job.device, point), value) for point, value in zip(job.points, values, strict=True)
            ]
        sample = Sample(job.device, wall, mono, job.points, values)
        return PollResult([sample], raw=[RawRead("waveforms")] if raw else ())

    async def write(self, device: str, point: str, value: Value) -> None:
        """Hold a point at a value, which is kept raw, as a device keeps it. Raises PermanentError."""
        config = self._devices[device].points.get(Name(point))
        if config is None or not config.writable:
            raise PermanentError(f"{device}/{point} is not writable", reason="not-writable")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise PermanentError(f"{device}/{point}: {value!r} is no number", reason=Reason.RANGE)
        if config.range is not None and not config.range[0] <= value <= config.range[1]:
            low, high = config.range
            raise PermanentError(f"{device}/{point}: {value:g} is outside {low:g} to {high:g}", reason=Reason.RANGE)
        self._written[device, point] = config.unscaled(value)

    async def close(self) -> None:
        """Nothing is open."""


class _Adapter:
    """Satisfies `edged.adapter.Adapter`."""

    bus_config = SimBus
    device_config = SimDevice

    def profiles(self) -> Path | None:
        """It ships none."""
        return None

    def open(self, name: str, config: SimBus, devices: Mapping[str, SimDevice]) -> _Bus:
        """A bus in memory."""
        return _Bus(name, config, devices)

    def simulate(
        self,
        buses: Mapping[str, tuple[SimBus, Mapping[str, SimDevice]]],
        *,
        host: str = "127.0.0.1",  # noqa: ARG002  # the signature is the protocol's
        seed: int = 0,  # noqa: ARG002  # likewise
    ) -> AbstractAsyncContextManager[Simulator]:
        """There is nothing to simulate."""
        return _refuse(", ".join(buses))


def _refuse(names: str) -> NoReturn:
    raise ConfigError(f"{names}: devices of the adapter `sim` are simulated already; run the configuration as it is")


SIM = _Adapter()
