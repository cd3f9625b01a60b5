"""`edged init`: a first configuration, from what the machine has and what a person says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from edged import paths
from edged.cli import EXIT_INTERRUPTED

_SYS_BLUETOOTH = Path("/sys/class/bluetooth")
_PARITIES = click.Choice(["none", "even", "odd"])


@dataclass(slots=True)
class _Answers:
    """What goes into the file."""

    id: str
    timezone: str
    broker: str = ""
    lines: list[str] = field(default_factory=list)
    """Serial ports with Modbus RTU on them."""
    baudrate: int = 9600
    parity: str = "none"
    hosts: list[str] = field(default_factory=list)
    """Modbus TCP."""
    ble: bool = False
    scan: bool = False


@click.command(short_help="Write a first configuration, by asking or from options.")
@click.argument("file", required=False, default="edged.yaml", type=click.Path(dir_okay=False))
@click.option("--id", "gateway", metavar="NAME", help="Name of the gateway upstream. Else that of the machine.")
@click.option("--timezone", metavar="ZONE", help="Such as Europe/Berlin. Else that of the machine.")
@click.option("--broker", metavar="URL", help="MQTT broker, such as mqtts://broker.example.com.")
@click.option("--line", "lines", multiple=True, metavar="PORT", help="Serial port with Modbus RTU; may be repeated.")
@click.option("--baud", type=int, default=9600, show_default=True, help="Speed of the lines.")
@click.option("--parity", type=_PARITIES, default="none", show_default=True, help="Parity of the lines.")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="Host with Modbus TCP; may be repeated.")
@click.option("--ble/--no-ble", default=None, help="Listen for Bluetooth sensors. Else if there is a radio.")
@click.option("--scan/--no-scan", default=None, help="Look for Modbus devices on the lines and hosts now.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text; asks nothing.")
def init(  # one parameter an option
    file: str,
    gateway: str | None,
    timezone: str | None,
    broker: str | None,
    lines: tuple[str, ...],
    baud: int,
    parity: str,
    hosts: tuple[str, ...],
    ble: bool | None,
    scan: bool | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Write a first configuration to FILE, by asking or from options; never over a file that exists.

    Looks for serial ports, the name and time zone of the machine and a Bluetooth radio, and with --scan for Modbus
    devices. What it writes passes `edged check`, and explains itself.
    """
    from edged.cli.survey_yaml import gateway_id  # `edged --help` must not pay for it

    path = Path(file)
    if path.exists():
        raise click.BadParameter(f"{file} exists already; give another name", param_hint="FILE")
    has_radio = any(_SYS_BLUETOOTH.glob("hci*"))
    answers = _Answers(
        gateway or gateway_id(), timezone or _timezone(), broker or "", list(lines), baud, parity, list(hosts),
        has_radio if ble is None else ble, bool(scan),
    )  # fmt: skip
    if not yes and not as_json and sys.stdin.isatty():
        _ask(answers, gateway=gateway, timezone=timezone, broker=broker, scan=scan)
    found, notes, interrupted = _scan(answers, quiet=as_json) if answers.scan else ([], [], False)
    text = _text(answers, found)
    problems = _create(path, text)
    if as_json:
        record = {**asdict(answers), "file": file, "found": [one.record() for one in found], "notes": notes}
        click.echo(json.dumps(record, indent=2))
    else:
        for note in [*notes, *problems]:
            click.echo(f"note: {note}", err=True)
        click.echo(f"{file} is written. Next: edged check {file}, then edged run {file}")
    if interrupted:
        raise SystemExit(EXIT_INTERRUPTED)


def _ask(
    answers: _Answers, *, gateway: str | None, timezone: str | None, broker: str | None, scan: bool | None
) -> None:
    """What no option said."""
    from edged.config.types import Name  # as above
    from edged.media import list_ports

    if gateway is None:
        answers.id = click.prompt(
            "Name of this gateway, unique at its broker", default=answers.id, value_proc=_parsed(Name.parse)
        )
    if timezone is None:
        answers.timezone = click.prompt("Time zone", default=answers.timezone, value_proc=_parsed(_zone))
    if not answers.lines:
        for port in list_ports():
            if click.confirm(f"Are Modbus devices on {port}?", default=bool(port.vendor)):
                answers.lines.append(port.name)
        if answers.lines:
            answers.baudrate = click.prompt("Speed of the line", default=answers.baudrate)
            answers.parity = click.prompt("Parity of the line", default=answers.parity, type=_PARITIES)
    if not answers.hosts:
        hosts = click.prompt("Hosts with Modbus TCP, separated by spaces (Enter: none)", default="", show_default=False)
        answers.hosts = hosts.split()
    if scan is None and (answers.lines or answers.hosts):
        answers.scan = click.confirm("Look for devices there now? It only reads", default=True)
    if broker is None:
        url = "URL of the MQTT broker, such as mqtts://broker.example.com (Enter: later)"
        answers.broker = click.prompt(url, default="", show_default=False)


def _parsed(parse: Callable[[str], str]) -> Callable[[str], str]:
    """What click asks again for, with the reason, until it is good."""

    def value(text: str) -> str:
        try:
            return parse(text.strip())
        except ValueError as exc:
            raise click.UsageError(str(exc)) from None

    return value


def _zone(text: str) -> str:
    from edged.config.model import SiteConfig  # as above

    return SiteConfig(timezone=text).timezone


def _scan(answers: _Answers, *, quiet: bool) -> tuple[Sequence[Any], list[str], bool]:
    """The devices on the lines, at the speed given, and at the hosts."""
    from edged.cli.survey import Survey, Wanted

    wanted = Wanted(bauds=[answers.baudrate], parities=[answers.parity])
    survey = Survey(wanted, paths.socket_path(None), direct=False, tell=(lambda _: None) if quiet else click.echo)
    survey.add([*answers.lines, *answers.hosts], None, Path())
    try:
        asyncio.run(survey.run())
    except KeyboardInterrupt:
        return survey.found, survey.notes, True
    return survey.found, survey.notes, False


def _create(path: Path, text: str) -> list[str]:
    """Write the file if it passes the check; returns what the check warns of. Raises BadParameter, ClickException."""
    from edged.config.load import load  # as above

    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, "utf-8")
        problems = load(beside).problems
        if errors := [problem.message for problem in problems if problem.severity == "error"]:
            raise click.ClickException("; ".join(errors))
        os.link(beside, path)  # unlike a rename, never over another file
    except FileExistsError:
        raise click.BadParameter(f"{path} exists already; give another name", param_hint="FILE") from None
    except OSError as exc:
        raise click.BadParameter(f"{path} cannot be written: {exc.strerror}", param_hint="FILE") from None
    finally:
        beside.unlink(missing_ok=True)
    return [f"{problem.path}: {problem.message}" for problem in problems]


def _timezone() -> str:
    """The zone of this machine."""
    link = re.search(r"zoneinfo/(?:posix/)?(.+)$", os.path.realpath("/etc/localtime"))
    return os.environ.get("TZ", "").lstrip(":") or (link[1] if link else "UTC")


def _text(answers: _Answers, found: Sequence[Any]) -> str:
    """The file."""
    from edged.cli.explore import flow, scalar
    from edged.cli.survey_yaml import bus_lines, device_lines

    buses = bus_lines(found)
    written = {one.place.bus_config.port if hasattr(one.place.bus_config, "baudrate") else one.place.bus_config.host
               for one in found}  # fmt: skip
    number = len({one.place.bus for one in found if hasattr(one.place.bus_config, "baudrate")})
    for port in answers.lines:
        if port not in written:
            line = {"adapter": "modbus-rtu", "port": port, "baudrate": answers.baudrate, "parity": answers.parity}
            buses.append(f"  line-{string.ascii_lowercase[number % 26]}: {flow(line)}")
            number += 1
    buses += [f"  {_host_name(host)}: {flow({'adapter': 'modbus-tcp', 'host': host})}"
              for host in answers.hosts if host not in written]  # fmt: skip
    if answers.ble:
        buses.append("  radio: {adapter: ble}  # edged scan ble lists the sensors in range")
    return _TEMPLATE.format(
        gateway=f"{{id: {scalar(answers.id)}, site: {flow({'timezone': answers.timezone})}}}",
        buses="\n".join(buses) or "  # plc: {adapter: modbus-tcp, host: 192.0.2.10}",
        devices="\n".join(device_lines(found)) or "  # meter-1: {bus: plc, unit: 1, profile: eastron-sdm120}",
        connections=f"  cloud: {flow({'connector': 'mqtt', 'url': answers.broker})}"
        if answers.broker
        else '  # cloud: {connector: mqtt, url: "mqtts://broker.example.com", username: me, password: !secret mqtt}',
    )


def _host_name(host: str) -> str:
    return ("tcp-" + re.sub(r"[^A-Za-z0-9.-]", "-", host))[:64]


_TEMPLATE = """\
# Who this gateway is. The id must be unique among the gateways of one broker.
gateway: {gateway}

# The physical links: serial lines, hosts, radios.
buses:
{buses}

# What is read, and how often (`every`, else each second). A profile brings the points of a known type.
# What an unknown device has: edged scan modbus, edged probe, edged find.
devices:
{devices}

# Where the readings go. `edged check` says whether this file is right.
connections:
{connections}
"""
