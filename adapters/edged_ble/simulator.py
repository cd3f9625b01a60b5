"""Simulated sensors: their advertisements, served as lines of a recording on a socket, to a bus with `replay`.

buses:
radio: {adapter: ble, replay: {file: "socket://127.0.0.1:15022"}}
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from edged.adapter import ConfigError, Simulator, Value
from edged.testing.waveforms import Waveform, seed_of, waveform

from .codecs.advert import Advertisement, Kind
from .codecs.layout import Field, Pattern
from .codecs.made import MAKERS, byte_map
from .config import SOCKET, BleBus, BleDevice
from .encode import raw_of
from .known import BYTES, KNOWN
from .recording import record

if TYPE_CHECKING:
    from .point import BlePoint

_RANGES: Mapping[str, tuple[float, float]] = {
    "°C": (15, 28), "%": (30, 60), "hPa": (990, 1030), "V": (2.6, 3.0), "ppm": (420, 1400), "dBm": (-20, 4),
    "g": (-1, 1), "lx": (0, 800),
}  # fmt: skip
"""Unit → what such a value usually is."""
_OTHERWISE = (0.0, 100.0)
_PERIOD = 120.0
_RSSI = -60
_MOST_EVERY, _LEAST_EVERY = 5.0, 0.2
"""Seconds between two advertisements of a sensor."""


@dataclass(slots=True)
class Sensor:
    """One simulated sensor."""

    make: Callable[[Mapping[str, Value], int], Advertisement]
    waves: Mapping[str, Waveform]
    every: float
    count: int = 0

    def advertisement(self, now: float) -> Advertisement:
        """The next one."""
        self.count += 1
        adv = self.make({name: wave(now) for name, wave in self.waves.items()}, self.count)
        return replace(adv, rssi=_RSSI - self.count % 4)


@dataclass(slots=True)
class _Simulation:
    """Satisfies `edged.adapter.Simulator`."""

    endpoints: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"connections": 0, "advertisements": 0})

    def state(self) -> Mapping[str, int]:
        """Counters."""
        return self.counts


@asynccontextmanager
async def simulation(
    buses: Mapping[str, tuple[BleBus, Mapping[str, BleDevice]]], host: str, seed: int
) -> AsyncIterator[Simulator]:
    """Serve the sensors of these buses. Those that replay a file need nothing. Raises ConfigError."""
    async with AsyncExitStack() as stack:
        made = _Simulation()
        for name, (bus, devices) in buses.items():
            if bus.replay is not None and bus.replay.endpoint is None:
                made.endpoints[name] = bus.replay.file
                continue
            where = bus.replay.endpoint if bus.replay is not None else None
            sensors = [sensor(name, device, spec, seed) for device, spec in devices.items()]
            try:
                server = await asyncio.start_server(partial(_serve, sensors, made.counts), *(where or (host, 0)))
            except OSError as exc:
                raise ConfigError(f"{name}: {(where or (host, 0))} cannot be served on: {exc.strerror}") from exc
            stack.callback(server.close)
            address, port = server.sockets[0].getsockname()[:2]
            made.endpoints[name] = f"{SOCKET}{address}:{port}"
        yield made


async def _serve(
    sensors: list[Sensor], counts: dict[str, int], _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    counts["connections"] += 1
    began = time.monotonic()
    due = dict.fromkeys(range(len(sensors)), began)
    try:
        while due:
            first = min(due, key=due.__getitem__)
            await asyncio.sleep(max(0.0, due[first] - time.monotonic()))
            due[first] += sensors[first].every
            line = record(sensors[first].advertisement(time.time()), time.monotonic() - began)
            writer.write(line.encode() + b"\n")
            await writer.drain()
            counts["advertisements"] += 1
    except OSError:  # the gateway has gone; it comes again
        return
    finally:
        writer.close()


def sensor(bus: str, device: str, spec: BleDevice, seed: int) -> Sensor:
    """The sensor of a device. Raises ConfigError when its advertisements cannot be made."""
    advertised = {str(name): spec.points[name] for name in spec.advertised if name not in spec.radio_points}
    every = min(max(float(spec.every), _LEAST_EVERY), _MOST_EVERY)
    # A sensor that is known by its name may have any address.
    address = spec.address or ":".join(f"{byte:02X}" for byte in seed_of(device).to_bytes(6, "big"))
    seeds = {name: seed_of(seed, bus, device, name) for name in advertised}
    if spec.connected or spec.bind_key is not None or (spec.decoder != BYTES and spec.decoder not in MAKERS):
        what = "connections" if spec.connected else "encryption" if spec.bind_key is not None else spec.decoder
        raise ConfigError(
            f"{device} cannot be simulated ({what}): give the bus a recording, `replay: {{file: …}}`, or leave the "
            f"device out, with `enabled: false`; {', '.join(MAKERS)} and `bytes` can be simulated"
        )
    if spec.decoder == BYTES:
        waves = {name: _wave(point, Kind(unit=point.unit), seeds[name]) for name, point in advertised.items()}
        return Sensor(partial(_bytes, spec, address, advertised), waves, every)
    known = KNOWN[spec.decoder]
    fields = {point.field or name: known.kind(point.field or name) or Kind() for name, point in advertised.items()}
    waves = {
        point.field or name: _wave(None, fields[point.field or name], seeds[name]) for name, point in advertised.items()
    }
    make = partial(_named, spec.name, MAKERS[spec.decoder], address)
    try:
        make({name: wave(0.0) for name, wave in waves.items()}, 0)
    except ValueError as exc:
        raise ConfigError(f"{device} cannot be simulated: {exc}") from exc
    return Sensor(make, waves, every)


def _named(
    name: str,
    make: Callable[[str, Mapping[str, Value], int], Advertisement],
    address: str,
    values: Mapping[str, Value],
    packet: int,
) -> Advertisement:
    return replace(make(address, values, packet), name=name or None)


def _bytes(
    spec: BleDevice, address: str, points: Mapping[str, BlePoint], values: Mapping[str, Value], packet: int
) -> Advertisement:
    """An advertisement as the configuration describes it."""
    data = spec.data
    if data is None:
        raise ConfigError("`decoder: bytes` needs `data`")  # the configuration has been checked for it
    number = None if data.packet is None else Field(data.packet.at, data.packet.type, data.packet.order)
    placed = []
    for name, point in points.items():
        raw = raw_of(replace(point, enum={}), values[name])
        placed.append((point.layout, min(point.enum) if point.enum else raw))
    adv = byte_map(
        address,
        placed,
        company=data.company,
        service=data.service,
        length=data.lengths.stop - 1 if data.lengths is not None else None,
        patterns=[Pattern.parse(one.at, one.hex) for one in data.match],
        packet=None if number is None else (number, packet % 251),
    )
    return replace(adv, name=spec.name or None)


def _wave(point: BlePoint | None, kind: Kind, seed: int) -> Waveform:
    if kind.type == "boolean":
        return waveform("square", 0, 1, period=_PERIOD, seed=seed)
    low, high = _RANGES.get(kind.unit, _OTHERWISE)
    if point is not None and point.range is not None:
        low, high = max(low, point.range[0]), min(high, point.range[1])
        low, high = (low, high) if low < high else point.range
    return waveform("sine", low, high, period=_PERIOD, seed=seed)
