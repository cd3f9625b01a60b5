"""`edged explain`: how a value came about, from the raw registers to the broker."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import click

from edged.cli import EXIT_PROBLEM, client
from edged.paths import socket_path


@click.command(short_help="Show how a value comes about, from raw registers to the broker.")
@click.argument("what", metavar="DEVICE/POINT")
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def explain(what: str, socket: str | None, as_json: bool) -> None:
    """Read a point once and show each step: registers, type, order, scale, range, deadband, stored, sent.

    For "why does it show 6553.5": the step at which it goes wrong is the one to correct.
    """
    device, slash, point = what.partition("/")
    if not (slash and device and point):
        raise click.BadParameter(f"{what!r}: write DEVICE/POINT, as in meter-1/voltage", param_hint="DEVICE/POINT")
    target = f"/v1/explain/{quote(device, safe='')}/{quote(point, safe='')}"
    record = client.call(socket_path(socket), target, method="POST")
    click.echo(json.dumps(record, indent=2) if as_json else "\n".join(render_explanation(record)))
    if record["quality"].startswith("bad"):
        raise SystemExit(EXIT_PROBLEM)


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
    if stored is None:
        yield "stored", "no: nothing of this point within its heartbeat", ""
        return
    value = stored["quality"] if stored["value"] is None else _short(stored["value"])
    yield "stored", f"last at {stored['time']}, seq {stored['seq']}", value
    for name, state in record["connections"].items():
        yield "sent", f"{name}: {state}", ""
    if not record["connections"]:
        yield "sent", "no connection is configured", ""


def _short(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
