"""The connector `azure-iot-hub`: an IoT hub over MQTT, with device twin, direct methods and the provisioning service.

The messages are described in docs/how-to/azure-iot-hub.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Duration, Secret, Size
from edged.errors import ConfigError
from edged.uplink.api import ConnectionContext, Encoder, Link, Message
from edged.uplink.brokers import BrokerConnection, Endpoint, broker
from edged.uplink.connectors.mqtt import Announcements
from edged.uplink.dialects.azure import (
    LIMITS,
    MAX_KEEPALIVE,
    MAX_MESSAGE,
    WEBSOCKET,
    Identity,
    Kind,
    TelemetryEncoder,
    Twin,
    derived_key,
)
from edged.uplink.dialects.azure_commands import AzureCommands
from edged.uplink.dialects.azure_dps import Enrolment
from edged.uplink.dialects.clouds import Unretained
from edged.uplink.laidout import LaidOutConnection, Layout
from edged.uplink.upstream import pacing

if TYPE_CHECKING:
    from edged.uplink.links.azure import Registration, Tokens
    from edged.uplink.links.mqtt import Broker

_MAX_LIFETIME = 365 * 86_400
_SHARED = "azure"


@dataclass(frozen=True, kw_only=True)
class AzureConnection(LaidOutConnection, BrokerConnection):
    """Azure IoT Hub; the whole gateway is one device there."""

    __pydantic_config__: ClassVar = STRICT
    PLAIN_LOGIN: ClassVar[bool] = False
    follows_devices: ClassVar[bool] = True
    MIN_LIFETIME: ClassVar[float] = 60

    protocol: Literal["auto", "3.1.1"] = "3.1.1"
    """The hub speaks MQTT 3.1.1 only."""
    max_message: Size = Size(250 * 1024)
    """The largest payload; the hub takes 256 KB with all properties. Bigger ones are divided."""
    device_id: str = ""
    """The device's id in the hub. Without it: the gateway's `id`. With DPS the service says which it is."""
    shared_access_key: Secret | None = None
    """The device's symmetric key, `!secret NAME`. Without it the gateway proves itself by its `certificate`."""
    sas_lifetime: Duration = Duration(3600)
    """How long a token that is made of the key (SAS) is valid. Before it ends, the gateway connects with a new one."""
    id_scope: str = ""
    """With the Device Provisioning Service: its ID scope. `url` is then `mqtts://global.azure-devices-provisioning.net`,
    and the hub is the one that it assigns."""
    registration_id: str = ""
    """With DPS: as what to register. Without it: `device_id`, or the gateway's `id`."""
    group_key: Secret | None = None
    """With DPS: the key of an enrolment group, of which this gateway's own is derived, instead of
    `shared_access_key`."""
    twin: bool = False
    """Whether to keep the reported properties of the device twin, and with `commands: true` follow the desired ones."""
    twin_points: list[str] = field(default_factory=list)
    """Which points the twin reports, such as `chiller/*`. Without it: those that are `writable` or have
    `monitor: true`."""
    twin_every: Duration = Duration(10)
    """Changes are gathered for so long before the twin is updated."""
    command_timeout: Duration = Duration(30)
    """With `commands: true`: how long a write may wait for its device, and how old a desired property may be."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_layout()
        if not Endpoint.parse(self.url).tls:
            raise ValueError(
                "the hub wants TLS: write `url: mqtts://…`, or `wss://…` where a firewall blocks port 8883"
            )
        if self.username is not None:
            raise ValueError(
                "edged makes user name and password for Azure: leave `username` out, set `shared_access_key`"
            )
        if self.client_id:
            raise ValueError("the client id is that of the device: set `device_id` instead of `client_id`")
        if self.keepalive > MAX_KEEPALIVE:
            raise ValueError(f"`keepalive` can be at most {MAX_KEEPALIVE}s: the hub waits no longer")
        if self.max_message > MAX_MESSAGE:
            raise ValueError("`max_message` can be at most 256KiB: the hub takes no more")
        if not self.MIN_LIFETIME <= self.sas_lifetime <= _MAX_LIFETIME:
            raise ValueError("`sas_lifetime` must lie between 1m and 365d")
        if self.twin_every < 1:
            raise ValueError("`twin_every` must be at least 1s")
        if self.command_timeout <= 0:
            raise ValueError("`command_timeout` must be longer than 0")
        self._check_proof()

    def _check_proof(self) -> None:
        given = [key for key in ("shared_access_key", "group_key", "certificate") if getattr(self, key)]
        if not given:
            raise ValueError("the hub wants proof of who this is: set `shared_access_key`, or `certificate` and `key`")
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` are two ways to prove who this is: leave one out")
        for key in ("registration_id", "group_key"):
            if getattr(self, key) and not self.id_scope:
                raise ValueError(f"`{key}` is for the provisioning service, which needs an `id_scope`")
        if self.id_scope and self.registration_id and self.device_id:
            raise ValueError(
                "with `id_scope` the service names the device: set `registration_id`, leave `device_id` out"
            )

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from super().idle()
        yield "session_expiry", "the hub speaks MQTT 3.1.1, which has no such thing"
        if self.certificate:
            yield "sas_lifetime", "a `certificate` needs no tokens"
        if not self.twin:
            yield "twin_points", "it needs `twin: true`"
            yield "twin_every", "it needs `twin: true`"
        if not self.commands:
            yield "command_timeout", "it needs `commands: true`"


def _identity(config: AzureConnection, context: ConnectionContext) -> Identity:
    """What encoder and link of this connection share. With DPS it is filled in when the service has said it."""
    named = config.device_id or config.registration_id or str(context.gateway.id)
    made = Identity("" if config.id_scope else Endpoint.parse(config.url).host, named)
    identity: Identity = context.shared.setdefault(_SHARED, made)
    return identity


class _Announcer:
    """As telemetry of a type of its own; DPS may have given the gateway another name since."""

    def __init__(self, identity: Identity, context: ConnectionContext) -> None:
        self._identity = identity
        self._context = context

    @property
    def _now(self) -> Unretained:
        return Unretained(Announcements(Kind(self._identity), self._context))

    def greeting(self, epoch: str, time: int) -> Iterable[Message]:
        return self._now.greeting(epoch, time)

    def health(self, epoch: str, time: int) -> Message:
        return self._now.health(epoch, time)

    def will(self, epoch: str, time: int) -> Message:
        return self._now.will(epoch, time)

    def farewell(self, epoch: str, time: int) -> Message:
        return self._now.farewell(epoch, time)


class AzureConnector:
    """Builds the parts of an `azure-iot-hub` connection."""

    connection_config: type[ConnectionConfig] = AzureConnection

    def encoder(self, config: AzureConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection."""
        gateway = str(context.gateway.id)
        return TelemetryEncoder(_identity(config, context), Layout(config, context), gateway, config.compression)

    def link(self, config: AzureConnection, context: ConnectionContext) -> Link:
        """The link of this connection. Raises ConfigError where the hub could not be remembered."""
        from uuid import uuid4  # noqa: PLC0415  # only here

        from edged.uplink.links.azure import AzureLink, TwinKeeper  # noqa: PLC0415  # only a forwarding daemon pays for aiomqtt
        from edged.uplink.links.exchange import Reported  # noqa: PLC0415  # likewise
        from edged.uplink.links.mqtt_commands import CommandService  # noqa: PLC0415  # likewise

        identity, tokens = _identity(config, context), _tokens(config, context)
        twin = Twin() if config.twin else None
        keeper = None
        if twin is not None and context.twin is not None:
            reported = Reported(context.name, context.twin, context.devices, config.twin_points, LIMITS)
            keeper = TwinKeeper(context.name, twin, reported, config.twin_every)
        commands = AzureCommands(
            identity, str(context.gateway.id), context.name, config.command_timeout, run=uuid4().hex, twin=twin
        )
        return AzureLink(
            context.name, _broker(config, context), _Announcer(identity, context), pacing(config),
            CommandService(context.name, commands, context.commands), identity=identity, commands=commands,
            clock_trusted=context.clock_trusted, tokens=tokens, keeper=keeper,
            registration=_registration(config, context, tokens),
        )  # fmt: skip


def _tokens(config: AzureConnection, context: ConnectionContext) -> Tokens | None:
    from edged.uplink.links.azure import Tokens  # noqa: PLC0415  # as above

    own, group = config.shared_access_key, config.group_key
    if own is not None:
        return Tokens(lambda: context.secret(own), config.sas_lifetime)
    if group is not None:
        registration = _registration_id(config, context)
        return Tokens(lambda: derived_key(context.secret(group), registration), config.sas_lifetime)
    return None


def _registration_id(config: AzureConnection, context: ConnectionContext) -> str:
    return config.registration_id or config.device_id or str(context.gateway.id)


def _registration(config: AzureConnection, context: ConnectionContext, tokens: Tokens | None) -> Registration | None:
    """Raises ConfigError where the hub could not be remembered."""
    from edged.uplink.links.azure import Registration  # noqa: PLC0415  # as above

    if not config.id_scope:
        return None
    if context.state is None:
        raise ConfigError(f"connection {context.name}: there is no folder in which the hub could be remembered")
    enrolment = Enrolment(config.id_scope, _registration_id(config, context))
    return Registration(context.name, _broker(config, context), enrolment, tokens, context.state)


def _broker(config: AzureConnection, context: ConnectionContext) -> Broker:
    """Hub and provisioning service have the same path for WebSockets, unless the `url` names another."""
    known = replace(broker(config, context), protocol="3.1.1")
    unnamed = known.websocket_path == Endpoint.parse("wss://host").path
    return replace(known, websocket_path=WEBSOCKET) if unnamed else known


CONNECTOR = AzureConnector()
