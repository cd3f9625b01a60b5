"""`edged twin`: the last reported and the desired value of every point."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import click

from edged.cli import client
from edged.cli.plain import say
from edged.paths import socket_path


@click.command(short_help="Show the last reported and the desired value of every point.")
@click.argument("device", required=False)
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def twin(device: str | None, socket: str | None, as_json: bool) -> None:
    """Show the last reported and the desired value of every point, of all devices or of one.

    Desired is what a point was last told to be by a command that was carried out. Both are kept over restarts; what was
    reported before one is `uncertain(stale)` until the device has reported again.
    """
    target = f"/v1/twin/{quote(device, safe='')}" if device else "/v1/twin"
    record = client.call(socket_path(socket), target)
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        say(render(record))


def render(record: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """One line for each point."""
    for device, points in record.items():
        for point, known in points.items():
            yield f"{device}/{point}  {_reported(known['reported'])}{_desired(known['desired'])}"


def _reported(known: Mapping[str, Any] | None) -> str:
    if known is None:
        return "nothing reported"
    value = "-" if known["value"] is None else known["value"]
    quality = "" if known["quality"] == "good" else f"  {known['quality']}"
    return f"{value}  {known['time']}{quality}"


def _desired(known: Mapping[str, Any] | None) -> str:
    return "" if known is None else f"  desired {known['value']}  {known['time']}"
