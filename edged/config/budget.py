"""How much of each bus's time a configuration will take, before anything is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from edged.adapter import Bus, load_adapter
from edged.config.base import DeviceConfig
from edged.config.lint import Nodes
from edged.config.model import Config
from edged.config.problems import Mark, Report
from edged.config.types import Duration
from edged.errors import ConfigError

FULL = 0.8
"""Beyond this share of its time a bus has no room for a retry or for a device that does not answer."""


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


def predict(config: Config, nodes: Nodes, report: Report) -> list[BusLoad]:
    """The load of each enabled bus that has devices. What the adapters refuse goes into the report."""
    return asyncio.run(_predict(config, nodes, report))


async def _predict(config: Config, nodes: Nodes, report: Report) -> list[BusLoad]:
    loads = []
    for name, settings in config.buses.items():
        devices = config.devices_on(name)
        if not (settings.enabled and devices):
            continue
        mark, path = nodes["buses", name].key.mark, f"buses.{name}"
        try:
            bus = load_adapter(settings.adapter).open(name, settings, devices)
        except ConfigError as exc:
            report.error(mark, path, str(exc))
            continue
        try:
            one = _load_of(name, bus, devices, nodes, report)
        finally:
            await bus.close()
        loads.append(one)
        _judge(one, mark, path, report)
    return loads


def groups(device: DeviceConfig) -> dict[float, list[str]]:
    """The points of a device by how often they are read."""
    found: dict[float, list[str]] = {}
    for point, settings in device.points.items():
        found.setdefault(float(settings.every or device.every), []).append(str(point))
    return found


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
    return BusLoad(name, len(devices), count, readings, polls, transactions, load, whole, tuple(sorted(periods)))


def _judge(one: BusLoad, mark: Mark, path: str, report: Report) -> None:
    if one.load <= FULL:
        return
    asked = _seconds(one.every)
    if len(one.every) == 1:
        message = f"{one.bus} needs {one.round:.3g} s per round; you asked {asked}"
    else:
        message = f"{one.bus} needs {one.load:.3g} s of bus time for every second at the periods you asked ({asked})"
    if one.load > 1:
        report.error(mark, path, f"impossible rate: {message}; read less often, or fewer points")
    else:
        report.warning(mark, path, f"{message}, which leaves little room for retries")


def _seconds(every: Sequence[float]) -> str:
    return ", ".join(str(Duration(period)) for period in every[:4]) + (", …" if len(every) > 4 else "")  # noqa: PLR2004  # enough to recognise them
