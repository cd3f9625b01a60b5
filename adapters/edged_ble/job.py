"""Some points of one device that are read together: which are heard, which are read through a connection. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edged.adapter import ALL_GOOD, ConfigError, Name, Quality, Reason, Sample, Value, bad

from .codecs import gatt
from .codecs.advert import Decoder, uuid_of
from .codecs.layout import Field
from .config import BleDevice, BlePoint
from .listener import Listener, Packet

RSSI, LAST_SEEN = "rssi", "last_seen"
"""What every sender has: the strength of its last signal in dBm, and when that was, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Place:
    """One point that is in a characteristic."""

    point: str
    part: str
    """The part of a standard characteristic."""
    field: Field | None
    """Where it is in another one."""


@dataclass(frozen=True, slots=True)
class Characteristic:
    """A characteristic and the points in it."""

    uuid: str
    service: str
    notify: bool
    places: tuple[Place, ...]

    @property
    def points(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(place.point for place in self.places)

    def sample(self, device: str, data: bytes, wall: int, mono: int) -> Sample:
        """What its bytes say."""
        known = gatt.FORMATS.get(self.uuid)
        parts: Mapping[str, Value] = {}
        if known is not None:
            try:
                parts = known.parse(data)
            except ValueError:
                parts = {}
        values: list[Value] = []
        quality: dict[int, Quality] = {}
        for i, place in enumerate(self.places):
            value = parts.get(place.part) if place.field is None else place.field.read(data)
            if value is None or isinstance(value, Quality):
                quality[i] = value or bad(Reason.DECODE)
                value = None
            values.append(value)
        return Sample(device, wall, mono, self.points, values, quality)

    def without(self, device: str, reason: str, wall: int, mono: int) -> Sample:
        """That there is no value."""
        return without(device, self.points, reason, wall, mono)


def without(device: str, points: tuple[str, ...], reason: str, wall: int, mono: int) -> Sample:
    """That these points have no value."""
    quality = bad(reason)
    return Sample(device, wall, mono, points, (None,) * len(points), dict.fromkeys(range(len(points)), quality))


@dataclass(slots=True, eq=False, weakref_slot=True)
class BleJob:
    """See `edged.adapter.Job`. Remembers what it has delivered."""

    device: str
    points: tuple[str, ...]
    heard: Mapping[str, tuple[str, ...]]
    """Field of the decoder → the points that show it."""
    radio: tuple[str, ...]
    """The points that are `rssi` or `last_seen`."""
    fields: Mapping[str, str]
    """Point → field."""
    characteristics: tuple[Characteristic, ...]
    events: frozenset[str]
    thin: bool
    """One measurement in each period is enough, and what happened between them: the period is longer than a second."""
    delivered: int = 0
    """The number of the last measurement."""
    lost: int = 0
    """Measurements that went before they were fetched."""
    seen: int = 0
    """The last sighting that was reported."""
    silent: bool = False
    """Whether it was too long without news, and has not had any since."""
    said: dict[str, int] = field(default_factory=dict)
    """Characteristic that comes by itself → when it was last reported (mono)."""
    missed: frozenset[str] = frozenset()
    """The points that are stale, and were reported so."""
    shapes: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    """Fields of a measurement → (points, their fields)."""

    def sample(self, packet: Packet) -> Sample | None:
        """The sample of a measurement; None if it has none of the job's points."""
        names = tuple(packet.values)
        shape = self.shapes.get(names)
        if shape is None:
            if len(self.shapes) >= _SHAPES:
                self.shapes.clear()
            pairs = [(point, name) for name in names for point in self.heard.get(name, ())]
            pairs += [(point, self.fields[point]) for point in self.radio] if pairs else []
            shape = tuple(point for point, _ in pairs), tuple(name for _, name in pairs)
            self.shapes[names] = shape
        points, fields = shape
        if not points:
            return None
        values: list[Value] = []
        quality: dict[int, Quality] = {}
        for i, name in enumerate(fields):
            value = self._value(packet, name)
            if value is None or name in packet.quality:
                quality[i] = packet.quality.get(name) or bad(Reason.DECODE)
                if quality[i].status == "bad":
                    value = None
            values.append(value)
        return Sample(self.device, packet.wall, packet.mono, points, values, quality or ALL_GOOD)

    def _value(self, packet: Packet, name: str) -> Value:
        if name == RSSI and name not in packet.values:
            return packet.rssi
        if name == LAST_SEEN and name not in packet.values:
            return packet.wall / 1e6
        return packet.values[name]

    def wanted(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        """Those of these measurements that are to be reported: all, or the newest of each field and all events."""
        if not self.thin:
            return packets
        kept: list[Packet] = []
        fields: set[str] = set()
        for packet in reversed(packets):
            if not self.events.isdisjoint(packet.values) or not fields.issuperset(packet.values):
                kept.append(packet)
                fields.update(packet.values)
        return kept[::-1]

    def sighting(self, listener: Listener) -> Sample | None:
        """The radio's points alone, when it was heard since they were reported last."""
        if not self.radio or listener.seen <= self.seen:
            return None
        self.seen = listener.seen
        values = [listener.rssi if self.fields[p] == RSSI else listener.seen_wall / 1e6 for p in self.radio]
        return Sample(self.device, listener.seen_wall, listener.seen, self.radio, values)

    def stale(self, listener: Listener, before: int) -> tuple[str, ...]:
        """Points that did not come since `before` (mono) although the device was heard; each is named once."""
        late = frozenset(
            point
            for name, points in self.heard.items()
            if name not in self.events and listener.fields.get(name, 0) < before
            for point in points
        )
        fresh, self.missed = late - self.missed, late
        return tuple(point for point in self.points if point in fresh)


_SHAPES = 64


def prepare(device: str, config: BleDevice, decoder: Decoder | None, points: Sequence[str]) -> BleJob:
    """The job for these points. Raises ConfigError."""
    kinds = decoder.points if decoder else {}
    if unknown := [point for point in points if point not in config.points]:
        raise ConfigError(f"{device} has no point {unknown[0]!r}")
    heard: dict[str, list[str]] = {}
    radio: list[str] = []
    fields: dict[str, str] = {}
    for point in points:
        spec = config.points[Name(point)]
        if spec.characteristic:
            continue
        name = spec.field or point
        fields[point] = name
        if point in config.radio_points:
            radio.append(point)
        else:
            heard.setdefault(name, []).append(point)
    return BleJob(
        device,
        tuple(points),
        {name: tuple(names) for name, names in heard.items()},
        tuple(radio),
        fields,
        _characteristics(config, points),
        frozenset(name for name, kind in kinds.items() if kind.event),
        any((config.points[Name(point)].every or config.every) > 1 for point in points),
    )


def _characteristics(config: BleDevice, points: Sequence[str]) -> tuple[Characteristic, ...]:
    groups: dict[tuple[str, str, bool], list[Place]] = {}
    for point in points:
        spec = config.points[Name(point)]
        if not spec.characteristic:
            continue
        uuid, service = uuid_of(spec.characteristic), uuid_of(spec.service) if spec.service else ""
        groups.setdefault((uuid, service, spec.notify), []).append(_place(point, spec, uuid))
    return tuple(Characteristic(*key, tuple(places)) for key, places in groups.items())


def _place(point: str, spec: BlePoint, uuid: str) -> Place:
    if spec.has_layout:
        return Place(point, "", spec.layout)
    known = gatt.FORMATS[uuid]
    return Place(point, spec.field or (point if point in known.points else known.main), None)
