"""What a configuration will write to the flash and send upstream in a day, before anything is connected.

The flash is reckoned by what was measured (docs/explanation/performance.md: bytes written per reading at 10 and at
1,000 readings/s, `flush: 1s`); the uplink by encoding readings of this very configuration with the connection's own
encoder. Deadbands are not taken into account: it is what goes out when every value changes all the time.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edged.buffer.batch import Batch
from edged.config.base import ConnectionConfig, PointConfig
from edged.config.budget import BusLoad, groups
from edged.config.flowing import bind, make
from edged.config.flows import cursor_name
from edged.config.lint import Nodes
from edged.config.model import Config
from edged.config.nodes import locate
from edged.config.problems import Report
from edged.config.types import Duration, Name
from edged.errors import ConfigError
from edged.flows.encoder import FlowEncoder
from edged.model import Sample, Value
from edged.uplink.api import ConnectionContext, Connector, Encoder, Message
from edged.uplink.connectors import load_connector
from edged.uplink.rehearsal import rehearse

DAY = 86_400.0
PER_COMMIT, PER_READING = 7_760.0, 2.25
"""Bytes. 778 per reading at 10/s and 10 per reading at 1,000/s: a commit costs much, a reading in it little."""
MUCH_FLASH = 5e9
"""Bytes a day. Memory cards endure some tens of terabytes; this leaves them ten years and more."""
_WINDOWS, _READINGS = 60, 20_000
"""How many flushes, and readings in them, are encoded as a sample."""
_T0 = 1_800_000_000_000_000
"""Microseconds since 1970: a time of the usual length."""


@dataclass(frozen=True, slots=True)
class FlashCost:
    """What the buffer writes."""

    commits: float
    """Per day."""
    written: float
    """Bytes per day."""


@dataclass(frozen=True, slots=True)
class UplinkCost:
    """What one connection sends. Per day; bytes are payloads, without what MQTT, TLS and TCP put around them."""

    connection: str
    """Or, of a flow, its place in the buffer: `cloud/hot`."""
    messages: float
    plain: float
    """Bytes before compression."""
    compressed: float
    """Bytes with the compression that is configured; where there is none, with zlib."""
    compression: str
    """What is configured: `none`, `zlib`, …; empty where the connector knows no such setting."""

    @property
    def sent(self) -> float:
        """Bytes that go out."""
        return self.plain if self.compression == "none" else self.compressed


def flash(config: Config, loads: Sequence[BusLoad], nodes: Nodes, report: Report) -> FlashCost:
    """What the buffer will write; a warning where that wears the flash out."""
    readings, polls = sum(one.readings for one in loads), sum(one.polls for one in loads)
    commits = min(1 / config.buffer.flush, polls)
    written = DAY * (commits * PER_COMMIT + readings * PER_READING)
    longer = next((period for period in (1, 2, 5, 10, 30, 60) if _written(period, readings, polls) <= MUCH_FLASH), 60)
    entry = nodes.get(("buffer", ""))
    if written > MUCH_FLASH and entry is not None and longer > config.buffer.flush:
        report.warning(
            locate(entry.value, ("flush",)), "buffer.flush",
            f"about {written / 1e9:.0f} GB a day to the flash, which wears a memory card out: {Duration(longer)} would "
            f"write {_written(longer, readings, polls) / 1e9:.1f} GB",
        )  # fmt: skip
    return FlashCost(DAY * commits, written)


def _written(flush: float, readings: float, polls: float) -> float:
    return DAY * (min(1 / flush, polls) * PER_COMMIT + readings * PER_READING)


def uplink(config: Config, nodes: Nodes, report: Report) -> list[UplinkCost]:
    """What each enabled connection will send. What a connector refuses goes into the report."""
    taken = _batches(config)
    costs = []
    for name, connection in config.connections.items():
        if not connection.enabled:
            continue
        flows = [flow for flow, one in config.flows_to(name).items() if one.enabled]
        for flow in flows or ([] if config.flows_to(name) else [""]):
            try:
                cost = _cost(config, name, flow, taken)
            except ConfigError as exc:
                report.error(nodes["connections", name].key.mark, f"connections.{name}", str(exc))
                break
            costs += [cost] if cost else []
    return costs


def _cost(config: Config, name: str, flow: str, taken: tuple[list[Batch], float]) -> UplinkCost | None:
    """What a connection, or a flow to it, sends; None if nothing. Raises ConfigError."""
    connection = config.connections[name]
    context = ConnectionContext(name, config.gateway, config.devices, lambda _: "")
    connector = load_connector(connection.connector)
    if not isinstance(connector, Connector):
        connector.server(connection, context)
        return None
    batches, days = taken
    wanted = config.flows[flow] if flow else None
    if wanted is not None and wanted.interval:
        batches, days = _one_interval(batches), DAY / wanted.interval

    def encoded(connection: ConnectionConfig) -> tuple[int, int]:
        if wanted is None:
            return _encoded(connector.encoder(connection, context), batches)
        encoder = connector.encoder(bind(connection, wanted, name), context)
        return _encoded(FlowEncoder(flow, make(wanted, config), encoder), batches)

    compression = str(getattr(connection, "compression", ""))
    other = _compressing(connection, "zlib") if compression == "none" else connection
    packed = plain = encoded(other)
    if compression:
        plain = encoded(_compressing(connection, "none"))
    place = cursor_name(name, flow) if flow else name
    return UplinkCost(place, packed[0] * days, plain[1] * days, packed[1] * days, compression)


def _one_interval(batches: Sequence[Batch]) -> list[Batch]:
    """All the samples as those of one interval: what comes of it does not depend on how many they are."""
    samples = tuple(dataclasses.replace(sample, time=_T0) for batch in batches for sample in batch.samples)
    readings = sum(len(sample.points) for sample in samples)
    return [Batch(batches[0].first, samples, "", readings)] if samples else []


def _compressing(connection: Any, how: str) -> Any:
    return dataclasses.replace(connection, compression=how)


def _encoded(encoder: Encoder, batches: Sequence[Batch]) -> tuple[int, int]:
    """(messages, bytes of payload)."""
    messages = size = 0
    for batch in batches:
        for message in rehearse(encoder, batch):
            if isinstance(message, Message):  # a dead letter is not sent
                messages, size = messages + 1, size + len(message.payload)
    return messages, size


def _batches(config: Config) -> tuple[list[Batch], float]:
    """Some flushes as they will be, spread over the longest period, and how many times as many a day has."""
    jobs = [
        (name, tuple(points), [device.points[Name(point)] for point in points], every)
        for bus, settings in config.buses.items()
        if settings.enabled
        for name, device in config.devices_on(bus).items()
        for every, points in groups(device).items()
        if points
    ]
    flush = float(config.buffer.flush)
    span = max([flush, *(every for *_, every in jobs)])
    windows = max(1, round(span / flush))
    each = sum(len(points) * flush / every for _, points, _, every in jobs)
    taken = max(1, min(windows, _WINDOWS, int(_READINGS / max(each, 1.0))))
    generator = random.Random(0)  # noqa: S311  # the same estimate every time; nothing depends on chance
    batches, seq = [], 1_000_000
    for index in range(taken):
        begin = (index * windows // taken) * flush
        samples = tuple(_samples(jobs, begin, begin + flush, generator))
        if samples:
            batches.append(Batch(seq, samples, "", sum(len(sample.points) for sample in samples)))
            seq += len(samples)
    return batches, DAY / flush / taken


def _samples(
    jobs: Sequence[tuple[str, tuple[str, ...], list[PointConfig], float]],
    begin: float,
    end: float,
    generator: random.Random,
) -> Iterator[Sample]:
    for number, (name, points, settings, every) in enumerate(jobs):
        phase = (number * 0.618) % 1.0 * every
        turn = -(-(begin - phase) // every)
        while (moment := phase + turn * every) < end:
            time = _T0 + round(moment * 1e6) + generator.randrange(5_000)
            values = tuple(_value(point, generator) for point in settings)
            yield Sample(name, time, time, points, values)
            turn += 1


def _value(point: PointConfig, generator: random.Random) -> Value:
    """A value as such a point has it: of its type, in its range, with its digits."""
    kind = str(getattr(point, "type", None) or "")
    if "bool" in kind:
        return generator.random() < 0.5  # noqa: PLR2004  # true or false
    if "str" in kind:
        return "ABCDEFGH"
    low, high = point.range or (0.0, 1000.0)
    if not math.isfinite(high - low):  # open to one side, or to both
        low, high = (low, low + 1000.0) if math.isfinite(low) else (min(high, 1000.0) - 1000.0, min(high, 1000.0))
    value = generator.uniform(low, high)
    if point.decimals is not None:
        return round(value, point.decimals)
    if "float" in kind:
        return float(f"{value:.7g}")
    return round(value) * point.scale if point.scale < 1 else round(value)
