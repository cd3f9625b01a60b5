"""`edged status` and `edged tail`: a look at the running gateway."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from edged.cli import EXIT_CONFIG, client
from edged.cli.plain import say
from edged.paths import socket_path

_SOCKET = click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_DOWN = 5
"""So many devices that are down are named one by one."""


@click.command(short_help="Show what the running gateway is doing.")
@_SOCKET
@_JSON
def status(socket: str | None, as_json: bool) -> None:  # click passes flags so
    """Show what the running gateway is doing: buses, devices, buffer, connections."""
    record = client.call(socket_path(socket), "/v1/status")
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        say(render_status(record).split("\n"))


@click.command(short_help="Show readings as they come.")
@click.argument("what", nargs=-1, metavar="[DEVICE[/POINT]]...")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only devices with this label.")
@click.option("--spark", is_flag=True, help="Draw the way of each value lately as a small curve.")
@click.option("--count", "-n", type=click.IntRange(1), help="Stop after so many samples.")
@_SOCKET
@_JSON
def tail(
    what: tuple[str, ...], labels: tuple[str, ...], spark: bool, count: int | None, socket: str | None, as_json: bool
) -> None:
    """Show readings as they come, until Ctrl-C.

    Without an argument all devices; else only those named, `meter-1`, or only one point of one, `meter-1/voltage`, or
    that point of all devices, `*/voltage`.
    """
    if wrong := [label for label in labels if "=" not in label]:
        raise click.BadParameter(f"{wrong[0]!r}: write KEY=VALUE, as in room=plant", param_hint="--label")
    wanted = [tuple(part.partition("/")[::2]) for part in what]
    chosen = [] if any(device == "*" for device, _ in wanted) else [device for device, _ in wanted]
    named = [device for device, _ in wanted if device != "*"]
    if named or not labels:
        _warn_of_silence(socket_path(socket), named, every=not chosen and not labels)
    query = urlencode([("device", device) for device in chosen] + [("label", label) for label in labels])
    curves = Sparklines()
    shown = 0
    for line in client.lines(socket_path(socket), f"/v1/tail?{query}"):
        record = _only(json.loads(line), wanted)
        if record is None:
            continue
        if as_json:
            click.echo(json.dumps(record))
        else:
            text = render_sample(record)
            say([f"{text}  {curves.draw(record)}".rstrip() if spark else text])
        shown += 1
        if shown == count:
            return


def _warn_of_silence(path: Path, devices: Sequence[str], *, every: bool) -> None:
    """Say from which of these devices, or with `every` of all, nothing will come: strangers and those that are down."""
    status = client.call(path, "/v1/status", timeout=10)
    polled = {one["device"]: one for bus in status["buses"] for one in bus["devices"]}
    for device in devices:
        if device not in polled:
            close = get_close_matches(device, polled, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it polls {', '.join(sorted(polled)[:20]) or 'none'}"
            click.echo(f"edged: the gateway polls no device {device!r}; {hint}", err=True)
    if devices and not every and not set(devices) & set(polled):
        raise SystemExit(EXIT_CONFIG)
    down = [one for name, one in polled.items() if one["health"] == "down" and (every or name in devices)]
    for one in down[:_DOWN]:
        click.echo(f"edged: {one['device']} is down: {one['last_error']}", err=True)
    if len(down) > _DOWN:
        click.echo(f"edged: {len(down) - _DOWN} more are down: see edged status", err=True)


def _only(record: dict[str, Any], wanted: Iterable[tuple[str, ...]]) -> dict[str, Any] | None:
    """`record` with the wanted points only; None if it has none of them."""
    points = [point for device, point in wanted if device in {"*", record.get("device")}]
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


class Sparklines:
    """The last values of each point as a row of blocks, the lowest of them at the bottom."""

    _BLOCKS = "▁▂▃▄▅▆▇█"
    _LENGTH = 16

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], deque[float | None]] = {}

    def draw(self, record: Mapping[str, Any]) -> str:
        """Take in a sample; the curves of its numbers. A value that is missing is a gap."""
        curves = []
        for point, value in record.get("values", {}).items():
            number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
            kept = self._values.setdefault((record["device"], point), deque(maxlen=self._LENGTH))
            kept.append(number)
            known = [one for one in kept if one is not None]
            if not known:
                continue
            low, high = min(known), max(known)
            span = high - low or 1.0
            top = len(self._BLOCKS) - 1
            blocks = (" " if one is None else self._BLOCKS[round((one - low) / span * top)] for one in kept)
            curves.append(f"{point} {''.join(blocks)}")
        return "  ".join(curves)


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def render_status(record: Mapping[str, Any]) -> str:
    """The status as a page of text."""
    up = _ago(record["started"], record["time"])
    parts = [f"gateway {record['gateway']}, edged {record['version']}, pid {record['pid']}, up {up}"]
    parts += _config_lines(record.get("config"))
    parts += _health_lines(record.get("health"))
    parts += _clock_lines(record["clock"], record["time"])
    for bus in record["buses"]:
        parts += ["", *_bus_lines(bus)]
    parts += ["", *_buffer_lines(record["buffer"])]
    for name, connection in record["connections"].items():
        parts += ["", *_connection_lines(name, connection, record["buffer"]["connections"].get(name, {}))]
        for flow, one in record["flows"].items():
            if name in one["connections"]:
                parts += _flow_lines(flow, name, one)
    for name, server in record["servers"].items():
        parts += ["", *_server_lines(name, server)]
    parts += _deactivated_lines(record)
    parts += [
        f"\n{name} was started again {fault['restarts']} times, last {fault['time']}: {fault['detail']}"
        for name, fault in record["faults"].items()
    ]
    return "\n".join(parts)


def _deactivated_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Connections that nothing is sent to because somebody said so, and what gathers for them meanwhile."""
    why = dict.fromkeys(record.get("deactivated", ()), "`enabled: false`")
    flows = record["flows"].values()
    used = {name for one in flows if one["enabled"] for name in one["connections"]}
    for name in (name for one in flows for name in one["connections"] if name not in used):
        why.setdefault(name, "all its flows have `enabled: false`")
    for name, reason in why.items():
        places = record["buffer"]["connections"].items()
        waiting = sum(one["pending"] for place, one in places if place.partition("/")[0] == name)
        yield f"\nconnection {name}: deactivated ({reason}){f', {waiting:,} readings wait' if waiting else ''}"


def _health_lines(health: Mapping[str, Any] | None) -> Iterable[str]:
    """One line of the machine, and what it suffers. An older gateway tells none of it."""
    if not health:
        return
    process, disk, machine = health["process"], health["disk"], health["machine"]
    known: list[tuple[str, Any, Callable[[Any], str]]] = [
        ("CPU", process["cpu"], lambda value: f"{100 * value:.1f} %"),
        ("memory", process["rss"], lambda value: f"{value / 2**20:.0f} MiB"),
        ("disk free", disk["free"], lambda value: f"{value / 2**30:.1f} GiB"),
        ("written", process["written"], lambda value: f"{value / 2**20:,.0f} MiB"),
        ("flash used up", disk["life_used"], lambda value: f"{value} %"),
        ("temperature", machine["temperature"], lambda value: f"{value:.0f} °C"),
    ]
    yield ", ".join(f"{name} {text(value)}" for name, value, text in known if value is not None)
    if machine["throttled"]:
        yield f"the supply or the heat: {', '.join(machine['throttled'])}"
    bad = {reason: count for reason, count in health["restarts"]["by_reason"].items() if reason in _BAD_ENDS}
    if bad:
        yield "ended badly: " + ", ".join(f"{_BAD_ENDS[reason]} {count} times" for reason, count in bad.items())


_BAD_ENDS = {"crash": "crashed", "watchdog": "stuck", "memory": "out of memory", "power": "power cut"}


def _config_lines(config: Mapping[str, Any] | None) -> Iterable[str]:
    """Nothing while the gateway runs what the file says, and for good."""
    if not config:
        return
    if config["running"] != "file":
        number = f", number {config['entry']}" if config["entry"] else ""
        yield f"NOT running what {config['file']} says, but the last good configuration{number}"
    if config["problem"]:
        yield f"  {config['problem']}"
    if config["restart_needed"]:
        yield f"waiting for a restart: {', '.join(config['restart_needed'])}"
    if config["watching"]:
        yield f"a new configuration is being watched for {config['watching']:.0f} s more"


def _clock_lines(clock: Mapping[str, Any], time: str) -> Iterable[str]:
    """Nothing while there is nothing to say."""
    if not clock["trusted"]:
        yield f"the clock is not set: it shows {time}; readings wait or go out as uncertain(clock) until it is"
    elif clock["repeats"]:
        back = -clock["last_step"]
        yield f"the clock was set back by {back:,.1f} s; until it has caught up, readings are uncertain(clock)"


def _bus_lines(bus: Mapping[str, Any]) -> Iterable[str]:
    yield (
        f"bus {bus['bus']} ({bus['adapter']}): {bus['health']}, busy {100 * bus['load']:.0f} %, "
        f"{bus['transactions']:,} transactions, {bus['overruns']:,} overruns{_because(bus)}"
    )
    for device in bus["devices"]:
        yield (
            f"  {device['device']}: {device['health']}, {device['polls']:,} polls, {device['failures']:,} failures, "
            f"{1000 * device['seconds']:.1f} ms a poll{_because(device)}"
        )


def _because(record: Mapping[str, Any]) -> str:
    return f"; {record['last_error']}" if record["last_error"] else ""


def _buffer_lines(buffer: Mapping[str, Any]) -> Iterable[str]:
    size = (buffer["file_bytes"] + buffer["wal_bytes"]) / 2**20
    yield f"buffer: {buffer['readings']:,} readings in {size:.1f} MiB, epoch {buffer['epoch']}, seq {buffer['head']:,}"
    yield (
        f"  read {buffer['read']:,} = stored {buffer['stored']:,} + suppressed {buffer['suppressed']:,} "
        f"+ rejected {buffer['rejected']:,} (+ {buffer['waiting']:,} about to be stored)"
    )
    for reason, count in buffer["rejected_by"].items():
        yield f"  rejected, {reason.replace('_', ' ')}: {count:,}"
    if buffer["alarm"]:
        yield f"  ALARM, {buffer['alarm']}: {buffer['detail']}"


def _server_lines(name: str, server: Mapping[str, Any]) -> Iterable[str]:
    if not server["listening"]:
        yield f"connection {name}: NOT listening: {server['detail']}"
        return
    yield (
        f"connection {name}: listening on {server['listening']}, {server['clients']:,} clients, "
        f"{server['requests']:,} requests, {server['refused']:,} refused"
    )


def _connection_lines(name: str, connection: Mapping[str, Any], counts: Mapping[str, Any]) -> Iterable[str]:
    state = "connected" if connection["connected"] else "NOT connected"
    yield f"connection {name}: {state} since {connection['since']}: {connection['detail']}"
    if counts:
        yield (
            f"  stored {counts['stored_for']:,} = delivered {counts['delivered']:,} + pending {counts['pending']:,} "
            f"+ expired {counts['expired']:,} + evicted {counts['evicted']:,} + dead letters {counts['dead']:,}"
        )
    yield (
        f"  messages: {connection['in_flight']} of {connection['window']} in flight, {connection['delivered']:,} "
        f"delivered, {connection['retried']:,} sent again, {connection['rejected']:,} refused"
    )
    if connection.get("next_try"):
        yield f"  {connection['state'].replace('_', ' ')}; next try {connection['next_try']}"
    elif connection["connected"] and connection.get("last_error"):
        yield f"  the session before this one: {connection['last_error']}"
    if connection["last_rejection"]:
        yield f"  last refusal: {connection['last_rejection']}"


def _flow_lines(flow: str, connection: str, record: Mapping[str, Any]) -> Iterable[str]:
    """A flow, below its connection."""
    count = record["connections"].get(connection)
    if not record["enabled"]:
        yield f"  flow {flow}: deactivated (`enabled: false`)"
    elif count:
        yield (
            f"  flow {flow}: stored {count['in']:,} = sent {count['sent']:,} + left out {count['filtered']:,} "
            f"+ pending {count['queued']:,} + expired {count['expired']:,} + evicted {count['evicted']:,} "
            f"+ dead letters {count['dead']:,}"
        )
    if record["errors"]:
        yield f"    {record['errors']:,} values could not be worked out, the last: {record['last_error']}"


def _ago(since: str, now: str) -> str:
    seconds = int((datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds())
    return time.strftime(f"{seconds // 86_400}d %H:%M:%S", time.gmtime(seconds % 86_400))
