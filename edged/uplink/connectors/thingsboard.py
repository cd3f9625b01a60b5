"""The connector `thingsboard`: the gateway API of ThingsBoard over MQTT.

The messages are described in docs/how-to/thingsboard.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Duration, Secret
from edged.discretion import hide
from edged.uplink.api import ConnectionContext, Encoder, Link
from edged.uplink.brokers import BrokerConnection, broker
from edged.uplink.dialects.thingsboard import Announcements, RpcCommands, TelemetryEncoder
from edged.uplink.topics import check_template, fill
from edged.uplink.upstream import NAMES, naming, pacing

_MAX_READINGS = 5000


@dataclass(frozen=True, kw_only=True)
class ThingsBoardConnection(BrokerConnection):
    """A ThingsBoard server."""

    __pydantic_config__: ClassVar = STRICT
    follows_devices: ClassVar[bool] = True

    token: Secret | None = None
    """The gateway's access token: `!secret NAME`. Where it has a user name and a password instead: `username`,
    `password`."""
    device_name: str = "{device}"
    """What a device is called in ThingsBoard, where names must be unique within a tenant. `{device}`, `{gateway}`,
    `{tenant}`, `{building}`, `{location}` and `{connection}` are filled in."""
    max_readings: int = 500
    """Up to how many readings go into one message."""
    command_timeout: Duration = Duration(30)
    """With `commands: true`: how long a write may wait for its device before it is given up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.token is not None and self.username is not None:
            raise ValueError("`token` and `username` are two ways to say who this is: leave one out")
        if "device" not in check_template(self.device_name, (*NAMES, "device")):
            raise ValueError("`device_name` must contain {device}: no two may be called the same")
        if not 1 <= self.max_readings <= _MAX_READINGS:
            raise ValueError(f"`max_readings` must lie between 1 and {_MAX_READINGS}")
        if self.command_timeout <= 0:
            raise ValueError("`command_timeout` must be longer than 0")

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from super().idle()
        yield "session_expiry", "each session begins anew, so that no old command waits at the broker"
        if not self.commands:
            yield "command_timeout", "it needs `commands: true`"

    def revealed(self) -> Iterator[tuple[str, str, str]]:
        """See the base class."""
        if self.username is not None and self.password is None:
            advice = "without a password it is the access token; write `token: !secret NAME` instead"
            yield "username", self.username, advice
        yield from super().revealed()


def _naming(config: ThingsBoardConnection, context: ConnectionContext) -> Callable[[str], str]:
    """What a device is called there. Raises ConfigError if that cannot be made."""
    return naming(config.device_name, "device_name", context, fill)


class ThingsBoardConnector:
    """Builds the parts of a `thingsboard` connection."""

    connection_config: type[ConnectionConfig] = ThingsBoardConnection

    def encoder(self, config: ThingsBoardConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection. Raises ConfigError if devices cannot be named."""
        return TelemetryEncoder(str(context.gateway.id), config.max_readings, _naming(config, context))

    def link(self, config: ThingsBoardConnection, context: ConnectionContext) -> Link:
        """The link of this connection. Raises ConfigError if devices cannot be named."""
        from uuid import uuid4  # noqa: PLC0415  # only here

        from edged.uplink.links.mqtt import MqttLink  # noqa: PLC0415  # only a forwarding daemon pays for aiomqtt
        from edged.uplink.links.mqtt_commands import CommandService  # noqa: PLC0415  # likewise

        if config.username and config.password is None:
            hide(config.username)  # the access token
        name = _naming(config, context)
        token = config.token
        dialect = RpcCommands(context.devices, name, config.command_timeout, uuid4().hex)
        return MqttLink(
            context.name,
            replace(broker(config, context), clean=True, token=(lambda: context.secret(token)) if token else None),
            Announcements(context.gateway, context.devices, context.counters, name), pacing(config),
            CommandService(context.name, dialect, context.commands),
        )  # fmt: skip


CONNECTOR = ThingsBoardConnector()
