"""`edged simulate`: the devices of a configuration without the devices."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click

from edged import paths

if TYPE_CHECKING:
    from edged.adapter import Simulator
    from edged.config.model import Config


@click.command(short_help="Serve the devices of a configuration as simulated ones.")
@click.argument("config", required=False, type=click.Path(dir_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other waveforms.")
@click.option("--for", "duration", metavar="TIME", help="Stop by itself after this time, such as 20s.")
@click.option("--state", metavar="DIR", help="Folder for caches.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def simulate(  # one parameter an option
    config: str | None,
    host: str,
    seed: int,
    duration: str | None,
    state: str | None,
    as_json: bool,
) -> None:
    """Serve the devices of a configuration as simulated ones, with waveforms, on real sockets.

    Buses whose host is a loopback address are served exactly there, so that `edged run` with the same file polls the
    simulation. The others are served on --host, at their own port if it is free.
    """
    from edged.config.compiled import load_compiled  # `edged --help` must not pay for it
    from edged.config.types import Duration

    try:
        seconds = None if duration is None else float(Duration.parse(duration))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--for") from None
    loaded = load_compiled(paths.config_path(config), paths.state_dir(state) / "cache")
    asyncio.run(_serve(loaded, host, seed, seconds, as_json=as_json))


async def start_simulators(stack: AsyncExitStack, config: Config, host: str, seed: int) -> list[Simulator]:
    """Simulate every enabled bus until the stack closes. Raises ConfigError when an adapter cannot."""
    from edged.adapter import load_adapter  # as above

    buses: dict[str, dict[str, tuple[Any, Any]]] = {}
    for name, bus in config.buses.items():
        devices = config.devices_on(name)
        if bus.enabled and devices:
            buses.setdefault(bus.adapter, {})[name] = (bus, devices)
    return [
        await stack.enter_async_context(load_adapter(adapter).simulate(of_one_kind, host=host, seed=seed))
        for adapter, of_one_kind in buses.items()
    ]


async def _serve(config: Config, host: str, seed: int, seconds: float | None, *, as_json: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        simulators = await start_simulators(stack, config, host, seed)
        endpoints = {bus: where for simulator in simulators for bus, where in simulator.endpoints.items()}
        if as_json:
            click.echo(json.dumps({"endpoints": endpoints}))
        else:
            for bus, where in endpoints.items():
                devices = ", ".join(config.devices_on(bus))
                click.echo(f"{bus}: {where} serves {devices}")
            click.echo("Ctrl-C ends it.")
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            pass
        totals: dict[str, int] = {}
        for simulator in simulators:
            for name, count in simulator.state().items():
                totals[name] = totals.get(name, 0) + count
        record = {"seconds": round(time.monotonic() - began, 1), **totals}
        text = ", ".join(f"{name} {count}" for name, count in record.items())
        click.echo(json.dumps(record) if as_json else text)
