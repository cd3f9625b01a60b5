"""The connector `mqtt`: edged's own JSON over MQTT 5, or 3.1.1 where the broker has nothing newer.

The messages are described in docs/reference/mqtt.md.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import orjson

from edged import __version__
from edged.buffer.batch import Batch
from edged.config.base import STRICT, ConnectionConfig, DeviceConfig
from edged.config.model import GatewayConfig
from edged.downlink.api import Twin
from edged.errors import ConfigError, PermanentError
from edged.uplink.api import Chunk, ConnectionContext, Encoder, Envelope, Lane, Link, Message
from edged.uplink.brokers import NAMES, BrokerConnection, broker, pacing, topic_names
from edged.uplink.encoders import encode_columns, encode_sample
from edged.uplink.json_commands import JsonCommands, change_message
from edged.uplink.payload import VERSION
from edged.uplink.topics import check_template, fill

if TYPE_CHECKING:
    from edged.uplink.links.mqtt_commands import CommandService

_MAX_CHUNK = 5000


@dataclass(frozen=True, kw_only=True)
class MqttConnection(BrokerConnection):
    """An MQTT broker that receives the readings as JSON."""

    __pydantic_config__: ClassVar = STRICT
    follows_devices: ClassVar[bool] = True

    topic: str = "edged/{gateway}/data"
    """Where the readings go. `{gateway}`, `{tenant}`, `{building}`, `{location}`, `{connection}` and `{lane}` are
    filled in, and `{device}` with `layout: samples`."""
    status_topic: str = "edged/{gateway}/status"
    """Where a retained message says whether the gateway is online."""
    health_topic: str = "edged/{gateway}/health"
    """Where a retained message says, once a minute, what became of all readings: delivered, waiting, given up."""
    metadata_topic: str = "edged/{gateway}/metadata"
    """Where a retained message describes devices, points and units. With `{device}`: one message for each device, as is
    needed where there are so many that the broker would find one message too large."""
    command_topic: str = "edged/{gateway}/command"
    """With `commands: true`: where commands are taken from."""
    result_topic: str = "edged/{gateway}/command/result"
    """Where it is told what became of a command, unless the command names a response topic itself."""
    monitor_topic: str = "edged/{gateway}/monitor/{device}/{point}"
    """Where changes of points with `monitor: true` go, one by one."""
    LAYOUTS: ClassVar = ("columns", "samples", "senml", "senml-cbor", "influx", "template")
    takes_flows: ClassVar[bool] = True

    layout: Literal["columns", "samples", "senml", "senml-cbor", "influx", "template"] = "columns"
    """`columns`: many samples in one message. `samples`: one message for each sample of a device. `senml` and
    `senml-cbor`: RFC 8428. `influx`: line protocol. `template`: a line of your own for each reading. All but the first
    two say `epoch`, `seq` and `prev` in user properties, so with MQTT 5 only."""
    template: str = ""
    """With `layout: template`: what is written for each reading, such as `{"p": "{device}/{point}", "v": {value}}`."""
    max_readings: int = 500
    """Up to how many readings go into one message, unless it is `layout: samples`."""
    compression: Literal["none", "zlib", "gzip"] = "none"
    """Compresses the payload of readings; status and metadata stay as they are."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if self.layout != "template":
            yield "template", f"it needs `layout: template`, and this is `{self.layout}`"
        if self.layout == "samples":
            yield "max_readings", "with `layout: samples` each sample is a message"
        if not self.commands:
            yield "command_topic", "it needs `commands: true`"
            yield "result_topic", "it needs `commands: true`"
        yield from super().idle()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 100 <= self.max_readings <= _MAX_CHUNK:  # noqa: PLR2004  # as the message says
            raise ValueError(f"`max_readings` must lie between 100 and {_MAX_CHUNK}")
        if self.layout == "template":
            from edged.uplink.layouts.template import check  # noqa: PLC0415  # only who wants it pays for it

            check(self.template)
        self._check_topics()

    def _check_topics(self) -> None:
        names = (*NAMES, "lane")
        if "device" in check_template(self.topic, (*names, "device")) and self.layout != "samples":
            raise ValueError(
                "`topic` can use {device} only with `layout: samples`: a message of columns has many devices"
            )
        check_template(self.status_topic, NAMES)
        check_template(self.health_topic, NAMES)
        check_template(self.metadata_topic, (*NAMES, "device"))
        check_template(self.command_topic, NAMES)
        check_template(self.result_topic, NAMES)
        check_template(self.monitor_topic, (*NAMES, "device", "point"))
        settings = (
            "topic", "status_topic", "health_topic", "metadata_topic", "command_topic", "result_topic", "monitor_topic",
        )  # fmt: skip
        if len({getattr(self, setting) for setting in settings}) < len(settings):
            raise ValueError(f"{', '.join(f'`{one}`' for one in settings[:-1])} and `{settings[-1]}` must differ")


class JsonEncoder:
    """Cuts batches into messages and encodes them."""

    def __init__(self, config: MqttConnection, context: ConnectionContext) -> None:
        """Raises ConfigError if a topic cannot be made."""
        self._gateway = str(context.gateway.id)
        self._names = topic_names(context)
        self._template = config.topic
        self._max_readings = config.max_readings
        self._by_sample = config.layout == "samples"
        self._layout, self._template_text = config.layout, config.template
        self._encode = encode_sample if self._by_sample else encode_columns
        self._devices = context.devices
        self._changed_units: Callable[[dict[str, str]], dict[str, str]] | None = context.shared.get("units")
        self._compress = _COMPRESSORS[config.compression]
        self._properties = {"content-encoding": config.compression} if config.compression != "none" else {}
        self._topics: dict[tuple[Lane, str], str] = {}
        try:
            self._topic(Lane.LIVE, "device")
        except ValueError as exc:
            raise ConfigError(f"connection {context.name}: {exc}") from exc

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """Cut a batch into chunks of one sample, or of as many as make up to `max_readings` readings.

        With chunks of one sample, those that thinning has emptied go with the next one.
        """
        begin = count = 0
        limit = 0 if self._by_sample else self._max_readings
        for i, sample in enumerate(batch.samples):
            size = len(sample.points)
            if i > begin and count + size > limit and (count or limit):
                yield Chunk(batch.first + begin, batch.samples[begin:i], count, batch.boot, batch.replay)
                begin, count = i, 0
            count += size
        if begin < len(batch.samples):
            yield Chunk(batch.first + begin, batch.samples[begin:], count, batch.boot, batch.replay)

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message. Raises PermanentError if the chunk can never be encoded."""
        try:
            topic = self._topic(Lane.HISTORICAL if chunk.replay else envelope.lane, chunk.samples[-1].device)
        except ValueError as exc:
            raise PermanentError(str(exc), reason="topic") from exc
        if self._layout in {"columns", "samples"}:
            payload = self._compress(self._encode(chunk, envelope, self._gateway))
            return Message(topic, payload, properties=self._properties)
        text, content_type = self._other(chunk)
        if not text:
            return Message("", b"", skip=True, left_out=chunk.readings)
        properties = {**self._properties, **_proof(chunk, envelope, self._gateway)}
        return Message(topic, self._compress(text), content_type, properties=properties)

    def _other(self, chunk: Chunk) -> tuple[bytes, str]:
        """The payload in a layout that is not edged's own, empty if there is nothing to say; and its content type."""
        from edged.uplink.layouts import influx, senml, template  # noqa: PLC0415  # only who wants them pays for them

        names = {**self._names, "gateway": self._gateway}
        try:
            match self._layout:
                case "senml" | "senml-cbor":
                    records = list(senml.records(chunk.samples, self._gateway, self._units()))
                    if self._layout == "senml":
                        return senml.encode_json(records) if records else b"", senml.JSON
                    return senml.encode_cbor(records) if records else b"", senml.CBOR
                case "influx":
                    lines = influx.lines(chunk.samples, self._gateway)
                case _:
                    lines = template.lines(self._template_text, chunk.samples, names, self._units())
            return "\n".join(lines).encode(), influx.CONTENT
        except (TypeError, ValueError) as exc:
            raise PermanentError(f"cannot be written as {self._layout}: {exc}", reason="unencodable") from exc

    def _units(self) -> dict[tuple[str, str], str]:
        """As configured, or as a flow has changed them."""
        units: dict[tuple[str, str], str] = {}
        for device, settings in self._devices.items():
            own = {str(point): one.unit for point, one in settings.points.items() if one.unit}
            for point, unit in (self._changed_units(own) if self._changed_units else own).items():
                units[device, point] = unit
        return units

    def _topic(self, lane: Lane, device: str) -> str:
        key = lane, device if self._by_sample else ""
        topic = self._topics.get(key)
        if topic is None:
            topic = fill(self._template, {**self._names, "lane": lane.value, "device": device})
            self._topics[key] = topic
        return topic


def _proof(chunk: Chunk, envelope: Envelope, gateway: str) -> dict[str, str]:
    """What edged's own layouts say in the payload."""
    known = {
        "gateway": gateway, "readings": str(chunk.readings),
        "epoch": envelope.epoch, "lane": str(Lane.HISTORICAL if chunk.replay else envelope.lane),
        "first": str(chunk.first), "seq": str(envelope.seq), "prev": str(envelope.prev), "flow": envelope.flow,
        "replay": "true" if chunk.replay else "",
    }  # fmt: skip
    return {name: text for name, text in known.items() if text}


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "zlib": zlib.compress, "gzip": _gzip}


class AnnouncedTopics(Protocol):
    """Where the announcements go, as templates: a part of the configuration, or of what another connector makes of it."""

    @property
    def status_topic(self) -> str:
        """Whether the gateway is online."""
        ...

    @property
    def health_topic(self) -> str:
        """What became of all readings."""
        ...

    @property
    def metadata_topic(self) -> str:
        """Devices, points and units."""
        ...


class Announcements:
    """The retained messages that say whether the gateway is there, and what its readings mean."""

    def __init__(self, config: AnnouncedTopics, context: ConnectionContext) -> None:
        """Raises ConfigError if a topic cannot be made."""
        self._connection = context.name
        self._gateway = context.gateway
        self._devices = context.devices
        self._clock_trusted = context.clock_trusted
        self._counters = context.counters
        self._template = config.metadata_topic
        self._names = topic_names(context)
        self._told: set[str] = set()
        """Topics of metadata so far: where a device is gone, its retained message is to go too."""
        try:
            self._status_topic = fill(config.status_topic, self._names)
            self._health_topic = fill(config.health_topic, self._names)
            self._by_topic()
        except ValueError as exc:
            raise ConfigError(f"connection {context.name}: {exc}") from exc

    def _by_topic(self) -> dict[str, dict[str, DeviceConfig]]:
        """The devices of this moment: a reload may have changed them. Raises ValueError if a topic cannot be made."""
        template, names = self._template, self._names
        by_topic: dict[str, dict[str, DeviceConfig]] = {}
        if "{device}" not in template:
            by_topic[fill(template, names)] = {}
        for device, settings in self._devices.items():
            if settings.enabled:
                by_topic.setdefault(fill(template, {**names, "device": device}), {})[device] = settings
        return by_topic

    def greeting(self, epoch: str, time: int) -> Iterator[Message]:
        """What to say when a session is open."""
        by_topic = self._by_topic()
        self._told |= by_topic.keys()
        gone = (Message(topic, b"", retain=True) for topic in sorted(self._told - by_topic.keys()))
        there = (Message(topic, metadata(self._gateway, devices), retain=True) for topic, devices in by_topic.items())
        return chain([self._status("online", "connected", epoch, time)], there, gone)

    def health(self, epoch: str, time: int) -> Message:
        """What to say from time to time: how the counters stand."""
        head = {
            "v": VERSION,
            "gateway": str(self._gateway.id),
            "connection": self._connection,
            "epoch": epoch,
            "time": time,
        }
        return Message(self._health_topic, orjson.dumps(head | dict(self._counters())), retain=True)

    def will(self, epoch: str, time: int) -> Message:
        """What the broker is to say when the session breaks."""
        return self._status("offline", "lost", epoch, time)

    def farewell(self, epoch: str, time: int) -> Message:
        """What to say before the session is closed."""
        return self._status("offline", "stopped", epoch, time)

    def _status(self, status: str, reason: str, epoch: str, time: int) -> Message:
        payload = orjson.dumps(
            {
                "v": VERSION,
                "gateway": str(self._gateway.id),
                "connection": self._connection,
                "status": status,
                "reason": reason,
                "epoch": epoch,
                "version": __version__,
                "time": time,
                "clock": "trusted" if self._clock_trusted() else "untrusted",
            }
        )
        return Message(self._status_topic, payload, retain=True)


def metadata(gateway: GatewayConfig, devices: Mapping[str, DeviceConfig]) -> bytes:
    """The payload that describes devices and points."""
    site = gateway.site
    head = {
        "v": VERSION,
        "gateway": str(gateway.id),
        "site": {
            "tenant": site.tenant,
            "building": site.building,
            "location": site.location,
            "timezone": site.timezone,
        },
        "devices": {},
    }
    text = bytearray(orjson.dumps(head)[:-2])
    described: dict[int, bytes] = {}  # devices of one profile share their points
    comma = b""
    for name, device in devices.items():  # one by one: of 100,000 devices a document of objects takes 100 MB
        points = described.get(id(device.points))
        if points is None:
            plain = {str(point): _point(config) for point, config in device.points.items()}
            points = described[id(device.points)] = orjson.dumps(plain)
        labels = orjson.dumps(dict(device.labels))
        text += b'%b%b:{"labels":%b,"points":%b}' % (comma, orjson.dumps(str(name)), labels, points)
        comma = b","
    text += b"}}"
    return bytes(text)


def _point(config: Any) -> dict[str, Any]:
    """What is known of a point; `type` is a setting of most adapters' points, not of all."""
    known = {name: getattr(config, name, "") for name in ("unit", "type", "description", "writable")}
    return {name: value for name, value in known.items() if value}


class MqttConnector:
    """Builds the parts of an `mqtt` connection."""

    connection_config: type[ConnectionConfig] = MqttConnection

    def encoder(self, config: MqttConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection. Raises ConfigError if its topics cannot be made."""
        return JsonEncoder(config, context)

    def link(self, config: MqttConnection, context: ConnectionContext) -> Link:
        """The link of this connection. Raises ConfigError if its topics cannot be made."""
        from edged.uplink.links.mqtt import MqttLink  # noqa: PLC0415  # only a forwarding daemon pays for aiomqtt

        announcements, service = Announcements(config, context), _service(config, context)
        return MqttLink(context.name, broker(config, context), announcements, pacing(config), service)


def _service(config: MqttConnection, context: ConnectionContext) -> CommandService:
    """What the connection does besides. Raises ConfigError if a topic cannot be made."""
    from edged.uplink.links.mqtt_commands import CommandService  # noqa: PLC0415  # as above

    names, gateway = topic_names(context), str(context.gateway.id)
    try:
        topics = [fill(template, names) for template in (config.command_topic, config.result_topic)]
        fill(config.monitor_topic, {**names, "device": "device", "point": "point"})
    except ValueError as exc:
        raise ConfigError(f"connection {context.name}: {exc}") from exc
    dialect = JsonCommands(gateway, context.name, command_topic=topics[0], result_topic=topics[1])
    twin = context.twin

    async def changes(watched: Twin) -> AsyncIterator[Message]:
        async for change in watched.changes():
            yield change_message(gateway, config.monitor_topic, names, change)

    return CommandService(context.name, dialect, context.commands, partial(changes, twin) if twin is not None else None)


CONNECTOR = MqttConnector()
