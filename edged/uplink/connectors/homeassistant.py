"""The connector `homeassistant`: every point appears in Home Assistant by itself.

The messages are described in docs/how-to/homeassistant.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Duration
from edged.errors import ConfigError
from edged.uplink.api import ConnectionContext, Encoder, Link, Message
from edged.uplink.brokers import BrokerConnection, broker
from edged.uplink.dialects.homeassistant import Discovery, HomeAssistantCommands, Names, StateEncoder
from edged.uplink.topics import check_template, fill
from edged.uplink.upstream import NAMES, names_of, pacing


@dataclass(frozen=True, kw_only=True)
class HomeAssistantConnection(BrokerConnection):
    """The MQTT broker of a Home Assistant."""

    __pydantic_config__: ClassVar = STRICT
    follows_devices: ClassVar[bool] = True
    describes_flows: ClassVar[bool] = True
    takes_intervals: ClassVar[bool] = False

    discovery: str = "homeassistant"
    """The discovery prefix, as in the settings of Home Assistant's MQTT integration."""
    topic: str = "edged/{gateway}/ha"
    """Where states, status and commands have their topics. `{gateway}`, `{tenant}`, `{building}`, `{location}` and
    `{connection}` are filled in."""
    command_timeout: Duration = Duration(30)
    """With `commands: true`: how long a write may wait for its device before it is given up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template(self.discovery, ())
        check_template(self.topic, NAMES)
        if self.lanes == "strict":
            raise ValueError("`lanes: strict` would show old readings as fresh ones in Home Assistant: leave it out")
        if self.command_timeout <= 0:
            raise ValueError("`command_timeout` must be longer than 0")

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from super().idle()
        yield "session_expiry", "each session begins anew, so that no old command waits at the broker"
        if not self.commands:
            yield "command_timeout", "it needs `commands: true`"


class _Announcements:
    """The status, and the discovery messages."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery

    def greeting(self, epoch: str, time: int) -> Sequence[Message]:  # noqa: ARG002  # Home Assistant knows no epoch
        return [self._status("online")]

    def health(self, epoch: str, time: int) -> Message:  # noqa: ARG002  # as above
        return self._status("online")

    def will(self, epoch: str, time: int) -> Message:  # noqa: ARG002  # as above
        return self._status("offline")

    def farewell(self, epoch: str, time: int) -> Message:  # noqa: ARG002  # as above
        return self._status("offline")

    def _status(self, word: str) -> Message:
        return Message(self._discovery.names.status, word.encode(), content_type="text/plain", retain=True)


def _names(config: HomeAssistantConnection, context: ConnectionContext) -> Names:
    try:
        return Names(config.discovery, fill(config.topic, names_of(context)))
    except ValueError as exc:
        raise ConfigError(f"connection {context.name}: {exc}") from exc


class HomeAssistantConnector:
    """Builds the parts of a `homeassistant` connection."""

    connection_config: type[ConnectionConfig] = HomeAssistantConnection

    def encoder(self, config: HomeAssistantConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection. Raises ConfigError if its topics cannot be made."""
        return StateEncoder(str(context.gateway.id), _names(config, context))

    def link(self, config: HomeAssistantConnection, context: ConnectionContext) -> Link:
        """The link of this connection. Raises ConfigError if its topics cannot be made."""
        from uuid import uuid4  # noqa: PLC0415  # only here

        from edged.uplink.links.homeassistant import HomeAssistantLink  # noqa: PLC0415  # only a forwarding daemon pays for aiomqtt
        from edged.uplink.links.mqtt_commands import CommandService  # noqa: PLC0415  # likewise

        names = _names(config, context)
        dialect = HomeAssistantCommands(names, context.devices, config.command_timeout, uuid4().hex)
        discovery = Discovery(context.gateway, names, context.devices, commands=context.commands is not None)
        return HomeAssistantLink(
            context.name, replace(broker(config, context), clean=True), _Announcements(discovery), pacing(config),
            CommandService(context.name, dialect, context.commands), discovery, context.twin,
        )  # fmt: skip


CONNECTOR = HomeAssistantConnector()
