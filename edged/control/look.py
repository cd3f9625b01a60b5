"""A closer look at the running gateway: the frames of a bus, the way of a value, and what `edged top` shows.

GET  /v1/trace/BUS               the frames kept, one JSON object a line, after one that describes the bus; ?follow=1
POST /v1/explain/DEVICE/POINT    read it, and tell each step to its value, whether it is stored, and sent (JSON)
GET  /v1/top                     the status, what waits for each connection, and the budget of each bus (JSON)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import orjson

from edged.adapter import Bus, Explains, PollResult, Step, Traced, load_adapter
from edged.buffer.log import Buffer
from edged.clock import iso, mono_us, wall_us
from edged.config.base import DeviceConfig, PointConfig
from edged.config.model import Config
from edged.errors import ConfigError, TransientError
from edged.hub import Hub
from edged.media import Frame, FrameRing
from edged.model import Sample
from edged.pipeline import DevicePipeline

from .records import sample_record

_QUEUED = 10_000
"""Most pieces that wait for a client who follows; the oldest go first, and it is told."""
_SHOWN = 3
"""So many values of a device are on the screen."""
_PATIENCE = 5.0
"""Seconds to wait for a disk."""
_ALIVE = 1.0
"""How often it is asked whether a bus that is followed is still the same, seconds."""
_WINDOWS = (10, 120, 1800)
"""So many seconds back is looked for what was stored of a point, the shortest first."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a closer look needs."""

    config: Callable[[], Config]
    bus: Callable[[str], Bus | None]
    """The open bus of this name."""
    read: Callable[[str], Awaitable[list[PollResult]]]
    """Not scaled. Raises KeyError, TransientError."""
    buffer: Callable[[], Buffer]
    status: Callable[[], Mapping[str, Any]]
    hub: Hub

    # -- frames ------------------------------------------------------------------------------------------------------

    def trace(self, name: str, *, follow: bool) -> AsyncIterator[bytes]:
        """What the rings of a bus hold, and what comes. Raises KeyError, ConfigError if it keeps none."""
        config = self.config().buses[name]
        bus = self.bus(name)
        if not isinstance(bus, Traced):
            what = "is not open" if bus is None else f"keeps no frames: the adapter {config.adapter!r} has none"
            raise ConfigError(f"{name} {what}")
        alive = (lambda: self.bus(name) is bus) if follow else None
        return _frames(line_record(self.config(), name), list(bus.rings), alive)

    def labelled(self, device: str, labels: Mapping[str, str]) -> bool:
        """Whether a device has all these labels."""
        config = self.config().devices.get(device)
        return config is not None and labels.items() <= config.labels.items()

    # -- a value -----------------------------------------------------------------------------------------------------

    async def explain(self, device: str, point: str) -> dict[str, Any]:
        """Each step to a value. Raises KeyError for what is not configured, TransientError."""
        config = self.config().devices[device]
        settings = config.points[point]  # type: ignore[index]  # a Name is a str
        results = await self.read(device)
        sample, index = _holding(results, point)
        raw = [each for result in results for each in result.raw]
        adapter = load_adapter(self.config().buses[config.bus].adapter)
        steps = list(adapter.explain(config, point, raw)) if isinstance(adapter, Explains) else _as_read(sample, index)
        alone = replace(sample, points=(point,), values=(sample.values[index],), quality=_quality_of(sample, index))
        steps += pipeline_steps(settings, alone)
        final = DevicePipeline({point: settings}).compute(alone)
        stored = await self._stored(device, point, settings)
        return {
            "device": device,
            "point": point,
            "unit": settings.unit,
            "time": iso(final.time),
            "value": final.values[0],
            "quality": str(final.quality[0]) if final.quality else "good",
            "raw": [asdict(each) for each in raw],
            "steps": [asdict(step) for step in steps],
            "stored": stored,
            "connections": self._sent(stored["seq"] if stored else None),
        }

    async def _stored(self, device: str, point: str, settings: PointConfig) -> dict[str, Any] | None:
        """The last stored reading of a point, if it can be found within its heartbeat."""
        buffer, now = self.buffer(), wall_us()
        with contextlib.suppress(TimeoutError, TransientError):  # then what is in the file already must do
            async with asyncio.timeout(_PATIENCE):
                await buffer.flush()
        for seconds in (*_WINDOWS, settings.heartbeat + _WINDOWS[0]):
            last: tuple[int, Sample] | None = None
            async for batch in buffer.history(now - int(seconds * 1e6), 2**62):
                for seq, sample in enumerate(batch.samples, batch.first):
                    if sample.device == device and point in sample.points:
                        last = seq, sample
            if last is not None:
                record = sample_record(last[1])
                quality = record.get("quality", {}).get(point, "good")
                return {"seq": last[0], "time": record["time"], "value": record["values"][point], "quality": quality}
        return None

    def _sent(self, seq: int | None) -> dict[str, str]:
        """What each connection made of that reading."""
        if seq is None:
            return {}
        found = {}
        for name in self.buffer().stats().connections:
            cursor = self.buffer().cursor(name)
            settled = seq <= cursor.low or any(first <= seq <= last for first, last in cursor.islands)
            found[str(name)] = "sent and confirmed" if settled else "waiting"
        return found

    # -- everything --------------------------------------------------------------------------------------------------

    async def top(self) -> dict[str, Any]:
        """The status, and beside it what only a look costs."""
        config, buffer = self.config(), self.buffer()
        waiting: dict[str, dict[str, Any] | None] = {}
        for name in buffer.stats().connections:
            try:
                waiting[str(name)] = asdict(await buffer.pending(name))
            except (KeyError, TransientError):
                waiting[str(name)] = None
        return {
            **self.status(),
            "waiting": waiting,
            "last": {name: _last_value(self.hub.latest.get(name)) for name in config.devices},
            "limits": {"max_bytes": int(config.buffer.max_bytes)},
            "budget": {name: self._budget(name) for name in config.buses if self.bus(name) is not None},
        }

    def _budget(self, name: str) -> float | None:
        """The share of its time that polling a bus should take; None where that is not known."""
        bus, load = self.bus(name), 0.0
        if bus is None:
            return None
        for device, config in self.config().devices_on(name).items():
            for every, points in _groups(config).items():
                try:
                    job = bus.prepare(device, points)
                except ConfigError:
                    return None
                load += sum(request.seconds for request in bus.plan(job).requests) / every
        return round(load / max(bus.concurrency, 1), 4) or None


def _last_value(sample: Sample | None) -> str:
    """The first values of a sample, for people."""
    if sample is None:
        return ""
    values = (
        f"{point}={sample.quality[i] if value is None else f'{value:.6g}' if isinstance(value, float) else value}"
        for i, (point, value) in enumerate(zip(sample.points[:_SHOWN], sample.values, strict=False))
    )
    return " ".join(values)


def line_record(config: Config, name: str) -> dict[str, Any]:
    """What one must know of a bus to understand its frames. Holds no secret."""
    bus = config.buses[name]
    timeouts = [float(getattr(device, "timeout", 1.0)) for device in config.devices_on(name).values()]
    return {
        "trace": 1,
        "bus": name,
        "adapter": bus.adapter,
        "character": getattr(bus, "character", 0.0),
        "baudrate": getattr(bus, "baudrate", 0) or 0,
        "parity": getattr(bus, "parity", "none"),
        "echo": getattr(bus, "echo", False),
        "timeout": min(timeouts, default=1.0),
        "offset": wall_us() - mono_us(),
    }


def piece_record(link: int, piece: Frame) -> dict[str, Any]:
    """Some bytes as one JSON object: time in µs on the monotonic clock."""
    return {"time": piece.time, "link": link, "direction": piece.direction, "data": piece.data.hex()}


def pipeline_steps(settings: PointConfig, sample: Sample) -> list[Step]:
    """What the pipeline does to a single value, step by step. Pure."""
    steps = []
    done: dict[str, Any] = {}
    for name in ("map", "scale", "offset", "decimals", "range"):
        chosen = getattr(settings, name)
        if chosen == getattr(PointConfig(), name):
            continue
        done[name] = chosen
        after = DevicePipeline({sample.points[0]: PointConfig(**done)}).compute(sample)
        quality = f", {after.quality[0]}" if after.quality else ""
        steps.append(Step(name, _TEXTS[name](chosen), f"{after.values[0]}{quality}"))
    if settings.deadband is not None:
        text = f"stored when it changes by {settings.deadband}, or after {settings.heartbeat}"
        steps.append(Step("deadband", text))
    return steps


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "map": lambda line: f"{list(line.raw)} becomes {list(line.to)}",
    "scale": lambda factor: f"× {factor:g}",
    "offset": lambda number: f"+ {number:g}",
    "decimals": lambda count: f"rounded to {count} decimals",
    "range": lambda limits: f"must lie within {limits[0]:g} and {limits[1]:g}",
}


def _as_read(sample: Sample, index: int) -> list[Step]:
    return [Step("read", "what the device yielded", str(sample.values[index]))]


def _holding(results: Sequence[PollResult], point: str) -> tuple[Sample, int]:
    for result in results:
        for sample in result.samples:
            if point in sample.points:
                return sample, sample.points.index(point)
    raise TransientError(f"the poll did not bring {point}")


def _quality_of(sample: Sample, index: int) -> dict[int, Any]:
    return {0: sample.quality[index]} if index in sample.quality else {}


def _groups(device: DeviceConfig) -> dict[float, list[str]]:
    found: dict[float, list[str]] = {}
    for point, settings in device.points.items():
        found.setdefault(float(settings.every or device.every), []).append(str(point))
    return found


async def _frames(
    head: Mapping[str, Any], rings: list[FrameRing], alive: Callable[[], bool] | None
) -> AsyncIterator[bytes]:
    """What the rings hold; with `alive` also what comes, as long as it says so."""
    queue: deque[tuple[int, Frame]] = deque(maxlen=_QUEUED)
    news, missed = asyncio.Event(), 0

    def hear(link: int, piece: Frame) -> None:
        nonlocal missed
        missed += len(queue) == _QUEUED
        queue.append((link, piece))
        news.set()

    with ExitStack() as stack:
        for link, ring in enumerate(rings) if alive else ():
            stack.callback(ring.listen(partial(hear, link)))
        yield orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE)
        kept = ((link, piece) for link, ring in enumerate(rings) for piece in ring.pieces())
        already = sorted(kept, key=lambda entry: entry[1].time)
        queue.clear()  # nothing else ran since the rings were copied: what is queued is in them
        for link, piece in already:
            yield orjson.dumps(piece_record(link, piece), option=orjson.OPT_APPEND_NEWLINE)
        while alive is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ALIVE):
                    await news.wait()
            news.clear()
            if missed:
                yield orjson.dumps({"missed": missed}, option=orjson.OPT_APPEND_NEWLINE)
                missed = 0
            while queue:
                yield orjson.dumps(piece_record(*queue.popleft()), option=orjson.OPT_APPEND_NEWLINE)
            if not alive():
                yield orjson.dumps({"ended": "the bus was opened anew, or is gone"}, option=orjson.OPT_APPEND_NEWLINE)
                return
