"""`edged top`: the whole gateway on one screen."""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from edged.cli import client
from edged.config.flows import connection_of, cursor_name
from edged.config.problems import printable
from edged.paths import socket_path

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_FULL = 0.8
"""Beyond this share of its time a bus has no room left."""
_WIDE = 70
"""From so many columns on there is room for long names."""
_SECONDS_A_DAY = 86_400
_LONG_ENOUGH = 30.0
"""Over fewer seconds no growth is told: the file grows in steps."""
_REMEMBERED = 300
"""So many looks back the growth of the buffer is measured."""


@click.command(short_help="Show the whole gateway on one screen, as it works.")
@click.option("--once", is_flag=True, help="Show it once and end.")
@click.option(
    "--every", default=2.0, show_default=True, type=click.FloatRange(0.2, 3600), help="Seconds between looks."
)
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the screen, one object a look.")
def top(once: bool, every: float, socket: str | None, as_json: bool) -> None:
    """Show buses, devices, connections and the buffer on one screen, until Ctrl-C. Made for 80 × 24 over SSH.

    Lag is what waits for a connection: readings, and the age of the oldest. `days left`, while a connection
    is down, is how long until the buffer is full if it goes on growing as it did while you watched, or, before that can
    be told, as what waits for that connection did.
    """
    path = socket_path(socket)
    values: dict[str, str] = {}
    looks: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
    record = _look(path, looks, values)
    if as_json:
        while True:
            click.echo(json.dumps(record))
            if once:
                return
            time.sleep(every)
            record = _look(path, looks, values)
    from rich.console import Console  # `edged --help` must not pay for it
    from rich.live import Live

    width, height = shutil.get_terminal_size((80, 24))
    console = Console(highlight=False, width=width, height=height)
    if once:
        console.print(screen(record, values, width, 10_000 if not console.is_terminal else height))
        return
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(screen(record, values, *console.size), refresh=True)
            time.sleep(every)
            record = _look(path, looks, values)


def _look(path: Any, looks: deque[tuple[float, int]], values: dict[str, str]) -> dict[str, Any]:
    """Everything as it is now, with what was reckoned from it under `reckoned`."""
    record: dict[str, Any] = client.call(path, "/v1/top")
    values.update(record.get("last", {}))
    now = datetime.fromisoformat(record["time"]).timestamp()
    looks.append((now, record["buffer"]["used_bytes"]))
    record["reckoned"] = {"days_left": days_left(record, list(looks))}
    return record


def days_left(record: Mapping[str, Any], looks: Sequence[tuple[float, int]]) -> float | None:
    """Days until the buffer is full at this rate; None while nothing is held back, or nothing can be said.

    The rate is that at which the buffer grew while it was watched, else that at which the longest queue did.
    """
    room = max(record["limits"]["max_bytes"] - record["buffer"]["used_bytes"], 0)
    held = [one for name, one in record["waiting"].items() if one and _holds_back(record, name)]
    if not held:
        return None
    (began, first), (ended, last) = looks[0], looks[-1]
    if ended - began >= _LONG_ENOUGH:
        rate = (last - first) / (ended - began)
    else:
        longest = max(held, key=lambda one: one["readings"])
        readings = record["buffer"]["readings"]
        if longest["oldest_age"] < _LONG_ENOUGH or not readings:
            return None
        rate = longest["readings"] / longest["oldest_age"] * record["buffer"]["used_bytes"] / readings
    return float(room / rate / _SECONDS_A_DAY) if rate > 0 else None


def _holds_back(record: Mapping[str, Any], name: str) -> bool:
    """Whether a connection keeps readings from leaving; what is delivered makes room by itself."""
    connection = record["connections"].get(connection_of(name))
    return connection is not None and not connection["connected"]


class _Widths(NamedTuple):
    """Of the first two columns, characters."""

    name: int = 20
    state: int = 16


def screen(record: Mapping[str, Any], values: Mapping[str, str], width: int, height: int) -> Table:
    """One screen of at most so many columns and lines."""
    from rich.table import Table

    at = _Widths() if width >= _WIDE else _Widths(12, 13)
    head, tail = list(_head(record)), list(_tail(record, at))
    buses = [_bus_line(bus, record["budget"].get(bus["bus"]), at) for bus in record["buses"]]
    devices = [(bus["bus"], device) for bus in record["buses"] for device in bus["devices"]]
    devices.sort(key=lambda entry: entry[1]["health"] != "down")  # what is wrong is never the part cut off
    room = max(height - len(head) - len(tail) - 3, 2)
    shown_buses = buses[: max(1, min(len(buses), room // 2))]
    room -= len(shown_buses) + (len(shown_buses) < len(buses))
    shown = devices if len(devices) <= room else devices[: max(room - 1, 0)]
    lines = [*head, _title("bus", "load / budget", "transactions, late polls, error", at), *shown_buses]
    if len(shown_buses) < len(buses):
        lines.append(_title(f"… and {len(buses) - len(shown_buses)} more buses", "", "", at))
    lines.append(_title("device", "health", "last value", at))
    lines += [_device_line(device, values, at) for _, device in shown]
    if len(shown) < len(devices):
        lines.append(_title(f"… and {len(devices) - len(shown)} more devices", "", "", at))
    grid = Table.grid()
    grid.add_column(no_wrap=True, overflow="ellipsis", width=width)
    for line in [*lines, *tail]:
        line.truncate(width, overflow="ellipsis")
        grid.add_row(line)
    return grid


def _title(first: str, second: str, third: str, at: _Widths) -> Text:
    from rich.text import Text

    cells = f"{first:<{at.name}} {second:<{at.state}} {third}" if second else first
    return Text(cells, style="bold reverse" if second else "dim")


def _head(record: Mapping[str, Any]) -> Iterable[Text]:
    from rich.text import Text

    began, now = (datetime.fromisoformat(record[key]) for key in ("started", "time"))
    text = Text.assemble(
        (f"edged {record['version']} ", "bold"), f"{record['gateway']}  up {_span((now - began).total_seconds())}"
    )
    text.append(f"  {now.astimezone():%Y-%m-%d %H:%M:%S}", style="dim")
    yield text
    if not record["clock"]["trusted"]:
        yield Text("the clock is not set: readings wait, or go out as uncertain(clock)", style="bold yellow")
    for name, fault in list(record["faults"].items())[:2]:
        yield Text(f"{name} was started again {fault['restarts']} times: {fault['detail']}", style="bold red")


def _bus_line(bus: Mapping[str, Any], budget: float | None, at: _Widths) -> Text:
    from rich.text import Text

    load = bus["load"]
    shown = f"{100 * load:.0f} %" + (f" / {100 * budget:.0f} %" if budget else "")
    text = Text(f"{bus['bus']:<{at.name}.{at.name}} ", style="red" if bus["health"] == "down" else "")
    text.append(f"{shown:<{at.state}} ", style="red" if max(load, budget or 0) > _FULL else "green")
    text.append(f"{bus['transactions']:,}")
    if bus["overruns"]:
        text.append(f", {bus['overruns']:,} late", style="yellow")
    failures = sum(device["failures"] for device in bus["devices"])
    if failures:
        text.append(f", {failures:,} failed", style="yellow")
    if bus["last_error"]:
        text.append(f"  {printable(bus['last_error'])}", style="red")
    return text


def _device_line(device: Mapping[str, Any], values: Mapping[str, str], at: _Widths) -> Text:
    from rich.text import Text

    down = device["health"] == "down"
    text = Text(f"{device['device']:<{at.name}.{at.name}} ", style="red" if down else "")
    text.append(
        f"{device['health']:<{at.state}} ",
        style="bold red" if down else "green" if device["health"] == "ok" else "yellow",
    )
    told = device["last_error"] if down else values.get(device["device"], "")
    text.append(printable(told), style="red" if down else "")
    return text


def _tail(record: Mapping[str, Any], at: _Widths) -> Iterable[Text]:
    """The connections and the buffer."""
    from rich.text import Text

    buffer = record["buffer"]
    yield _title("connection", "state", "readings waiting, oldest", at)
    for name, one in list(record["connections"].items())[:4]:
        up = one["connected"]
        text = Text(f"{name:<{at.name}.{at.name}} ", style="" if up else "red")
        text.append(f"{'connected' if up else 'NOT connected':<{at.state}} ", style="green" if up else "bold red")
        flows = list(one.get("flows", {}))
        places = [cursor_name(name, flow) for flow in flows] or [name]
        waiting = _together([record["waiting"].get(place) for place in places]) or {
            "readings": one["pending"],
            "oldest_age": 0,
        }
        text.append(f"{waiting['readings']:,}")
        if waiting["readings"]:
            text.append(f", oldest {_span(waiting['oldest_age'])}")
        if not up:
            text.append(f"  {one['detail']}", style="red")
        yield text
        if flows:
            yield Text(_flows(record, name, flows), style="dim")
    if len(record["connections"]) > 4:  # noqa: PLR2004  # as many as were shown
        yield Text(f"… and {len(record['connections']) - 4} more connections", style="dim")
    size, limit = buffer["file_bytes"] + buffer["wal_bytes"], record["limits"]["max_bytes"]
    left = record["reckoned"]["days_left"]
    text = Text.assemble(
        ("buffer  ", "bold"), f"{size / 2**20:.1f} of {limit / 2**20:.0f} MiB, {buffer['readings']:,} readings"
    )
    text.append("" if left is None else f", {left:,.1f} days left at this rate", style="yellow")
    yield text
    if buffer["alarm"]:
        yield Text(f"ALARM, {buffer['alarm']}: {buffer['detail']}", style="bold red")


def _together(waiting: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """What waits for all flows of a connection; None where that is not known of one."""
    known = [one for one in waiting if one]
    if len(known) < len(waiting):
        return None
    return {
        "readings": sum(one["readings"] for one in known), "oldest_age": max(one["oldest_age"] for one in known),
    }  # fmt: skip


def _flows(record: Mapping[str, Any], connection: str, flows: Sequence[str]) -> str:
    """The flows of a connection in one line."""
    counts = {flow: record["flows"][flow]["connections"].get(connection, {}) for flow in flows}
    said = [f"{flow} {one.get('sent', 0):,} sent, {one.get('filtered', 0):,} left out" for flow, one in counts.items()]
    return "  flows: " + "; ".join(said)


def _span(seconds: float) -> str:
    """A duration in at most two units."""
    whole = int(seconds)
    for size, name, smaller, small in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {small}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"  # noqa: PLR2004  # a tenth matters only there
