"""The connector `watson-iot`: the topic scheme of IBM's Watson IoT Platform.

IBM withdrew its own service on 1 December 2023; compatible brokers still use the scheme. The messages are described in
docs/how-to/watson-iot.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Duration
from edged.uplink.api import ConnectionContext, Encoder, Link
from edged.uplink.brokers import BrokerConnection, broker
from edged.uplink.connectors.mqtt import Announcements
from edged.uplink.dialects.clouds import Unretained
from edged.uplink.dialects.watson import MAX_MESSAGE, USER, EventEncoder, Names, WatsonCommands
from edged.uplink.upstream import pacing

_NAME = r"[A-Za-z0-9_.-]{1,36}"


@dataclass(frozen=True, kw_only=True)
class WatsonConnection(BrokerConnection):
    """A broker with the topic scheme of IBM's Watson IoT Platform. The token is the `password`."""

    __pydantic_config__: ClassVar = STRICT
    PLAIN_LOGIN: ClassVar[bool] = False
    follows_devices: ClassVar[bool] = True

    username: str | None = USER
    """`use-token-auth`, unless a compatible broker wants another."""
    organization: str
    """The organization's id, usually six characters."""
    role: Literal["gateway", "device"] = "gateway"
    """`gateway`: every device appears under its own name. `device`: the whole gateway is one device."""
    gateway_type: str = "edged"
    """The type as which this gateway is registered."""
    gateway_id: str = ""
    """The id as which it is registered. Without it: the gateway's `id`."""
    device_type: str = "edged-device"
    """The type of the devices behind it."""
    event: str = "data"
    """What an event with readings is called."""
    command_timeout: Duration = Duration(30)
    """With `commands: true`: how long a write may wait for its device before it is given up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("organization", "gateway_type", "gateway_id", "device_type", "event"):
            value = getattr(self, key)
            if (value or key != "gateway_id") and not re.fullmatch(_NAME, value):
                raise ValueError(f"`{key}` has up to 36 letters, digits, `-`, `_` and `.`")
        if self.role == "gateway" and self.device_type == self.gateway_type:
            raise ValueError("`device_type` and `gateway_type` must differ: a topic says only the type and the id")
        if self.client_id:
            raise ValueError("the client id is made of organization, type and id: leave `client_id` out")
        if self.max_message > MAX_MESSAGE:
            raise ValueError("`max_message` can be at most 128KiB: the platform takes no more")
        if self.command_timeout <= 0:
            raise ValueError("`command_timeout` must be longer than 0")

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from super().idle()
        yield "session_expiry", "each session begins anew, so that no old command waits at the broker"
        if self.role == "device":
            yield "device_type", "with `role: device` there are no devices behind it"
        if not self.commands:
            yield "command_timeout", "it needs `commands: true`"


def _names(config: WatsonConnection, context: ConnectionContext) -> Names:
    behind = config.device_type if config.role == "gateway" else ""
    return Names(config.organization, config.gateway_type, config.gateway_id or str(context.gateway.id), behind)


class WatsonConnector:
    """Builds the parts of a `watson-iot` connection."""

    connection_config: type[ConnectionConfig] = WatsonConnection

    def encoder(self, config: WatsonConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection."""
        return EventEncoder(str(context.gateway.id), _names(config, context), config.event)

    def link(self, config: WatsonConnection, context: ConnectionContext) -> Link:
        """The link of this connection."""
        from uuid import uuid4  # noqa: PLC0415  # only here

        from edged.uplink.links.mqtt import MqttLink  # noqa: PLC0415  # only a forwarding daemon pays for aiomqtt
        from edged.uplink.links.mqtt_commands import CommandService  # noqa: PLC0415  # likewise

        names = _names(config, context)
        dialect = WatsonCommands(
            names, str(context.gateway.id), context.name, valid_for=config.command_timeout, run=uuid4().hex
        )
        return MqttLink(
            context.name, replace(broker(config, context), client_id=names.client_id, clean=True),
            Unretained(Announcements(names, context)), pacing(config),
            CommandService(context.name, dialect, context.commands),
        )  # fmt: skip


CONNECTOR = WatsonConnector()
