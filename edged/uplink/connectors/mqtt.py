"""The connector `mqtt`: edged's own JSON over MQTT 5, or 3.1.1 where the broker has nothing newer.

The messages are described in docs/reference/mqtt.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import orjson

from edged import __version__
from edged.config.base import STRICT, ConnectionConfig, DeviceConfig
from edged.config.model import GatewayConfig
from edged.downlink.api import Dialect, Twin
from edged.errors import ConfigError
from edged.uplink.api import Chunk, ConnectionContext, Encoder, Envelope, Link, Message
from edged.uplink.brokers import BrokerConnection, broker
from edged.uplink.json_commands import JsonCommands, change_message
from edged.uplink.laidout import LaidOutConnection, LaidOutEncoder
from edged.uplink.payload import VERSION
from edged.uplink.topics import check_template, fill
from edged.uplink.upstream import NAMES, names_of, pacing

if TYPE_CHECKING:
    from edged.uplink.links.mqtt_commands import CommandService


@dataclass(frozen=True, kw_only=True)
class MqttConnection(LaidOutConnection, BrokerConnection):
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

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if not self.commands:
            yield "command_topic", "it needs `commands: true`"
            yield "result_topic", "it needs `commands: true`"
        yield from super().idle()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_layout()
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


class JsonEncoder(LaidOutEncoder):
    """Cuts batches into messages and encodes them."""

    def __init__(self, config: MqttConnection, context: ConnectionContext) -> None:
        """Raises ConfigError if a topic cannot be made."""
        super().__init__(config, context, "topic", partial(fill, config.topic))
        self._fixed = {"content-encoding": config.compression} if config.compression != "none" else {}

    def properties(self, chunk: Chunk, envelope: Envelope) -> dict[str, str]:
        """The user properties."""
        return {**self._fixed, **self._layout.proof(chunk, envelope)}


class AnnouncedTopics(Protocol):
    """Where the announcements go, as templates: those of a configuration, or what another connector has instead."""

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
        self._brief = context.brief
        self._template = config.metadata_topic
        self._names = names_of(context)
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
        system = {"system": dict(found)} if (found := self._brief()) else {}
        return Message(self._health_topic, orjson.dumps(head | dict(self._counters()) | system), retain=True)

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

        announcements, service = Announcements(config, context), make_service(config, context)
        return MqttLink(context.name, broker(config, context), announcements, pacing(config), service)


def make_service(
    config: MqttConnection, context: ConnectionContext, around: Callable[[Dialect], Dialect] | None = None
) -> CommandService:
    """What the connection does besides; `around` adds another dialect. Raises ConfigError if a topic cannot be made."""
    from edged.uplink.links.mqtt_commands import CommandService  # noqa: PLC0415  # as above

    names, gateway = names_of(context), str(context.gateway.id)
    try:
        topics = [fill(template, names) for template in (config.command_topic, config.result_topic)]
        fill(config.monitor_topic, {**names, "device": "device", "point": "point"})
    except ValueError as exc:
        raise ConfigError(f"connection {context.name}: {exc}") from exc
    dialect: Dialect = JsonCommands(gateway, context.name, command_topic=topics[0], result_topic=topics[1])
    if around is not None:
        dialect = around(dialect)
    twin = context.twin

    async def changes(watched: Twin) -> AsyncIterator[Message]:
        async for change in watched.changes():
            yield change_message(gateway, config.monitor_topic, names, change)

    return CommandService(context.name, dialect, context.commands, partial(changes, twin) if twin is not None else None)


CONNECTOR = MqttConnector()
