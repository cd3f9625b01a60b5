"""`edged status` and `edged tail`: a look at the running gateway."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import click

from edged.cli import client
from edged.paths import socket_path

_SOCKET = click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.command(short_help="Show what the running gateway is doing.")
@_SOCKET
@_JSON
def status(socket: str | None, as_json: bool) -> None:  # click passes flags so
    """Show what the running gateway is doing: buses, devices, buffer, connections."""
    record = client.call(socket_path(socket), "/v1/status")
    click.echo(json.dumps(record, indent=2) if as_json else render_status(record))


@click.command(short_help="Show readings as they come.")
@click.argument("what", nargs=-1, metavar="[DEVICE[/POINT]]...")
@click.option("--count", "-n", type=click.IntRange(1), help="Stop after so many samples.")
@_SOCKET
@_JSON
def tail(what: tuple[str, ...], count: int | None, socket: str | None, as_json: bool) -> None:  # click
    """Show readings as they come, until Ctrl-C.

    Without an argument all devices; else only those named, `meter-1`, or only one point of one, `meter-1/voltage`.
    """
    wanted = [tuple(part.partition("/")[::2]) for part in what]
    query = urlencode([("device", device) for device, _ in wanted])
    for number, line in enumerate(client.lines(socket_path(socket), f"/v1/tail?{query}"), 1):
        record = _only(json.loads(line), wanted)
        if record is not None:
            click.echo(json.dumps(record) if as_json else render_sample(record))
            sys.stdout.flush()
        if count is not None and number >= count:
            return


def _only(record: dict[str, Any], wanted: Iterable[tuple[str, ...]]) -> dict[str, Any] | None:
    """`record` with the wanted points only; None if it has none of them."""
    points = [point for device, point in wanted if device == record.get("device")]
    if not points or "" in points or "values" not in record:
        return record
    values = {name: value for name, value in record["values"].items() if name in points}
    return {**record, "values": values} if values else None


def render_sample(record: Mapping[str, Any]) -> str:
    """A sample as one line: 12:00:00.123  meter-1  voltage=230.1  current=bad(timeout)."""
    if "missed" in record:
        return f"({record['missed']} samples not shown: this terminal is too slow)"
    moment = datetime.fromisoformat(record["time"]).astimezone()
    quality = record.get("quality", {})
    values = "  ".join(
        f"{name}={quality[name] if value is None and name in quality else _short(value)}"
        for name, value in record["values"].items()
    )
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}  {record['device']}  {values}"


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def render_status(record: Mapping[str, Any]) -> str:
    """The status as a page of text."""
    up = _ago(record["started"], record["time"])
    parts = [f"gateway {record['gateway']}, edged {record['version']}, pid {record['pid']}, up {up}"]
    for bus in record["buses"]:
        parts.append("")
        parts.append(
            f"bus {bus['bus']} ({bus['adapter']}): {bus['health']}, busy {100 * bus['load']:.0f} %, "
            f"{bus['transactions']:,} transactions, {bus['overruns']:,} overruns"
            + (f"; {bus['last_error']}" if bus["last_error"] else "")
        )
        parts.extend(
            f"  {device['device']}: {device['health']}, {device['polls']:,} polls, {device['failures']:,} failures, "
            f"{1000 * device['seconds']:.1f} ms a poll" + (f"; {device['last_error']}" if device["last_error"] else "")
            for device in bus["devices"]
        )
    parts.append("")
    parts.append("buffer")
    parts.extend(f"  {line}" for line in _fields(record["buffer"]))
    for name, connection in record["connections"].items():
        parts.append("")
        parts.append(f"connection {name}")
        parts.extend(f"  {line}" for line in _fields(connection))
    for name, fault in record["faults"].items():
        parts.append("")
        parts.append(f"{name} was started again {fault['restarts']} times, last {fault['time']}: {fault['detail']}")
    return "\n".join(parts)


def _fields(record: Mapping[str, Any], indent: str = "") -> Iterable[str]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name.replace('_', ' ')}:"
            yield from _fields(value, indent + "  ")
        elif value not in ("", None):
            yield (
                f"{indent}{name.replace('_', ' ')}: {value:,}"
                if isinstance(value, int)
                else (f"{indent}{name.replace('_', ' ')}: {value}")
            )


def _ago(since: str, now: str) -> str:
    seconds = int((datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds())
    return time.strftime(f"{seconds // 86_400}d %H:%M:%S", time.gmtime(seconds % 86_400))
