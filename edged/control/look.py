"""A closer look at the running gateway: the frames of a bus, the way of a value, and what `edged top` shows.

GET  /v1/trace/BUS               the frames kept, one JSON object a line, after one that describes the bus; ?follow=1
POST /v1/explain/DEVICE/POINT    read it, and tell each step to its value, whether it is stored, and sent (JSON)
GET  /v1/top                     the status, what waits for each connection, and the budget of each bus (JSON)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import orjson

from edged.adapter import Bus, PollResult, Traced, load_adapter
from edged.buffer.log import Buffer
from edged.clock import mono_us, wall_us
from edged.config.base import DeviceConfig, PointConfig
from edged.config.model import Config
from edged.config.types import Name
from edged.errors import ConfigError, TransientError
from edged.hub import Hub
from edged.media import Frame, FrameRing
from edged.model import Sample

from .explaining import explanation, settings_of
from .records import sample_record

_QUEUED = 10_000
"""Most pieces that wait for a client who follows; the oldest go first, and it is told."""
_SHOWN = 3
"""So many values of a device are on the screen."""
_NAMED = 20
"""Most names in a message."""
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
        return _frames(line_record(self.config(), name, bus.rings), list(bus.rings), alive)

    def labelled(self, device: str, labels: Mapping[str, str]) -> bool:
        """Whether a device has all these labels."""
        config = self.config().devices.get(device)
        return config is not None and labels.items() <= config.labels.items()

    def points(self, device: str) -> Mapping[Name, PointConfig]:
        """The points of a device, as configured."""
        config = self.config().devices.get(device)
        return {} if config is None else config.points

    def buses(self) -> str:
        """The names of the buses, for a message."""
        return ", ".join(self.config().buses) or "none"

    def nearest(self, device: str, point: str = "") -> str:
        """What to say to who asked for a device or point that there is not."""
        config = self.config().devices.get(device)
        if config is None:
            return f"there is no device {device!r}{_hint(device, self.config().devices)}"
        if not config.enabled or self.bus(config.bus) is None:
            return f"{device}, or its bus {config.bus}, is switched off"
        return f"{device} has no point {point!r}{_hint(point, config.points)}"

    # -- a value -----------------------------------------------------------------------------------------------------

    async def explain(self, device: str, point: str) -> dict[str, Any]:
        """Each step to a value. Raises KeyError for what is not configured, TransientError."""
        config = self.config().devices[device]
        settings = settings_of(config, point)
        adapter = load_adapter(self.config().buses[config.bus].adapter)
        told = explanation(adapter, config, device, point, await self.read(device))
        stored = await self._stored(device, point, settings)
        return {**told, "stored": stored, "connections": await self._sent(stored["seq"] if stored else None)}

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

    async def _sent(self, seq: int | None) -> dict[str, str]:
        """What each connection made of that reading."""
        if seq is None:
            return {}
        buffer, found = self.buffer(), {}
        letters = await buffer.letters()
        for name in buffer.stats().connections:
            cursor = buffer.cursor(name)
            settled = seq <= cursor.low or any(first <= seq <= last for first, last in cursor.islands)
            refused = [one for one in letters if one.connection == name and one.first <= seq <= one.last]
            found[str(name)] = (
                f"refused by the receiver: {refused[-1].reason} (a dead letter)" if refused
                else "waiting" if not settled
                else "not waiting any more: confirmed, too old, or not meant for it" if self._chooses(name)
                else "sent and confirmed"
            )  # fmt: skip
        return found

    def _chooses(self, name: str) -> bool:
        """Whether a connection does not take every reading: then what is settled need not have been sent."""
        config = self.config()
        connection = config.connections.get(name)
        return bool(getattr(config, "flows", None)) or connection is None or connection.max_age > 0

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
            "last": {name: _last_values(self.hub.recent(name), one.points) for name, one in config.devices.items()},
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


def _hint(name: str, known: Collection[str]) -> str:
    """What may have been meant, or what there is."""
    from difflib import get_close_matches  # noqa: PLC0415  # only a mistake pays for it

    if close := get_close_matches(name, known, 1):
        return f"; did you mean {close[0]!r}?"
    listed = sorted(known)
    more = f", … ({len(listed)} in all)" if len(listed) > _NAMED else ""
    return f"; there are: {', '.join(listed[:_NAMED]) or 'none'}{more}"


def _last_values(samples: Sequence[Sample], order: Iterable[str]) -> str:
    """The values in the newest samples of a device, for people: those of its first points."""
    values: dict[str, str] = {}
    for sample in samples:
        for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True)):
            text = sample.quality.get(i) if value is None else f"{value:.6g}" if isinstance(value, float) else value
            values[point] = f"{point}={text}"
    first = [values[point] for point in order if point in values] or list(values.values())
    return " ".join(first[:_SHOWN])


def line_record(config: Config, name: str, rings: Iterable[FrameRing] = ()) -> dict[str, Any]:
    """What one must know of a bus to understand its frames. Holds no secret."""
    counted = [errors for ring in rings if ring.errors is not None and (errors := ring.errors()) is not None]
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
        "uart": {
            "framing": sum(one.framing for one in counted),
            "parity": sum(one.parity for one in counted),
            "overrun": sum(one.overrun for one in counted),
        },
    }


def piece_record(link: int, piece: Frame) -> dict[str, Any]:
    """Some bytes as one JSON object: time in µs on the monotonic clock."""
    return {"time": piece.time, "link": link, "direction": piece.direction, "data": piece.data.hex()}


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
