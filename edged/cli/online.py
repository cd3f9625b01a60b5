"""The question of `edged check --online`: does every device answer? Polls each once and writes nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edged.cli import NoDaemonError, client
from edged.errors import EdgedError

if TYPE_CHECKING:
    from edged.config.model import Config


@dataclass(frozen=True, slots=True)
class Answer:
    """What one device said."""

    device: str
    bus: str
    ok: bool
    """It answered, and every point has a good value."""
    points: int = 0
    bad: tuple[str, ...] = ()
    """Points without a good value, each with the reason."""
    error: str = ""
    """Why nothing came at all."""
    milliseconds: float = 0.0


def ask_all(config: Config, folder: Path, socket: Path) -> tuple[list[Answer], str]:
    """The answers of all enabled devices, and how they were asked, for people.

    The running gateway is asked, since the buses are its own; without one the buses are opened here.
    """
    devices = [
        (str(name), str(device.bus))
        for bus, settings in config.buses.items()
        if settings.enabled
        for name, device in config.devices_on(bus).items()
    ]
    try:
        client.call(socket, "/v1/status")
    except NoDaemonError:
        return asyncio.run(_direct(config, folder)), "polled from here; no gateway runs"
    return [_through_daemon(socket, device, bus) for device, bus in devices], "polled by the running gateway"


def _through_daemon(socket: Path, device: str, bus: str) -> Answer:
    began = time.monotonic()
    try:
        results = client.call(socket, f"/v1/read/{quote(device)}", method="POST")
    except EdgedError as exc:
        return Answer(device, bus, ok=False, error=str(exc))
    return _judged(device, bus, results, began)


async def _direct(config: Config, folder: Path) -> list[Answer]:
    buses = [name for name, settings in config.buses.items() if settings.enabled and config.devices_on(name)]
    found = await asyncio.gather(*(_one_bus(config, name, folder) for name in buses))
    return [answer for answers in found for answer in answers]


async def _one_bus(config: Config, name: str, folder: Path) -> list[Answer]:
    from edged.adapter import load_adapter  # only when asked for
    from edged.config.secrets import filled

    devices = config.devices_on(name)
    try:
        settings = filled(config.buses[name], base=folder)
        bus = load_adapter(settings.adapter).open(
            name, settings, {device: filled(one, base=folder) for device, one in devices.items()}
        )
    except EdgedError as exc:
        return [Answer(str(device), name, ok=False, error=str(exc)) for device in devices]
    try:
        return [await _one_device(bus, name, str(device), one) for device, one in devices.items()]
    finally:
        await bus.close()


async def _one_device(bus: Any, name: str, device: str, config: Any) -> Answer:
    from edged.control import poll_record  # as above
    from edged.pipeline import DevicePipeline

    pipeline, began = DevicePipeline(config.points), time.monotonic()
    try:
        result = await bus.poll(bus.prepare(device, [str(point) for point in config.points]), raw=True)
    except EdgedError as exc:
        return Answer(device, name, ok=False, error=str(exc))
    result = replace(result, samples=[pipeline.compute(sample) for sample in result.samples])
    return _judged(device, name, [poll_record(result)], began)


def _judged(device: str, bus: str, results: list[dict[str, Any]], began: float) -> Answer:
    samples = [sample for result in results for sample in result["samples"]]
    points = sum(len(sample["values"]) for sample in samples)
    bad = tuple(
        f"{point} {quality}"
        for sample in samples
        for point, quality in sample.get("quality", {}).items()
        if str(quality).startswith("bad")
    )
    took = 1000 * (time.monotonic() - began)
    error = "" if points else "it answered, but with no value"
    return Answer(device, bus, bool(points) and not bad, points, bad, error, round(took, 1))


def table(answers: list[Answer]) -> list[str]:
    """The answers as lines of text."""
    wide = max([len("device"), *(len(one.device) for one in answers)])
    bus = max([len("bus"), *(len(one.bus) for one in answers)])
    lines = [f"  {'device':<{wide}}  {'bus':<{bus}}  {'':<6}  {'ms':>7}  points"]
    for one in answers:
        word = "ok" if one.ok else "silent" if one.error else "BAD"
        detail = one.error or f"{one.points}" + (f", {len(one.bad)} bad: {', '.join(one.bad[:3])}" if one.bad else "")
        more = ", …" if len(one.bad) > 3 else ""  # noqa: PLR2004  # as many as are shown
        took = f"{one.milliseconds:,.1f}" if not one.error else "-"
        lines.append(f"  {one.device:<{wide}}  {one.bus:<{bus}}  {word:<6}  {took:>7}  {detail}{more}")
    return lines
