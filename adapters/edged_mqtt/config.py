"""What a technician writes about brokers and the devices that publish there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from edged.adapter import STRICT, BusConfig, DeviceConfig, Duration, FileName, Name, Secret

from . import topics
from .path import Place
from .point import MqttPoint

PresetName = Literal["chirpstack", "thethingsstack", "zigbee2mqtt", "tasmota", "shelly", "json"]
PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""The schemes of a broker's URL, and the port each means when none is given."""
_MOST_PORT = 255


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a broker is."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def tls(self) -> bool:
        """Whether it is reached through TLS."""
        return self.scheme in {"mqtts", "wss"}


def endpoint(url: str) -> Endpoint:
    """The parts of a broker's URL. Raises ValueError."""
    try:
        parts = urlsplit(url)
        host, port, user = parts.hostname, parts.port, parts.username
    except ValueError as exc:
        raise ValueError(f"`url: {url}` is no URL: {exc}") from None
    if parts.scheme not in PORTS or not host:
        raise ValueError(f"`url: {url}`: write mqtt://host, mqtts://host (TLS), ws://host/path or wss://host/path")
    if user is not None:
        raise ValueError("`url` holds a user name or a password; put them into `username` and `password: !secret NAME`")
    return Endpoint(parts.scheme, host, port or PORTS[parts.scheme], parts.path or "/mqtt")


@dataclass(frozen=True, kw_only=True)
class MqttBus(BusConfig):
    """A broker that devices publish to."""

    __pydantic_config__: ClassVar = STRICT

    url: str
    """The broker: `mqtt://host`, `mqtts://host` (TLS), `ws://host/path` or `wss://host/path`, with `:port` if it is not
    the usual one."""
    preset: PresetName
    """Who publishes there: `chirpstack`, `thethingsstack`, `zigbee2mqtt`, `tasmota`, `shelly`, or `json` for
    anything else."""
    base: str = ""
    """The first part of the topics, where it is not the preset's usual one: `zigbee2mqtt`."""
    application: str = "+"
    """With `chirpstack` and `thethingsstack`: the application, as it is in the topics (`my-app@ttn`). `+` means any."""
    username: str | None = None
    """The user name, if the broker wants one."""
    password: Secret | None = None
    """The password: `!secret NAME`."""
    client_id: str = ""
    """How the broker knows this client; no two may be the same. Without it: `edged-` host name `-` bus name."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """The version of MQTT. `auto` uses 5, and 3.1.1 when the broker refuses that."""
    ca: FileName = FileName()
    """File with the certificates of the authorities to trust, PEM. Without it: those that the system trusts."""
    certificate: FileName = FileName()
    """File with this client's certificate, PEM, where the broker wants one."""
    key: FileName = FileName()
    """File with the private key of `certificate`. Without it: it is in the certificate's file."""
    insecure: bool = False
    """`true` accepts any certificate: anybody on the way can read and change everything. Only for a test bench."""
    keepalive: Duration = Duration(30)
    """A silent connection is probed after this time, and given up after one and a half times as long."""
    session_expiry: Duration = Duration(7 * 86_400)
    """How long the broker keeps messages for us while the gateway is away."""
    connect_timeout: Duration = Duration(10)
    """How long one attempt to connect may take."""
    reconnect_max: Duration = Duration(30)
    """The longest pause between two attempts to connect. Pauses are random, and grow up to this."""
    dead_share: float = 1.0
    """The largest share of the bus's time that devices which do not answer may cost the others. Here they cost
    nothing."""
    retry_max: Duration = Duration(3)
    """Longest pause before it is looked whether a silent device is back."""

    @property
    def where(self) -> str:
        """See the base class."""
        return self.url

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if self.preset not in {"chirpstack", "thethingsstack"}:
            yield "application", f"`preset: {self.preset}` has no applications"
        if self.preset != "zigbee2mqtt":
            yield "base", f"the topics of `preset: {self.preset}` have none"
        if self.insecure:
            yield "ca", "`insecure: true` accepts any certificate"

    def __post_init__(self) -> None:
        super().__post_init__()
        found = endpoint(self.url)
        given = [key for key in ("ca", "certificate", "key", "insecure") if getattr(self, key)]
        if given and not found.tls:
            raise ValueError(f"`{given[0]}` has a meaning only with TLS: write `url: mqtts://…`")
        if self.key and not self.certificate:
            raise ValueError("`key` needs the `certificate` that it belongs to")
        if self.password is not None and self.username is None:
            raise ValueError("`password` needs a `username`")
        for key in ("base", "application"):
            if text := getattr(self, key):
                topics.check(text, key, wildcards=key == "application")
        if not 1 <= self.keepalive <= 65_535:  # noqa: PLR2004  # what MQTT can say
            raise ValueError("`keepalive` must lie between 1s and 18h")
        if min(self.connect_timeout, self.reconnect_max) < 1:
            raise ValueError("`connect_timeout` and `reconnect_max` must be at least 1s")


@dataclass(frozen=True, kw_only=True)
class MqttDevice(DeviceConfig):
    """Something that publishes its values to a broker."""

    __pydantic_config__: ClassVar = STRICT

    id: str = ""
    """What it is called there: the DevEUI (`chirpstack`), the device ID (`thethingsstack`), the friendly name
    (`zigbee2mqtt`), the topic (`tasmota`), the MQTT prefix (`shelly`). The device's own name unless given."""
    topic: str = ""
    """With `json`: the topic of its messages; + and # as in subscriptions, `{id}` for the `id`."""
    availability: str = ""
    """With `json`: the topic that says `online` or `offline`, or `true` or `false`, if there is one."""
    time: str = ""
    """With `json`: where in a message its time is, like a point's `field`: ISO 8601 with a zone, or a number since 1970
    in s, ms, µs or ns. Without it the time of arrival counts."""
    codec: FileName = FileName()
    """A payload codec in JavaScript (LoRa Alliance TS013: `decodeUplink`, `encodeDownlink`), for what the network
    server does not decode itself. Beside the configuration, or in its folder `profiles`."""
    examples: FileName = FileName()
    """The example vectors of the codec for `edged profiles test`, where they are not beside it in `NAME.examples.json`,
    `NAME.examples.yaml` or `NAME-codec.yaml`."""
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    """What the codec finds in `input.variables`."""
    ports: tuple[int, ...] = ()
    """The FPorts that carry values, with LoRaWAN. Messages on others only show that the device is there."""
    downlink_port: int | None = None
    """The FPort of downlinks, where the codec does not say it."""
    confirmed: bool = False
    """Ask the device to confirm downlinks."""
    expect: Duration = Duration(0)
    """How long it may be silent before its values are `bad(stale)`; 0: as is usual with the preset."""
    retained: Literal["stale", "ignore"] = "stale"
    """What to make of messages that the broker had kept: values that are `uncertain(stale)`, or nothing."""
    points: dict[Name, MqttPoint] = dataclasses.field(default_factory=dict)  # type: ignore[assignment]  # narrower than the base
    """Its values by name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "ports", tuple(self.ports))
        if any(char in self.id for char in "+#\0"):
            raise ValueError(f"`id: {self.id}`: no device can be called so, with + or #")
        for key in ("topic", "availability"):
            if text := getattr(self, key):
                topics.check(text, key)
        Place.parse(self.time)
        if any(not 0 <= port <= _MOST_PORT for port in self.ports):
            raise ValueError("`ports` are FPorts, numbers from 0 to 255")
        if self.downlink_port is not None and not 1 <= self.downlink_port <= 223:  # noqa: PLR2004  # as LoRaWAN has it
            raise ValueError("`downlink_port` must lie between 1 and 223")
        if self.examples and not self.codec:
            raise ValueError("`examples` are those of a `codec`")
        if self.variables and not self.codec:
            raise ValueError("`variables` are for a `codec`")
