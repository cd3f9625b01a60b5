"""`edged explain`: how a value came about, from the raw registers to the broker."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from edged import paths
from edged.cli import EXIT_PROBLEM, NoDaemonError, client
from edged.cli.plain import say
from edged.config.flows import spoken
from edged.errors import ConfigError


@click.command(short_help="Show how a value comes about, from raw registers to the broker.")
@click.argument("what", metavar="DEVICE/POINT")
@click.option("--config", metavar="FILE", help="The configuration that describes it.")
@click.option("--direct", is_flag=True, help="Open the bus here, even if a gateway is running.")
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--state", metavar="DIR", help="Folder for caches.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def explain(  # one parameter an option
    what: str, config: str | None, direct: bool, socket: str | None, state: str | None, as_json: bool
) -> None:
    """Read a point once and show each step: registers, type, order, scale, range, deadband, stored, sent.

    For "why does it show 6553.5": the step at which it goes wrong is the one to correct. Asks the running gateway;
    without one (or with --direct) it opens the bus itself, as CONFIG says, and nothing is stored or sent. Exit code 1
    if the value is bad.
    """
    device, slash, point = what.partition("/")
    if not (slash and device and point):
        raise click.BadParameter(f"{what!r}: write DEVICE/POINT, as in meter-1/voltage", param_hint="DEVICE/POINT")
    record: dict[str, Any] | None = None
    if not direct:
        try:
            target = f"/v1/explain/{quote(device, safe='')}/{quote(point, safe='')}"
            record = client.call(paths.socket_path(socket), target, method="POST")
        except NoDaemonError as exc:
            try:
                paths.config_path(config)
            except ConfigError:
                raise exc from None
    if record is None:
        record = _explain_directly(paths.config_path(config), paths.state_dir(state) / "cache", device, point)
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        say(render_explanation(record))
    if record["quality"].startswith("bad"):
        raise SystemExit(EXIT_PROBLEM)


def _explain_directly(path: Path, cache: Path, device: str, point: str) -> dict[str, Any]:
    """The steps by a poll of our own. Raises TransientError, ConfigError."""
    from edged.adapter import load_adapter  # `edged --help` must not pay for it
    from edged.cli.read import poll_directly
    from edged.config.compiled import load_compiled
    from edged.control.explaining import explanation, settings_of

    config = load_compiled(path, cache)
    known = config.devices.get(device)
    if known is not None:
        try:
            settings_of(known, point)
        except KeyError:
            names = ", ".join(known.points) or "none"
            raise ConfigError(f"{device} has no point {point!r}; it has: {names}") from None
    result = poll_directly(config, device, path.resolve().parent)
    adapter = load_adapter(config.buses[config.devices[device].bus].adapter)
    told = explanation(adapter, config.devices[device], device, point, [result])
    return {**told, "stored": None, "connections": {}, "direct": True}


def render_explanation(record: Mapping[str, Any]) -> Iterable[str]:
    """The steps as lines of text."""
    yield f"{record['device']}/{record['point']}, read {record['time']}"
    rows = [(step["name"], step["text"], step["result"]) for step in record["steps"]]
    value = "-" if record["value"] is None else f"{_short(record['value'])} {record['unit']}".rstrip()
    rows.append(("value", "" if record["quality"] == "good" else record["quality"], value))
    rows += _afterwards(record)
    names = max(len(name) for name, _, _ in rows)
    texts = max(len(text) for _, text, _ in rows)
    for name, text, result in rows:
        yield f"  {name:<{names}}  {text:<{texts}}  {result}".rstrip()


def _afterwards(record: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """What became of it: stored, sent."""
    stored = record["stored"]
    if record.get("direct"):
        yield "stored", "no: read without the gateway", ""
        return
    if stored is None:
        yield "stored", "no: nothing of this point within its heartbeat", ""
        return
    value = stored["quality"] if stored["value"] is None else _short(stored["value"])
    yield "stored", f"last at {stored['time']}, seq {stored['seq']}", value
    for name, state in record["connections"].items():
        yield "sent", f"{spoken(name) if '/' in name else name}: {state}", ""
    if not record["connections"]:
        yield "sent", "no connection is configured", ""


def _short(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
