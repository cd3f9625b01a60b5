"""`edged simulate`: the devices of a configuration without the devices."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import click

from edged import paths
from edged.errors import ConfigError

if TYPE_CHECKING:
    from edged.adapter import Simulator
    from edged.config.model import Config
    from edged.testing.line import Line

_FOREIGN_REQUEST = bytes.fromhex("010300000001840a")
"""A Modbus RTU request for one register of unit 1, as a second master sends it."""
_FOREIGN_EVERY = 0.3


@click.command(short_help="Serve the devices of a configuration as simulated ones.")
@click.argument("config", required=False, type=click.Path(dir_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other waveforms.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="BUS=FAULT[:SHARE]",
    help="Let a serial line go wrong, always or in a share of its answers, as in line-a=corrupted:5%. Can be repeated.",
)
@click.option("--unpaced", is_flag=True, help="Let serial lines take no time, instead of that of their baud rate.")
@click.option("--for", "duration", metavar="TIME", help="Stop by itself after this time, such as 20s.")
@click.option("--state", metavar="DIR", help="Folder for caches.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def simulate(
    config: str | None,
    host: str,
    seed: int,
    faults: tuple[str, ...],
    unpaced: bool,
    duration: str | None,
    state: str | None,
    as_json: bool,
) -> None:
    """Serve the devices of a configuration as simulated ones, with waveforms, on real sockets.

    Buses whose host is a loopback address are served exactly there, so that `edged run` with the same file polls the
    simulation. The others are served on --host, at their own port if it is free. Serial lines are served on pseudo
    terminals at the pace of a real line; a port that is a path outside /dev is made to lead there.

    Faults of a serial line: noise-before, noise-inside, noise-after, corrupted, truncated, dropped, paused, late, dead,
    twice, duplicate-unit, wrong-baud, wrong-parity, swapped, echo, second-master.
    """
    from edged.config.compiled import load_compiled  # `edged --help` must not pay for it
    from edged.config.types import Duration

    try:
        seconds = None if duration is None else float(Duration.parse(duration))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--for") from None
    file = paths.config_path(config)
    loaded = load_compiled(file, paths.state_dir(state) / "cache")
    if not any(loaded.devices_on(name) for name, bus in loaded.buses.items() if bus.enabled):
        raise ConfigError(f"{file} has no enabled device on an enabled bus, so there is nothing to simulate")
    wanted = [_parse_fault(text, loaded) for text in faults]
    asyncio.run(_serve(loaded, host, seed, seconds, wanted, unpaced=unpaced, as_json=as_json))


@dataclass(frozen=True, slots=True)
class _Fault:
    """One `--fault`."""

    bus: str
    name: str
    share: float


def _parse_fault(text: str, config: Config) -> _Fault:
    """From `line-a=corrupted:5%`. Raises BadParameter."""
    from edged.testing.line import FAULTS

    bus, _, rest = text.partition("=")
    name, _, share = rest.partition(":")
    known = [*FAULTS, "echo", "second-master"]
    if bus not in config.buses:
        raise click.BadParameter(f"{text!r}: there is no bus {bus!r}; write BUS=FAULT", param_hint="--fault")
    if name not in known:
        raise click.BadParameter(f"{text!r}: the faults are {', '.join(known)}", param_hint="--fault")
    try:
        part = float(share.removesuffix("%")) / 100 if share else 1.0
    except ValueError:
        part = 0.0
    if not 0 < part <= 1:
        raise click.BadParameter(f"{text!r}: a share is written 5%, up to 100%", param_hint="--fault")
    return _Fault(bus, name, part)


@runtime_checkable
class HasLines(Protocol):
    """A simulator of serial lines."""

    lines: dict[str, Line]


def _spoil(simulators: Iterable[Simulator], faults: Iterable[_Fault], *, unpaced: bool) -> list[Callable[[], None]]:
    """Give the lines their faults. Returns what is to be called again and again. Raises ConfigError."""
    from edged.testing.line import FAULTS, sometimes

    lines = {bus: line for one in simulators if isinstance(one, HasLines) for bus, line in one.lines.items()}
    again: list[Callable[[], None]] = []
    chosen: dict[str, list[_Fault]] = {}
    for fault in faults:
        if fault.bus not in lines:
            raise ConfigError(f"--fault {fault.bus}={fault.name}: {fault.bus} is not a serial line")
        if fault.name == "echo":
            lines[fault.bus].echo = True
        elif fault.name == "second-master":
            again.append(partial(lines[fault.bus].second_master, _FOREIGN_REQUEST))
        else:
            chosen.setdefault(fault.bus, []).append(fault)
    for bus, of_bus in chosen.items():
        share = max(fault.share for fault in of_bus)
        lines[bus].fault = sometimes(share, *(FAULTS[fault.name] for fault in of_bus))
    for line in lines.values() if unpaced else ():
        line.unpace()
    return again


async def _repeat(actions: Iterable[Callable[[], None]]) -> None:
    while True:
        await asyncio.sleep(_FOREIGN_EVERY)
        for action in actions:
            action()


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


async def _serve(
    config: Config,
    host: str,
    seed: int,
    seconds: float | None,
    faults: Iterable[_Fault],
    *,
    unpaced: bool,
    as_json: bool,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        simulators = await start_simulators(stack, config, host, seed)
        repeating = asyncio.create_task(_repeat(_spoil(simulators, faults, unpaced=unpaced)), name="second master")
        stack.callback(repeating.cancel)
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
