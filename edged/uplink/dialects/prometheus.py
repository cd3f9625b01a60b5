"""Readings and health in Prometheus' text format. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/, text format 0.0.4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from edged.config.base import DeviceConfig
from edged.config.types import Name
from edged.downlink.api import TwinPoint
from edged.model import Reason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_QUALITY = {"good": 0, "uncertain": 1, "bad": 2}
_READINGS = ("read", "stored", "suppressed", "rejected")
_FATES = ("delivered", "pending", "expired", "evicted", "dead")

Row = tuple[Mapping[str, str], float]
"""Labels and a value."""
Metric = tuple[str, str, str, list[Row]]
"""Name, kind, what it is, and its rows."""


def exposed_readings(devices: Iterable[tuple[str, DeviceConfig, Mapping[str, TwinPoint]]]) -> Iterator[str]:
    """The metrics of all points, in pieces of about one device.

    The format wants all of a metric together, so what is not a number waits until all devices have been gone through.
    A value that is bad or stale is left out: only its quality is told.
    """
    texts, qualities, times = [], [], []
    yield _head("edged_reading", "gauge", "The last value of a point, where it is neither bad nor stale.")
    for name, device, points in devices:
        lines = []
        extra = {f"label_{_plain(key)}": text for key, text in device.labels.items()}
        for point, known in points.items():
            if known.reported is None:
                continue
            value, quality = known.reported.value, known.reported.quality
            labels = {"device": name, "point": point}
            qualities.append(_line("edged_reading_quality", labels, _QUALITY[quality.status]))
            times.append(_line("edged_reading_time_seconds", labels, known.reported.time / 1e6))
            if quality.status == "bad" or quality.reason == Reason.STALE or value is None:
                continue
            config = device.points.get(Name(point))
            labels |= {"unit": config.unit if config else "", **extra}
            if isinstance(value, str):
                texts.append(_line("edged_reading_text", labels | {"text": value}, 1))
            else:
                lines.append(_line("edged_reading", labels, float(value)))
        yield "".join(lines)
    yield _head("edged_reading_text", "gauge", "1 for the last text of a point.") + "".join(texts)
    yield _head("edged_reading_quality", "gauge", "0 good, 1 uncertain, 2 bad.") + "".join(qualities)
    yield _head("edged_reading_time_seconds", "gauge", "When it had that value, seconds since 1970.") + "".join(times)


def exposed_health(status: Mapping[str, Any]) -> Iterator[str]:
    """The metrics of the gateway itself, from what `edged status --json` shows."""
    for name, kind, about, rows in (*_gateway(status), *_buses(status["buses"]), *_connections(status)):
        if rows:
            yield _head(name, kind, about) + "".join(_line(name, labels, value) for labels, value in rows)


def _gateway(status: Mapping[str, Any]) -> Iterator[Metric]:
    buffer, about = status["buffer"], {"gateway": status["gateway"], "version": status["version"]}
    size = buffer["file_bytes"] + buffer["wal_bytes"]
    yield "edged_info", "gauge", "1, with what is running.", [(about, 1)]
    yield "edged_clock_trusted", "gauge", "Whether the wall clock can be believed.", [({}, status["clock"]["trusted"])]
    yield "edged_buffer_bytes", "gauge", "The size of the buffer's files.", [({}, size)]
    yield "edged_buffer_alarm", "gauge", "1 while it is full or its disk fails.", [({}, bool(buffer["alarm"]))]
    rows: list[Row] = [({"what": what}, buffer[what]) for what in _READINGS]
    yield "edged_readings_total", "counter", "What became of the readings.", rows


def _buses(buses: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    each: list[tuple[Mapping[str, str], Mapping[str, Any]]] = [({"bus": one["bus"]}, one) for one in buses]
    yield "edged_bus_up", "gauge", "Whether a bus works.", [(who, one["health"] == "ok") for who, one in each]
    yield (
        "edged_bus_load_ratio",
        "gauge",
        "The share of time it is busy.",
        [(who, one["load"]) for who, one in each],
    )
    below = [({**who, "device": one["device"]}, one) for who, bus in each for one in bus["devices"]]
    yield "edged_device_up", "gauge", "Whether a device answers.", [(who, one["health"] == "ok") for who, one in below]
    yield "edged_device_polls_total", "counter", "Polls of a device.", [(who, one["polls"]) for who, one in below]
    rows: list[Row] = [(who, one["failures"]) for who, one in below]
    yield "edged_device_failures_total", "counter", "Polls that yielded nothing.", rows


def _connections(status: Mapping[str, Any]) -> Iterator[Metric]:
    up: list[Row] = [({"connection": name}, one["connected"]) for name, one in status["connections"].items()]
    up += [({"connection": name}, bool(one["listening"])) for name, one in status["servers"].items()]
    yield "edged_connection_up", "gauge", "Whether it is connected, or listens.", up
    counts = status["buffer"]["connections"].items()
    rows: list[Row] = [({**_whose(place), "what": what}, one[what]) for place, one in counts for what in _FATES]
    yield "edged_connection_readings", "gauge", "What became of the readings for a connection.", rows


def _whose(place: str) -> dict[str, str]:
    """The connection of a place in the buffer, and the flow if it is of one."""
    connection, _, flow = place.partition("/")
    return {"connection": connection, **({"flow": flow} if flow else {})}


def _head(name: str, kind: str, about: str) -> str:
    return f"# HELP {name} {about}\n# TYPE {name} {kind}\n"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{told}}} {_number(value)}\n" if told else f"{name} {_number(value)}\n"


def _number(value: float) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _plain(key: str) -> str:
    """A label's name as Prometheus allows it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", key)
