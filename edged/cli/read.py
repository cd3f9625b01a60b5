"""`edged read`: one poll of one device, raw and decoded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from edged import paths
from edged.cli import EXIT_CONFIG, EXIT_PROBLEM, NoDaemonError, client
from edged.cli.plain import say
from edged.errors import ConfigError

if TYPE_CHECKING:
    from edged.adapter import PollResult
    from edged.config.model import Config


@click.command(short_help="Poll a device once and show raw registers and decoded values.")
@click.argument("target", metavar="DEVICE[/POINT]")
@click.option("--config", metavar="FILE", help="The configuration that describes it.")
@click.option("--direct", is_flag=True, help="Open the bus here, even if a gateway is running.")
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--state", metavar="DIR", help="Folder for caches.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def read(  # one parameter an option
    target: str,
    config: str | None,
    direct: bool,
    socket: str | None,
    state: str | None,
    as_json: bool,
) -> None:
    """Poll a device once and show raw registers and decoded values; of one point, if it is named.

    Asks the running gateway, which owns the bus; without one (or with --direct) it opens the bus itself, as CONFIG
    says. Exit code 1 if any value is bad.
    """
    from edged.config.compiled import load_compiled  # `edged --help` must not pay for it

    device, _, point = target.partition("/")
    results: list[dict[str, Any]] | None = None
    if not direct:
        try:
            results = client.call(paths.socket_path(socket), f"/v1/read/{quote(device)}", method="POST")
        except NoDaemonError as exc:
            try:
                paths.config_path(config)
            except ConfigError:
                raise exc from None
    if results is None:
        path = paths.config_path(config)
        results = _read_direct(load_compiled(path, paths.state_dir(state) / "cache"), device, path.resolve().parent)
    results = _only(results, device, point)
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        say(render_read(device, results))
    if any("quality" in sample for result in results for sample in result["samples"]):
        raise SystemExit(EXIT_PROBLEM)


def _only(results: list[dict[str, Any]], device: str, point: str) -> list[dict[str, Any]]:
    """What is told of one point, and the words that were read for it; all of it where none is named."""
    if not point:
        return results
    there = [name for result in results for sample in result["samples"] for name in sample["values"]]
    if point not in there:
        click.echo(f"edged: {device} has no point {point!r}; it has: {', '.join(there) or 'none'}", err=True)
        raise SystemExit(EXIT_CONFIG)
    return [
        {**result, "samples": samples}
        for result in results
        if (samples := [_point_of(sample, point) for sample in result["samples"] if point in sample["values"]])
    ]


def _point_of(sample: Mapping[str, Any], point: str) -> dict[str, Any]:
    kept = {**sample, "values": {point: sample["values"][point]}}
    quality = kept.pop("quality", {})
    return kept | ({"quality": {point: quality[point]}} if point in quality else {})


def _read_direct(config: Config, device: str, base: Path) -> list[dict[str, Any]]:
    """Open the bus, poll all points once, close it. Raises TransientError, ConfigError."""
    from edged.control import poll_record  # as above
    from edged.pipeline import DevicePipeline

    result = poll_directly(config, device, base)
    pipeline = DevicePipeline(config.devices[device].points)
    points = config.devices[device].points
    return [poll_record(replace(result, samples=[pipeline.compute(sample) for sample in result.samples]), points)]


def poll_directly(config: Config, device: str, base: Path) -> PollResult:
    """What one poll of a device yields, not scaled, on a bus of our own. Raises TransientError, ConfigError."""
    from edged.adapter import load_adapter  # as above
    from edged.config.secrets import filled

    if device not in config.devices:
        near = ", ".join(sorted(config.devices)) or "none"
        raise ConfigError(f"there is no device {device!r}; the configuration has: {near}")
    device_config = config.devices[device]
    bus_config = config.buses[device_config.bus]

    async def poll() -> PollResult:
        devices = {name: filled(one, base=base) for name, one in config.devices_on(device_config.bus).items()}
        devices[device] = filled(device_config, base=base)  # also if it is switched off
        bus = load_adapter(bus_config.adapter).open(device_config.bus, filled(bus_config, base=base), devices)
        try:
            return await bus.poll(bus.prepare(device, [str(point) for point in device_config.points]), raw=True)
        finally:
            await bus.close()

    return asyncio.run(poll())


def render_read(device: str, results: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Raw words, then values, as lines of text."""
    for result in results:
        units = result.get("units", {})  # a gateway that runs since before an upgrade does not tell them
        for raw in result["raw"]:
            yield f"{raw['what']}" + (f": {raw['error']}" if raw["error"] else "")
            for start in range(0, len(raw["words"]), 8):
                row = raw["words"][start : start + 8]
                words = "  ".join(f"{word:04X}" if not isinstance(word, bool) else str(int(word)) for word in row)
                yield f"  {raw['address'] + start:>5}  {words}"
        for note in result["notes"]:
            yield f"note: {note}"
        yield ""
        for sample in result["samples"]:
            width = max(map(len, sample["values"]), default=0)
            yield f"{device} at {sample['time']}"
            for point, value in sample["values"].items():
                quality = sample.get("quality", {}).get(point, "")
                text = "-" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
                yield f"  {point:<{width}}  {text} {units.get(point, '')}".rstrip() + (
                    f"  {quality}" if quality else ""
                )
