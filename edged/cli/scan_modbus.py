"""`edged scan modbus`: which units answer on a line or at a host, what they are, and their YAML."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged import paths
from edged.cli import EXIT_INTERRUPTED, EXIT_PROBLEM, client
from edged.errors import ConfigError

if TYPE_CHECKING:
    from edged.cli.survey import Survey


@click.command("modbus", short_help="Find Modbus devices on a line or at a host, and write their YAML.")
@click.argument("targets", metavar="PORT|HOST|BUS...", nargs=-1, required=True)
@click.option(
    "--unit", "units", multiple=True, metavar="UNITS", help="Such as 1-32,40. On a line 1-247, at a host 1-32."
)
@click.option(
    "--baud", "bauds", multiple=True, type=int, help="Speed of the line; may be repeated. Else the usual ones."
)
@click.option(
    "--parity", "parities", multiple=True, type=click.Choice(["none", "even", "odd"]), help="May be repeated."
)
@click.option("--tcp-port", "tcp_ports", default="502", show_default=True, help="At a host, such as 502,1502-1510.")
@click.option("--timeout", type=float, help="Seconds to wait for an answer. On a line 0.3, at a host 1.")
@click.option("--every-setting", is_flag=True, help="Go on with other speeds and parities where something answered.")
@click.option(
    "--write", "target_file", metavar="FILE", help="Write the YAML to a new file; never into one that exists."
)
@click.option("--config", metavar="FILE", help="The configuration that has the bus, and profiles beside it.")
@click.option("--direct", is_flag=True, help="Open the bus here, even if a gateway is running.")
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--state", metavar="DIR", help="Folder for caches.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def scan(  # one parameter an option
    targets: tuple[str, ...],
    units: tuple[str, ...],
    bauds: tuple[int, ...],
    parities: tuple[str, ...],
    tcp_ports: str,
    timeout: float | None,
    every_setting: bool,
    target_file: str | None,
    config: str | None,
    direct: bool,
    socket: str | None,
    state: str | None,
    as_json: bool,
) -> None:
    """Find Modbus devices on a serial PORT, at a HOST, or on a BUS of the configuration.

    Tries unit numbers, on a port at each speed and parity, and says of each unit that answers what it calls itself,
    and which profile fits. Nothing is ever written to a device. A bus that the running gateway has is scanned through
    it, between its polls and at its own speed. Ctrl-C ends it with what was found so far. Exit code 1 if that is
    nothing.
    """
    from edged.cli.explore import numbers  # `edged --help` must not pay for it
    from edged.cli.survey import Survey, Wanted

    if target_file is not None and Path(target_file).exists():
        raise click.BadParameter(f"{target_file} exists already; give another name", param_hint="--write")
    if timeout is not None and not 0 < timeout <= 10:  # noqa: PLR2004  # the range stated in the message
        raise click.BadParameter("above 0 and up to 10 seconds", param_hint="--timeout")
    wanted = Wanted(
        units=numbers(",".join(units), 0, 255, "--unit", "1-32 or 1,5,7"),
        bauds=bauds,
        parities=parities,
        tcp_ports=numbers(tcp_ports, 1, 65535, "--tcp-port", "502 or 502,1502-1510"),
        timeout=timeout,
        every_setting=every_setting,
    )
    survey = Survey(wanted, paths.socket_path(socket), direct=direct, tell=_silent if as_json else _tell)
    survey.add(targets, *_configuration(config, state, socket))
    interrupted = False
    try:
        asyncio.run(survey.run())
    except KeyboardInterrupt:
        interrupted = True
    _report(survey, target_file, interrupted=interrupted, as_json=as_json)
    if interrupted:
        raise SystemExit(EXIT_INTERRUPTED)
    if not survey.found:
        raise SystemExit(EXIT_PROBLEM)


def _configuration(config: str | None, state: str | None, socket: str | None) -> tuple[Any, Path]:
    """The configuration and its folder; nothing where none was named and there is no usual one."""
    from edged.cli.explore import load_config

    try:
        path = client.config_path(config, socket)
    except ConfigError:
        return None, Path()
    return load_config(path, state)


def _tell(text: str) -> None:
    click.echo(text)


def _silent(_text: str) -> None:
    pass


def _report(survey: Survey, target_file: str | None, *, interrupted: bool, as_json: bool) -> None:
    from edged.cli.survey_yaml import as_yaml

    snippet = as_yaml(survey.found)
    whole = target_file is not None and Path(target_file).absolute().parent.name != "conf.d"
    if target_file is not None and survey.found:
        _write(Path(target_file), as_yaml(survey.found, whole=whole, when=time.strftime("%Y-%m-%d")))
    if as_json:
        records = [one.record() for one in survey.found]
        report = {"found": records, "notes": survey.notes, "complete": not interrupted, "yaml": snippet}
        click.echo(json.dumps(report, indent=2))
        return
    for note in survey.notes:
        click.echo(f"note: {note}", err=True)
    if interrupted:
        click.echo("Stopped: this is what was found so far.", err=True)
    if not survey.found:
        click.echo("Nobody answered. Are the devices powered, A and B not swapped, the unit numbers within --unit?")
    elif target_file is None:
        click.echo(f"\n{snippet}", nl=False)
    else:
        click.echo(f"\nThe YAML is in {target_file}.")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise click.BadParameter(f"{path} cannot be written: {exc.strerror}", param_hint="--write") from None


__all__: Sequence[str] = ("scan",)
