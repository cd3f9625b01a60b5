"""`edged check` and `edged schema`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged.errors import ConfigError

if TYPE_CHECKING:
    from edged.cli.online import Answer
    from edged.config.budget import BusLoad
    from edged.config.cost import FlashCost, UplinkCost
    from edged.config.load import Loaded
    from edged.config.problems import Problem

EXIT_STRICT, EXIT_ERRORS = 1, 2


@click.command(short_help="Check a configuration and say everything that is wrong with it.")
@click.argument("config", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--online", is_flag=True, help="Also poll every device once. Nothing is written to any.")
@click.option("--socket", metavar="PATH", help="With --online: control socket of the running gateway.")
@click.option("--strict", is_flag=True, help="Exit with 1 when there are warnings.")
@click.option("--compile", "target", metavar="FILE", hidden=True, help="Write the compiled form; `-` is stdout.")
def check(  # one parameter an option
    config: str | None, as_json: bool, online: bool, socket: str | None, strict: bool, target: str | None
) -> None:
    """Check a configuration and say everything that is wrong with it.

    CONFIG is the YAML file; without it $EDGED_CONFIG or /etc/edged/edged.yaml. Nothing is connected to, unless --online
    is given: the load of each bus is predicted from the plan of its reads, what goes to the flash from measurements,
    what goes upstream from messages that are encoded for the purpose.

    Exit codes: 0 it can be used; 1 there are warnings and --strict was given, or a device does not answer --online;
    2 there are errors.
    """
    from edged import paths  # `edged --help` must not pay for what a command needs

    path = paths.config_path(config)
    if target is not None:
        sys.exit(_compile(path, target))
    from edged.config.load import load

    loaded = load(path, find_secrets=True)
    found = _predicted(loaded, path)
    failed = any(problem.severity == "error" for problem in found.problems)
    answers: list[Answer] | None = None
    how = ""
    if online and loaded.config is not None and not failed:
        from edged.cli.online import ask_all  # only when asked for

        answers, how = ask_all(loaded.config, path.resolve().parent, paths.socket_path(socket))
    if as_json:
        click.echo(json.dumps(_as_json(path, loaded, found, answers), indent=2, ensure_ascii=False))
    else:
        _print(path, loaded, found)
        if answers is not None:
            from edged.cli.online import table  # as above

            click.echo("\n".join([f"{how}:", *table(answers)]))
    silent = any(not answer.ok for answer in answers or ())
    sys.exit(EXIT_ERRORS if failed else EXIT_STRICT if silent or (strict and found.problems) else 0)


@click.command(short_help="Print the JSON Schema of the configuration, for editors.")
@click.option("--markdown", is_flag=True, help="Print the reference page instead.")
def schema(markdown: bool) -> None:  # click's way
    """Print the JSON Schema of the configuration, for editors.

    It covers the adapters and connectors that are installed with all they need.
    """
    from edged.config.schema import json_schema, reference  # only here

    text = reference() if markdown else json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    click.echo(text, nl=False)


def _compile(path: Path, target: str) -> int:
    """What a cold start of the daemon runs: problems to standard error, the compiled form to `target`."""
    from edged.config.compiled import compiled, store  # only here
    from edged.config.load import load

    # A package that prints while it is imported must not end up in the compiled form.
    with contextlib.redirect_stdout(sys.stderr):
        loaded = load(path)
        content = None if loaded.config is None else compiled(loaded.config, loaded.inputs)
    for problem in loaded.problems:
        click.echo(problem.render(), err=True)
    if content is None:
        return EXIT_ERRORS
    if target == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        try:
            store(Path(target), content)
        except OSError as exc:
            raise ConfigError(f"{target} cannot be written: {exc.strerror or exc}") from exc
    return 0


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is to say."""

    problems: list[Problem]
    loads: list[BusLoad]
    flash: FlashCost | None = None
    uplinks: Sequence[UplinkCost] = ()


def _predicted(loaded: Loaded, path: Path) -> Findings:
    from edged.config import cost, machine  # only where a configuration is whole
    from edged.config.budget import predict
    from edged.config.load import in_order
    from edged.config.problems import Report
    from edged.config.source import home

    if loaded.config is None:
        return Findings(loaded.problems, [])
    report = Report()
    loads = predict(loaded.config, loaded.nodes, report, home(path).absolute())
    machine.check_machine(loaded.config, loaded.nodes, report, home(path))
    flash = cost.flash(loaded.config, loads, loaded.nodes, report)
    uplinks = cost.uplink(loaded.config, loaded.nodes, report)
    return Findings(in_order([*loaded.problems, *report.problems], loaded.files), loads, flash, uplinks)


def _totals(loaded: Loaded, loads: list[BusLoad]) -> dict[str, float]:
    config = loaded.config
    if config is None:
        return {}
    return {
        "buses": len(config.buses),
        "devices": len(config.devices),
        "points": sum(len(device.points) for device in config.devices.values()),
        "connections": len(config.connections),
        "readings_per_second": round(sum(one.readings for one in loads), 3),
        "polls_per_second": round(sum(one.polls for one in loads), 3),
    }


def _as_json(path: Path, loaded: Loaded, found: Findings, answers: list[Answer] | None) -> dict[str, Any]:
    online = {} if answers is None else {"online": [asdict(answer) for answer in answers]}
    return {
        "path": str(path),
        "ok": not any(problem.severity == "error" for problem in found.problems),
        "problems": [problem.as_dict() for problem in found.problems],
        "files": [str(file) for file in loaded.files],
        "totals": _totals(loaded, found.loads),
        "buses": {
            one.bus: {
                "devices": one.devices, "points": one.points, "readings_per_second": round(one.readings, 3),
                "polls_per_second": round(one.polls, 3), "transactions_per_second": round(one.transactions, 3),
                "seconds_per_round": round(one.round, 6), "load": round(one.load, 4),
            }
            for one in found.loads
        },
        "flash": None if found.flash is None else {
            "commits_per_day": round(found.flash.commits), "bytes_per_day": round(found.flash.written),
        },
        "uplink": {
            one.connection: {
                "messages_per_day": round(one.messages), "bytes_per_day_uncompressed": round(one.plain),
                "bytes_per_day_compressed": round(one.compressed), "bytes_per_day": round(one.sent),
                "compression": one.compression,
            }
            for one in found.uplinks
        },
        **online,
    }  # fmt: skip


def _print(path: Path, loaded: Loaded, found: Findings) -> None:
    problems, loads = found.problems, found.loads
    for problem in problems:
        click.echo(problem.render(), err=True)
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    counted = ", ".join(_count(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number)
    click.echo(f"{path}: {counted or 'no problems'}", err=bool(problems))
    totals = _totals(loaded, loads)
    if not totals:
        return
    click.echo(
        f"{_count(totals['buses'], 'bus', 'buses')}, {_count(totals['devices'], 'device')}, "
        f"{_count(totals['points'], 'point')}, {_count(totals['connections'], 'connection')}; "
        f"{_count(totals['readings_per_second'], 'reading')}/s in {_count(totals['polls_per_second'], 'poll')}/s"
    )
    for one in loads:
        share = f"; {one.round:.3g} s of bus time per round, {one.load:.0%} of it used" if one.load else ""
        click.echo(
            f"  {one.bus}: {_count(one.devices, 'device')}, {_count(one.points, 'point')}, "
            f"{_count(float(f'{one.transactions:.3g}'), 'transaction')}/s{share}"
        )
        if one.unknown:
            click.echo(
                f"    without {', '.join(one.unknown[:4])}{', …' if len(one.unknown) > 4 else ''}: "  # noqa: PLR2004  # a few
                "only the device tells which points it has; `--online` shows what that takes"
            )
    for line in _costs(found):
        click.echo(line)


def _costs(found: Findings) -> Iterator[str]:
    from edged.config.flows import spoken  # only where a configuration is whole

    if found.flash is not None and found.flash.commits:
        yield f"  buffer: up to {_bytes(found.flash.written)} a day to the flash in {found.flash.commits:,.0f} commits"
    for one in found.uplinks:
        if not one.messages:
            continue
        size = _bytes(one.sent)
        if one.compression == "none":
            size += f" ({_bytes(one.compressed)} with `compression: zlib`)"
        elif one.compression:
            size += f" ({_bytes(one.plain)} before {one.compression})"
        named = spoken(one.connection) if "/" in one.connection else one.connection
        yield f"  {named}: up to {one.messages:,.0f} messages and {size} a day"


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def _count(number: float, one: str, many: str = "") -> str:
    return f"{number:g} {one if number == 1 else many or one + 's'}"
