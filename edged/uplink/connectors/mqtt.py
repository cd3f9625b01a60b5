"""The connector `mqtt`: edged's own JSON over MQTT 5, or 3.1.1 where the broker has nothing newer.

The messages are described in docs/reference/mqtt.md.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import orjson

from edged import __version__
from edged.buffer.batch import Batch
from edged.config.base import STRICT, ConnectionConfig, DeviceConfig
from edged.config.model import GatewayConfig
from edged.config.types import Duration, Secret, Size
from edged.errors import ConfigError, PermanentError
from edged.uplink.api import Chunk, ConnectionContext, Encoder, Envelope, Lane, Link, Message, Pacing
from edged.uplink.encoders import encode_columns, encode_sample
from edged.uplink.payload import VERSION
from edged.uplink.topics import check_template, fill

log = logging.getLogger("edged.uplink")

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""The schemes of a broker's URL, and the port each means when none is given."""
_SYNONYMS = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts", "mqtt+ssl": "mqtts", "http": "ws", "https": "wss"}
_NAMES = ("gateway", "tenant", "building", "location", "connection")
_MAX_KEEPALIVE, _MAX_WINDOW = 65_535, 65_535
_MAX_CHUNK = 5000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a broker is."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """The parts of a broker's URL. Raises ValueError with what is wrong."""
        scheme, separator, _ = url.partition("://")
        if not separator:
            raise ValueError(f"`url: {url}` lacks the way to connect: write mqtt://{url}, or mqtts://{url} for TLS")
        if scheme not in PORTS:
            other = _SYNONYMS.get(scheme.lower(), scheme.lower())
            hint = f"write {other}://" if other in PORTS else "use mqtt://, mqtts://, ws:// or wss://"
            raise ValueError(f"`url` cannot begin with {scheme}://; {hint}")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise ValueError(f"`url: {url}` is no URL: {exc}") from None
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "`url` holds a user name or password; put them into `username` and `password: !secret NAME`"
            )
        if not parts.hostname or any(char.isspace() for char in url):
            raise ValueError(f"`url: {url}` names no host; write for instance {scheme}://broker.example.com")
        if port == 0 or parts.query or parts.fragment or (parts.path not in ("", "/") and not scheme.startswith("ws")):
            raise ValueError(f"`url: {url}` has more than scheme, host and port" if port != 0 else "port 0 is no port")
        return cls(
            scheme, parts.hostname, port or PORTS[scheme], parts.path if parts.path not in ("", "/") else "/mqtt"
        )

    @property
    def tls(self) -> bool:
        """Whether the broker is reached through TLS."""
        return self.scheme in {"mqtts", "wss"}


@dataclass(frozen=True, kw_only=True)
class MqttConnection(ConnectionConfig):
    """An MQTT broker that receives the readings as JSON."""

    __pydantic_config__: ClassVar = STRICT
    follows_devices: ClassVar[bool] = True

    url: str
    """The broker: `mqtt://host`, `mqtts://host` (TLS), `ws://host/path` or `wss://host/path`, with `:port` if it is not
    the usual one. Without a path: `/mqtt`."""
    username: str | None = None
    """The user name, if the broker wants one."""
    password: Secret | None = None
    """The password: `!secret NAME`."""
    client_id: str = ""
    """How the broker knows this client; no two may be the same. Without it: `edged-` gateway id `-` connection name."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """The version of MQTT. `auto` uses 5, and 3.1.1 when the broker refuses that. With 3.1.1 a broker cannot say that
    it refused a message: it then counts as delivered."""
    qos: int = 1
    """Always 1: the broker confirms each message. 0 would lose readings, 2 only costs time."""
    ca: str = ""
    """File with the certificates of the authorities to trust, PEM. Without it: those that the system trusts."""
    certificate: str = ""
    """File with this client's certificate, PEM, where the broker wants one."""
    key: str = ""
    """File with the private key of `certificate`, without a passphrase. Without it: it is in the certificate's file."""
    alpn: list[str] = field(default_factory=list)
    """Protocol names to offer in the TLS handshake, e.g. `[x-amzn-mqtt-ca]` for AWS on port 443."""
    server_name: str = ""
    """The name that the broker's certificate must have, when it is not the host of the `url`."""
    insecure: bool = False
    """`true` accepts any certificate: anybody on the way can read and change everything. Only for a test bench."""
    keepalive: Duration = Duration(30)
    """A silent connection is probed after this time, and given up after twice as long."""
    session_expiry: Duration = Duration(86_400)
    """How long the broker keeps this client's session after the connection broke."""
    connect_timeout: Duration = Duration(10)
    """How long one attempt to connect may take."""
    ack_timeout: Duration = Duration(20)
    """When messages wait for the broker's word and none comes for so long, the connection is given up and made anew."""
    retry_max: Duration = Duration(30)
    """The longest pause between two attempts to connect. Pauses are random, and grow up to this."""
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
    layout: Literal["columns", "samples"] = "columns"
    """`columns`: many samples in one message. `samples`: one message for each sample of a device."""
    max_readings: int = 500
    """With `layout: columns`: up to how many readings go into one message."""
    max_message: Size = Size(128 * 1024)
    """The largest payload the broker takes; bigger ones are divided. What an MQTT 5 broker announces counts as well."""
    compression: Literal["none", "zlib", "gzip"] = "none"
    """Compresses the payload of readings; status and metadata stay as they are."""
    window: int = 20
    """How many messages may wait for the broker's word at once. After a crash at most so many are sent twice."""
    historical_share: float = 0.5
    """The largest share of the window for what an outage left behind; fresh readings have the rest."""
    lanes: Literal["live-first", "strict"] = "live-first"
    """`live-first`: after an outage fresh readings go at once, and the backlog beside them; those with `priority: high`
    go ahead of all. `strict`: everything in the order in which it was read, fresh readings last, whatever its
    priority."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if self.layout == "samples":
            yield "max_readings", "with `layout: samples` each sample is a message"
        if self.insecure:
            for key in ("ca", "server_name"):
                yield key, "`insecure: true` accepts any certificate"

    def __post_init__(self) -> None:
        endpoint = Endpoint.parse(self.url)
        self._check_tls(endpoint)
        if self.password is not None and self.username is None:
            raise ValueError("`password` needs a `username`")
        if self.qos != 1:
            raise ValueError(
                "`qos` can only be 1: 0 loses readings without a word, 2 takes longer and guarantees no more"
            )
        if not 1 <= self.keepalive <= _MAX_KEEPALIVE:
            raise ValueError("`keepalive` must lie between 1s and 18h")
        if min(self.connect_timeout, self.ack_timeout, self.retry_max) < 0.1 or self.session_expiry < 0:  # noqa: PLR2004  # as the message says
            raise ValueError("`connect_timeout`, `ack_timeout` and `retry_max` must be at least 100ms")
        if not 100 <= self.max_readings <= _MAX_CHUNK:  # noqa: PLR2004  # as the message says
            raise ValueError(f"`max_readings` must lie between 100 and {_MAX_CHUNK}")
        if not 1 <= self.window <= _MAX_WINDOW:
            raise ValueError(f"`window` must lie between 1 and {_MAX_WINDOW}")
        if not 0 < self.historical_share < 1:
            raise ValueError("`historical_share` is a share of the window, between 0 and 1")
        if not 1024 <= self.max_message < 2**28:  # noqa: PLR2004  # MQTT's own limit
            raise ValueError("`max_message` must lie between 1KiB and 256MiB")
        self._check_topics()

    def _check_tls(self, endpoint: Endpoint) -> None:
        given = [
            name for name in ("ca", "certificate", "key", "alpn", "server_name", "insecure") if getattr(self, name)
        ]
        if given and not endpoint.tls:
            secure = "wss" if endpoint.scheme == "ws" else "mqtts"
            raise ValueError(f"`{given[0]}` has a meaning only with TLS: write `url: {secure}://…`")
        if self.key and not self.certificate:
            raise ValueError("`key` needs the `certificate` that it belongs to")
        if any(not 1 <= len(one.encode()) <= 255 for one in self.alpn):  # noqa: PLR2004  # RFC 7301, 3.1
            raise ValueError("a name in `alpn` has 1 to 255 bytes")

    def _check_topics(self) -> None:
        names = (*_NAMES, "lane")
        if "device" in check_template(self.topic, (*names, "device")) and self.layout != "samples":
            raise ValueError(
                "`topic` can use {device} only with `layout: samples`: a message of columns has many devices"
            )
        check_template(self.status_topic, _NAMES)
        check_template(self.health_topic, _NAMES)
        check_template(self.metadata_topic, (*_NAMES, "device"))
        if len({self.topic, self.status_topic, self.health_topic, self.metadata_topic}) < 4:  # noqa: PLR2004  # the four
            raise ValueError("`topic`, `status_topic`, `health_topic` and `metadata_topic` must differ")


def _names(context: ConnectionContext) -> dict[str, str]:
    site = context.gateway.site
    return {
        "gateway": context.gateway.id,
        "tenant": site.tenant,
        "building": site.building,
        "location": site.location,
        "connection": context.name,
    }


class JsonEncoder:
    """Cuts batches into messages and encodes them."""

    def __init__(self, config: MqttConnection, context: ConnectionContext) -> None:
        """Raises ConfigError if a topic cannot be made."""
        self._gateway = str(context.gateway.id)
        self._names = _names(context)
        self._template = config.topic
        self._max_readings = config.max_readings
        self._by_sample = config.layout == "samples"
        self._encode = encode_sample if self._by_sample else encode_columns
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
        payload = self._compress(self._encode(chunk, envelope, self._gateway))
        return Message(topic, payload, properties=self._properties)

    def _topic(self, lane: Lane, device: str) -> str:
        key = lane, device if self._by_sample else ""
        topic = self._topics.get(key)
        if topic is None:
            topic = fill(self._template, {**self._names, "lane": lane.value, "device": device})
            self._topics[key] = topic
        return topic


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "zlib": zlib.compress, "gzip": _gzip}


class Announcements:
    """The retained messages that say whether the gateway is there, and what its readings mean."""

    def __init__(self, config: MqttConnection, context: ConnectionContext) -> None:
        """Raises ConfigError if a topic cannot be made."""
        self._connection = context.name
        self._gateway = context.gateway
        self._devices = context.devices
        self._clock_trusted = context.clock_trusted
        self._counters = context.counters
        self._template = config.metadata_topic
        self._names = _names(context)
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

    def greeting(self, epoch: str, time: int) -> tuple[Message, ...]:
        """What to say when a session is open."""
        by_topic = self._by_topic()
        self._told |= by_topic.keys()
        gone = [Message(topic, b"", retain=True) for topic in sorted(self._told - by_topic.keys())]
        there = [Message(topic, metadata(self._gateway, devices), retain=True) for topic, devices in by_topic.items()]
        return self._status("online", "connected", epoch, time), *there, *gone

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
    document = {
        "v": VERSION,
        "gateway": str(gateway.id),
        "site": {
            "tenant": site.tenant,
            "building": site.building,
            "location": site.location,
            "timezone": site.timezone,
        },
        "devices": {
            str(name): {
                "labels": dict(device.labels),
                "points": {str(point): _point(config) for point, config in device.points.items()},
            }
            for name, device in devices.items()
        },
    }
    return orjson.dumps(document)


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
        from edged.uplink.links.mqtt import Broker, MqttLink  # noqa: PLC0415  # only a forwarding daemon pays for aiomqtt
        from edged.uplink.links.tls import Tls  # noqa: PLC0415  # likewise

        endpoint = Endpoint.parse(config.url)
        if config.insecure:
            log.warning("%s: `insecure` is set: the broker's certificate is not checked", context.name)
        tls = Tls(
            ca=config.ca, certificate=config.certificate, key=config.key, alpn=tuple(config.alpn),
            server_name=config.server_name, insecure=config.insecure,
        ) if endpoint.tls else None  # fmt: skip
        password = config.password
        broker = Broker(
            url=config.url,
            host=endpoint.host,
            port=endpoint.port,
            websocket_path=endpoint.path if endpoint.scheme.startswith("ws") else "",
            tls=tls,
            client_id=config.client_id or f"edged-{context.gateway.id}-{context.name}",
            username=config.username,
            password=(lambda: context.secret(password)) if password is not None else None,
            protocol=config.protocol,
            keepalive=max(1, round(config.keepalive)),
            session_expiry=min(round(config.session_expiry), 2**32 - 1),
            connect_timeout=config.connect_timeout,
            ack_timeout=config.ack_timeout,
            window=config.window,
            max_message=config.max_message,
        )
        pacing = Pacing(
            historical_share=config.historical_share, retry_max=config.retry_max, strict=config.lanes == "strict"
        )
        return MqttLink(context.name, broker, Announcements(config, context), pacing)


CONNECTOR = MqttConnector()
