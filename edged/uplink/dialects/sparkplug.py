"""Sparkplug B 3.0: the gateway is an edge node, each device one of its devices, each point a metric. Pure.

A `Node` knows what the hosts have been told in births: names, aliases, types, and how fresh the values there are. The
encoder and the link of a connection share it, because a DDATA has a meaning only together with the birth before it.

Source: Eclipse Sparkplug 3.0.0; the identifiers in brackets are its own (`tck-id-…`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from edged import __version__
from edged.buffer.batch import Batch
from edged.config.base import DeviceConfig, PointConfig
from edged.downlink.api import TwinPoint, TwinValue
from edged.errors import PermanentError
from edged.model import GOOD, Quality, Reason, Sample, Value, bad
from edged.uplink.api import Chunk, Envelope, Lane, Message
from edged.uplink.dialects import sparkplug_payload as payload
from edged.uplink.dialects.cutting import cut
from edged.uplink.dialects.kinds import Kind, promised
from edged.uplink.dialects.sparkplug_payload import HISTORICAL, NULL, DataType
from edged.uplink.topics import escape

NAMESPACE = "spBv1.0"
CONTENT_TYPE = "application/vnd.eclipse.sparkplug.b"
BDSEQ, REBIRTH = "bdSeq", "Node Control/Rebirth"
PROVENANCE = "edged/1"
"""Begins the text in the payload's `body`: `edged/1 epoch lane first seq prev readings`, and the flow if it is of one:
all that a receiver needs to prove that nothing is missing."""
_DOWN = frozenset({Reason.TIMEOUT, Reason.UNREACHABLE})
_double = struct.Struct("<d").pack
_SHORT = 128
"""From so many bytes on a length needs a second byte."""
_SHAPES = 4096


@dataclass(frozen=True, slots=True)
class SparkplugMessage(Message):
    """A DDATA that still lacks time and `seq`, and what the link needs to know of it."""

    device: str = ""
    """Empty: a message of the node."""
    down: bool = False
    """Whether it says that the device does not answer: it is dead from then on."""
    chunk: Chunk | None = None
    envelope: Envelope | None = None
    births: int = 0
    """How many births had been made when it was encoded: after another one it must be encoded anew."""


@dataclass(slots=True)
class Column:
    """A metric of a device, as hosts know it."""

    name: str
    alias: int
    config: PointConfig | None
    kind: DataType
    firm: bool
    """Whether `kind` comes from the configuration or a value, and is no mere guess."""
    good: bool = True
    """Whether the last value told was good: a host keeps a quality until it hears another."""
    told: int = -1
    """The time of the value in the last birth, microseconds: what is not newer is history."""
    head: bytes = b""
    """Alias and type, as each DDATA has them."""

    def fit(self, value: Value) -> bool:
        """Make the type one that holds the value; False where that changed it, so that a new birth is due."""
        kind = payload.suits(self.kind, value) if self.firm or value is None else _kind_of(value)
        self.firm = self.firm or value is not None
        unchanged = kind is self.kind
        self.kind = kind
        if not unchanged or not self.head:
            self.head = payload.alias_field(self.alias) + payload.type_field(kind)
        return unchanged


def _kind_of(value: Value) -> DataType:
    """The type of a metric of which nothing else is known: most numbers have a fraction sooner or later."""
    return payload.suits(DataType.BOOLEAN if isinstance(value, bool) else DataType.DOUBLE, value)


_TYPES = {
    Kind.TRUTH: DataType.BOOLEAN, Kind.WHOLE: DataType.INT64, Kind.LARGE: DataType.UINT64,
    Kind.NUMBER: DataType.DOUBLE, Kind.TEXT: DataType.STRING,
}  # fmt: skip


@dataclass(slots=True)
class Node:
    """What hosts know of this gateway; also the encoder of its data."""

    group: str
    name: str
    configured: Callable[[], Mapping[str, DeviceConfig]]
    """The devices as they are at the moment of asking."""
    max_readings: int = 500
    births: int = 0
    """How many births of the node or a device have been made."""
    due: set[str] = field(default_factory=set)
    """Devices whose metrics have changed since their birth."""
    _devices: dict[str, dict[str, Column]] = field(default_factory=dict)
    _aliases: dict[int, tuple[str, str]] = field(default_factory=dict)
    _last_alias: int = 0
    """None is given twice: a command that was on its way would write another point."""
    _columns: dict[tuple[str, tuple[str, ...]], list[Column]] = field(default_factory=dict)

    # -- topics and names --------------------------------------------------------------------------------------------

    def topic(self, kind: str, device: str = "") -> str:
        """The topic of a message type, e.g. `spBv1.0/group/DDATA/node/device`."""
        return "/".join([NAMESPACE, self.group, kind, self.name, *([escape(device)] if device else [])])

    def point_of(self, metric: payload.Metric, device: str) -> str:
        """The point that a metric of a command is for; empty if there is none."""
        if metric.name:
            return metric.name if metric.name in self._devices.get(device, {}) else ""
        owner, point = self._aliases.get(metric.alias or 0, ("", ""))
        return point if owner == device else ""

    def is_signed(self, device: str, point: str) -> bool:
        """Whether hosts know the metric of a point as one of a type with a sign."""
        column = self._devices.get(device, {}).get(point)
        return column is not None and column.kind is DataType.INT64

    def device_of(self, level: str) -> str:
        """The device that a level of a topic names; empty if there is none."""
        return next((device for device in self._devices if escape(device) == level), "")

    # -- what is configured ------------------------------------------------------------------------------------------

    def refresh(self) -> tuple[list[str], list[str]]:
        """Take over the devices of this moment; returns those that are there and those that are gone."""
        configured = {str(name): device for name, device in self.configured().items() if device.enabled}
        gone = [name for name in self._devices if name not in configured]
        for name in gone:
            for column in self._devices.pop(name).values():
                del self._aliases[column.alias]
        for name, device in configured.items():
            columns = self._devices.setdefault(name, {})
            wanted = {str(point): config for point, config in device.points.items()}
            for point in [point for point, column in columns.items() if column.config and point not in wanted]:
                del self._aliases[columns.pop(point).alias]
            for point, config in wanted.items():
                if point not in columns or columns[point].config != config:
                    self._add(name, point, config)
        self._columns.clear()
        return list(configured), gone

    def _add(self, device: str, point: str, config: PointConfig | None) -> Column:
        columns = self._devices.setdefault(device, {})
        if point in columns:
            alias = columns[point].alias
        else:
            alias = self._last_alias = self._last_alias + 1
        self._aliases[alias] = device, point
        kind = promised(config)
        hint = _TYPES[kind] if kind else DataType.DOUBLE
        column = columns[point] = Column(point, alias, config, hint, kind is not None)
        column.fit(None)
        return column

    # -- births ------------------------------------------------------------------------------------------------------

    def node_birth(self, bdseq: int, counters: Mapping[str, int], us: int) -> Message:
        """NBIRTH, without time and `seq` as yet: `bdSeq`, the way to ask for a rebirth, and what the gateway counts."""
        self.births += 1
        stamp = payload.time_field(us)
        content = _bdseq(bdseq, stamp)
        content += _named(REBIRTH, DataType.BOOLEAN, False, stamp)  # noqa: FBT003  # a value like any other
        content += _named("Properties/edged version", DataType.STRING, __version__, stamp)
        return self._message("NBIRTH", content + _counted(counters, stamp))

    def node_death(self, bdseq: int) -> Message:
        """NDEATH: its `bdSeq` says which birth it ends; it has no `seq` [payloads-ndeath-seq]."""
        return self._message("NDEATH", _bdseq(bdseq, b""))

    def node_data(self, counters: Mapping[str, int], us: int) -> Message:
        """NDATA: what the gateway counts."""
        return self._message("NDATA", _counted(counters, payload.time_field(us)))

    def device_birth(self, device: str, known: Mapping[str, TwinPoint], us: int) -> Message:
        """DBIRTH: every metric with its type, its properties and the last value, or null where there is none."""
        self.births += 1
        self.due.discard(device)
        parts = []
        for column in self._devices[device].values():
            twin = known.get(column.name)
            reported = twin.reported if twin else None
            parts.append(_birth(column, reported, us))
        return self._message("DBIRTH", b"".join(parts), device)

    def device_death(self, device: str) -> Message:
        """DDEATH: only a time and a `seq`, which it gets when it is sent."""
        return self._message("DDEATH", b"", device)

    def _message(self, kind: str, content: bytes, device: str = "") -> Message:
        return Message(self.topic(kind, device), content, content_type=CONTENT_TYPE)

    # -- data --------------------------------------------------------------------------------------------------------

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """Cut a batch into runs of samples of one device: a DDATA has no more."""
        return cut(batch, self.max_readings, one_device=True)

    def encode(self, chunk: Chunk, envelope: Envelope) -> SparkplugMessage:
        """DDATA, without time and `seq` as yet; of samples that thinning has emptied an NDATA that only counts them.

        Raises PermanentError where the samples are of several devices, as a flow with an interval may make them.
        """
        samples = [sample for sample in chunk.samples if sample.points]
        device = samples[0].device if samples else ""
        if any(sample.device != device for sample in samples):  # the forwarder divides it
            raise PermanentError("a DDATA has one device, and these readings are of several", reason="devices")
        lane = Lane.REPLAY if chunk.replay else envelope.lane
        historical = lane in {Lane.HISTORICAL, Lane.REPLAY}
        content = b"".join([self._sample(sample, historical=historical) for sample in samples])
        content += payload.body(
            f"{PROVENANCE} {envelope.epoch} {lane} {chunk.first} {envelope.seq} {envelope.prev} {chunk.readings}"
            f"{' ' if envelope.flow else ''}{envelope.flow}"
        )
        return SparkplugMessage(
            self.topic("DDATA" if device else "NDATA", device), content, content_type=CONTENT_TYPE, device=device,
            down=not historical and bool(samples) and _is_down(samples[-1]), chunk=chunk, envelope=envelope,
            births=self.births,
        )  # fmt: skip

    def _sample(self, sample: Sample, *, historical: bool) -> bytes:
        stamp, parts = payload.time_field(sample.time), []
        past = stamp + HISTORICAL
        double, quality = DataType.DOUBLE, sample.quality
        for i, (column, value) in enumerate(zip(self._of(sample), sample.values, strict=True)):
            old = historical or sample.time <= column.told
            if (
                value.__class__ is float and column.kind is double and column.good and i not in quality
                and math.isfinite(value)
            ):  # fmt: skip
                content = column.head + (past if old else stamp) + b"\x69" + _double(value)
            else:
                content = self._odd(sample.device, column, value, quality.get(i, GOOD), old=old)
                content = column.head + (past if old else stamp) + content
            size = len(content)
            parts.append(b"\x12%c" % size + content if size < _SHORT else payload.metric(content))
        return b"".join(parts)

    def _odd(self, device: str, column: Column, value: Value, quality: Quality, *, old: bool) -> bytes:
        """The value and what is to be said of it, in all cases but the usual one."""
        value, quality = presentable(value, quality)
        if not column.fit(value):
            self.due.add(device)
        good = quality.status == "good"
        said = b"" if good and (column.good or old) else payload.properties(payload.quality_of(quality))
        if not old:
            column.good = good
        return (NULL if value is None else payload.value_field(column.kind, value)) + said

    def _of(self, sample: Sample) -> list[Column]:
        key = sample.device, sample.points
        columns = self._columns.get(key)
        if columns is None:
            if len(self._columns) >= _SHAPES:
                self._columns.clear()
            columns = self._columns[key] = [self._column(sample.device, str(point)) for point in sample.points]
        return columns

    def _column(self, device: str, point: str) -> Column:
        """The metric of a point. One that is configured no more, but has readings left, gets a birth of its own."""
        column = self._devices.get(device, {}).get(point)
        if column is None:
            column = self._add(device, point, None)
            self.due.add(device)
        return column


def presentable(value: Value, quality: Quality) -> tuple[Value, Quality]:
    """Null for each value that is bad or no number, and a bad quality for each null."""
    if quality.status == "bad":
        return None, quality
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None, bad(Reason.DECODE)
    return value, quality


def _is_down(sample: Sample) -> bool:
    """Whether the device did not answer at all."""
    return len(sample.quality) == len(sample.points) and all(
        quality.status == "bad" and quality.reason in _DOWN for quality in sample.quality.values()
    )


def all_down(known: Mapping[str, TwinPoint]) -> bool:
    """Whether the last that was heard of a device is that it does not answer at all."""
    found = [twin.reported.quality for twin in known.values() if twin.reported is not None]
    return bool(found) and all(quality.status == "bad" and quality.reason in _DOWN for quality in found)


def _named(name: str, kind: DataType, value: Value, stamp: bytes) -> bytes:
    head = payload.name_field(name) + stamp + payload.type_field(kind)
    return payload.metric(head + payload.value_field(kind, value))


def _bdseq(number: int, stamp: bytes) -> bytes:
    return _named(BDSEQ, DataType.INT64, number, stamp)


def _counted(counters: Mapping[str, int], stamp: bytes) -> bytes:
    return b"".join(_named(f"Readings/{name}", DataType.INT64, count, stamp) for name, count in counters.items())


def _birth(column: Column, reported: TwinValue | None, us: int) -> bytes:
    """A metric of a DBIRTH. What is not known yet is null and stale: hosts must learn of the metric all the same."""
    value, quality, time = (reported.value, reported.quality, reported.time) if reported else (None, bad("unread"), us)
    value, quality = presentable(value, quality)
    column.fit(value)
    column.told = time if reported else -1
    column.good = quality.status == "good"
    unread: dict[str, Value] = {"Quality": payload.STALE, "edged quality": "unread"}
    said = (payload.quality_of(quality) if reported else unread) | _described(column.config)
    content = payload.name_field(column.name) + payload.alias_field(column.alias) + payload.time_field(time)
    content += payload.type_field(column.kind)
    content += NULL if value is None else payload.value_field(column.kind, value)
    return payload.metric(content + payload.properties(said))


def _described(config: PointConfig | None) -> dict[str, Value]:
    """The properties by which hosts describe a metric, named as Ignition and most others read them."""
    if config is None:
        return {}
    said: dict[str, Value] = {"readOnly": not config.writable}
    if config.unit:
        said["engUnit"] = config.unit
    if config.range:
        said["engLow"], said["engHigh"] = map(float, config.range)
    if config.description:
        said["documentation"] = config.description
    return said


def provenance(text: str, gateway: str) -> dict[str, object]:
    """What the `body` of a DDATA says, in the words of the JSON messages. Raises ValueError if it is not ours."""
    head, epoch, lane, *numbers = text.split(" ")
    if head != PROVENANCE:
        raise ValueError(f"{head!r} is no provenance of edged")
    first, seq, prev, readings = map(int, numbers[:4])
    replay = lane == Lane.REPLAY
    return {
        "gateway": gateway, "epoch": epoch, "lane": lane, "first": first, "seq": seq, "prev": prev,
        "readings": readings, "replay": replay, **({"flow": numbers[4]} if numbers[4:] else {}),
    }  # fmt: skip
