"""How much of each bus's time a configuration will take, before anything is connected."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.adapter import Bus, load_adapter
from edged.config.base import BusConfig, DeviceConfig
from edged.config.lint import Nodes
from edged.config.model import Config
from edged.config.problems import Mark, Report
from edged.config.secrets import placed
from edged.config.types import Duration
from edged.errors import ConfigError

FULL = 0.8
"""Beyond this share of its time a bus has no room for a retry or for a device that does not answer."""

_SPEEDS = (2400, 4800, 9600, 19200, 38400, 57600, 115200)
_PERIODS = (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)


@dataclass(frozen=True, slots=True)
class BusLoad:
    """What polling one bus takes when everything answers."""

    bus: str
    devices: int
    points: int
    readings: float
    """Per second."""
    polls: float
    """Per second."""
    transactions: float
    """Per second."""
    load: float
    """Seconds of the bus's time per second; 0 where the medium is not shared or the adapter does not say."""
    round: float
    """Seconds that reading everything once takes."""
    every: tuple[float, ...]
    """The periods that were asked for, shortest first."""
    line: str = ""
    """The line it runs on, for people; empty where that is not what limits it."""
    unknown: tuple[str, ...] = ()
    """Devices that say only when they are asked what there is to read: their load is not in it."""


def predict(config: Config, nodes: Nodes, report: Report, base: Path) -> list[BusLoad]:
    """The load of each enabled bus that has devices. What the adapters refuse goes into the report.

    `base` is the configuration's folder.
    """
    return asyncio.run(_predict(config, nodes, report, base))


async def _predict(config: Config, nodes: Nodes, report: Report, base: Path) -> list[BusLoad]:
    loads = []
    for name, settings in config.buses.items():
        devices = {device: placed(one, base) for device, one in config.devices_on(name).items()}
        if not (settings.enabled and devices):
            continue
        mark, path, here = nodes["buses", name].key.mark, f"buses.{name}", placed(settings, base)
        try:
            one = await _measured(name, here, devices, nodes, report)
        except ConfigError as exc:
            report.error(mark, path, str(exc))
            continue
        loads.append(one)
        if one.load > FULL:
            _judge(one, mark, path, await _remedy(one, here, devices, nodes), report)
    return loads


async def _measured(
    name: str, settings: BusConfig, devices: dict[str, DeviceConfig], nodes: Nodes, report: Report
) -> BusLoad:
    """The load of one bus. Raises ConfigError."""
    bus = load_adapter(settings.adapter).open(name, settings, devices)
    try:
        return dataclasses.replace(_load_of(name, bus, devices, nodes, report), line=_line(settings))
    finally:
        await bus.close()


def groups(device: DeviceConfig) -> dict[float, list[str]]:
    """The points of a device by how often they are read."""
    found: dict[float, list[str]] = {}
    for point, settings in device.points.items():
        found.setdefault(float(settings.every or device.every), []).append(str(point))
    return found or {float(device.every): []}  # a device that says itself which points it has


def _load_of(name: str, bus: Bus, devices: dict[str, DeviceConfig], nodes: Nodes, report: Report) -> BusLoad:
    readings = polls = transactions = load = whole = 0.0
    periods: set[float] = set()
    for device, config in devices.items():
        for every, points in groups(config).items():
            readings, polls = readings + len(points) / every, polls + 1 / every
            periods.add(every)
            try:
                requests = bus.plan(bus.prepare(device, points)).requests
            except ConfigError as exc:
                report.error(nodes["devices", device].key.mark, f"devices.{device}", str(exc))
                continue
            seconds = sum(request.seconds for request in requests) / max(bus.concurrency, 1)
            transactions += len(requests) / every
            load, whole = load + seconds / every, whole + seconds
    count = sum(len(config.points) for config in devices.values())
    unknown = tuple(str(device) for device, config in devices.items() if not config.points)
    return BusLoad(
        name, len(devices), count, readings, polls, transactions, load, whole, tuple(sorted(periods)), unknown=unknown
    )


def _judge(one: BusLoad, mark: Mark, path: str, remedy: str, report: Report) -> None:
    asked = _seconds(one.every)
    if len(one.every) == 1:
        message = f"{one.round:.3g} s per round{one.line}, you asked {asked}"
    else:
        message = f"{one.load:.3g} s of bus time{one.line} for every second at the periods you asked ({asked})"
    if one.load > 1:
        report.error(mark, path, f"impossible rate: {message}: {remedy}")
    else:
        report.warning(mark, path, f"{message}, which leaves little room for retries: {remedy}")


def _line(settings: BusConfig) -> str:
    """The speed and form of characters as people say it: ` at 9600 8E1`; empty where there is no line."""
    speed: Any = getattr(settings, "baudrate", None)
    if not isinstance(speed, int):
        return ""
    parts = [getattr(settings, name, None) for name in ("bytesize", "parity", "stopbits")]
    if None in parts:
        return f" at {speed} baud"
    return f" at {speed} {parts[0]}{str(parts[1])[:1].upper()}{parts[2]:g}"


async def _remedy(one: BusLoad, settings: Any, devices: dict[str, DeviceConfig], nodes: Nodes) -> str:
    """What would make it fit: a faster line, or longer periods."""
    remedies = []
    speed: Any = getattr(settings, "baudrate", None)
    for faster in _SPEEDS if isinstance(speed, int) else ():
        if faster <= speed:
            continue
        there = await _measured(one.bus, dataclasses.replace(settings, baudrate=faster), devices, nodes, Report())
        if there.load <= FULL:
            remedies.append(f"`baudrate: {faster}`")
            break
    if len(one.every) == 1:
        fits = next((period for period in _PERIODS if one.round <= FULL * period), None)
        remedies.append(f"`every: {Duration(fits)}`" if fits else "fewer devices on this bus")
    else:
        remedies.append(f"periods {one.load / FULL:.2g} times as long")
    return f"use {', or '.join(remedies)}"


def _seconds(every: Sequence[float]) -> str:
    return ", ".join(str(Duration(period)) for period in every[:4]) + (", …" if len(every) > 4 else "")  # noqa: PLR2004  # enough to recognise them
