"""`edged write`: one value for one point, with the result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click

from edged import paths
from edged.cli import EXIT_CONFIG, EXIT_PROBLEM, client
from edged.cli.plain import say
from edged.config.types import Duration

if TYPE_CHECKING:
    from edged.adapter import Bus
    from edged.config.model import Config
    from edged.downlink.api import Command

_DONE = ("verified", "executed")


@click.command(short_help="Write a value to a point, read it back, and say what came of it.")
@click.argument("target", metavar="DEVICE/POINT")
@click.argument("value", required=False)
@click.option("--raw", metavar="HEX", help="Write these bytes as they go over the wire, instead of a value.")
@click.option("--expires", metavar="TIME", default="10s", show_default=True, help="Give up when not written by then.")
@click.option("--no-confirm", is_flag=True, help="Do not read the point back.")
@click.option("--id", "ident", metavar="ID", help="Name the command: the same id is never carried out twice.")
@click.option("--direct", is_flag=True, help="Open the bus here, without a gateway.")
@click.option("--config", metavar="FILE", help="With --direct: the configuration that describes the point.")
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--state", metavar="DIR", help="With --direct: folder for caches.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def write(  # one parameter an option
    target: str,
    value: str | None,
    raw: str | None,
    expires: str,
    no_confirm: bool,
    ident: str | None,
    direct: bool,
    config: str | None,
    socket: str | None,
    state: str | None,
    as_json: bool,
) -> None:
    """Write a value to a point, read it back, and say what came of it.

    VALUE is as the point shows it: scaled, or the word of an enum. Numbers, `true` and `false` are taken as such, all
    else as text; a text that looks like a number is written '"5"'. A negative value comes after `--`: write -- DEV/P -5

    The running gateway writes between two polls; a device that does not answer gets it when it does, if that is before
    it expires. The point must say `writable: true`.

    Exit codes: 0 verified, or executed; 1 it failed, expired or was rejected; 2 the command line is wrong; 3 no gateway
    runs.
    """
    device, _, point = target.partition("/")
    if not (device and point):
        raise click.BadParameter(f"{target!r}: write DEVICE/POINT", param_hint="DEVICE/POINT")
    if (value is None) == (raw is None):
        raise click.UsageError("give either a VALUE or --raw HEX")
    try:
        seconds = float(Duration.parse(expires))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--expires") from exc
    options = {
        "valid_for": f"{seconds:g}",
        **({"confirm": "0"} if no_confirm else {}),
        **({"id": ident} if ident else {}),
    }
    options |= {"value": value} if value is not None else {"raw": str(raw)}
    if direct:
        record = _direct(device, point, options, config, state)
    else:
        where = f"/v1/write/{quote(device, safe='')}/{quote(point, safe='')}?{urlencode(options)}"
        record = client.call(paths.socket_path(socket), where, method="POST", timeout=seconds + 60)
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        say([render_result(record)])
    if record["state"] not in _DONE:
        raise SystemExit(EXIT_PROBLEM)


def render_result(record: Mapping[str, Any]) -> str:
    """A result as one line: `chiller/setpoint: verified, reads 21.5`."""
    reason = f" ({record['reason']})" if record["reason"] else ""
    reads = f", reads {record['value']}" if record["value"] is not None else ""
    detail = f": {record['detail']}" if record["detail"] else ""
    waits = (
        "; it is carried out when the device answers, unless it expires first" if record["state"] == "accepted" else ""
    )
    return f"{record['point']}: {record['state']}{reason}{reads}{detail}{waits}"


def _direct(
    device: str, point: str, options: Mapping[str, str], config: str | None, state: str | None
) -> dict[str, Any]:
    """Open the bus, write, read back, close it. Raises ConfigError."""
    from edged.config.compiled import load_compiled  # `edged --help` must not pay for it
    from edged.control.commands import command_from

    path = paths.config_path(config)
    loaded = load_compiled(path, paths.state_dir(state) / "cache")
    try:
        command = command_from(device, point, {key: [text] for key, text in options.items()}, "")
    except ValueError as exc:
        click.echo(f"edged: {exc}", err=True)
        raise SystemExit(EXIT_CONFIG) from None
    return asyncio.run(_write_here(loaded, path.resolve().parent, command))


async def _write_here(config: Config, base: Path, command: Command) -> dict[str, Any]:
    from edged.adapter import load_adapter  # as above
    from edged.clock import mono_us, wall_us
    from edged.config.secrets import filled
    from edged.control.commands import result_record
    from edged.downlink.api import CommandResult, State
    from edged.downlink.execution import Alone, Ending, Execution
    from edged.downlink.rules import check_form, settings_of, wanted
    from edged.errors import PermanentError

    bus: Bus | None = None
    try:
        check_form(command)
        settings = settings_of(config.devices.get(command.device), command)
        name = config.devices[command.device].bus
        bus_config = filled(config.buses[name], base=base)
        devices = {one: filled(device, base=base) for one, device in config.devices_on(name).items()}
        bus = load_adapter(bus_config.adapter).open(name, bus_config, devices)
        until = mono_us() + round((command.valid_for or 0.0) * 1e6)
        expected = wanted(settings, bus, command)
        ending = await Execution(command, settings, Alone(bus), expected, lambda: (until - mono_us()) / 1e6).run()
    except PermanentError as exc:
        ending = Ending(State.REJECTED, str(exc.reason), str(exc))
    finally:
        if bus is not None:
            await bus.close()
    return result_record(
        CommandResult(
            id=command.id, device=command.device, point=command.point, state=ending.state, reason=ending.reason,
            detail=ending.detail, value=ending.read, time=wall_us(),
        )
    )  # fmt: skip
