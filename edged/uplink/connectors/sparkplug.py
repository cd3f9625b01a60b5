"""The connector `sparkplug`: an edge node of Sparkplug B 3.0, for Ignition and other SCADA hosts over MQTT.

The messages are described in docs/how-to/sparkplug.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Duration
from edged.uplink.api import ConnectionContext, Encoder, Link
from edged.uplink.brokers import BrokerConnection, broker
from edged.uplink.dialects.sparkplug import Node
from edged.uplink.dialects.sparkplug_commands import SparkplugCommands
from edged.uplink.upstream import pacing

_FORBIDDEN = "+/#"
_MAX_READINGS = 5000


@dataclass(frozen=True, kw_only=True)
class SparkplugConnection(BrokerConnection):
    """An MQTT broker for hosts that speak Sparkplug B."""

    __pydantic_config__: ClassVar = STRICT
    follows_devices: ClassVar[bool] = True
    describes_flows: ClassVar[bool] = True

    group: str = ""
    """The Sparkplug group. Without it: the site's `tenant`, or `edged` if that is not set either."""
    node: str = ""
    """The name of the edge node within the group; no two may be the same. Without it: the gateway's `id`."""
    primary_host: str = ""
    """The id of the host without which nothing is to be sent: while it is offline, the readings are kept here. Without
    it nobody is waited for."""
    max_readings: int = 500
    """Up to how many readings of one device go into one message."""

    command_timeout: Duration = Duration(30)
    """With `commands: true`: how long a write may wait for its device before it is given up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.command_timeout <= 0:
            raise ValueError("`command_timeout` must be longer than 0")
        for key in ("group", "node", "primary_host"):
            if any(char in getattr(self, key) for char in _FORBIDDEN):
                raise ValueError(f"`{key}` becomes a part of topics: it cannot contain `+`, `/` or `#`")
        if not 1 <= self.max_readings <= _MAX_READINGS:
            raise ValueError(f"`max_readings` must lie between 1 and {_MAX_READINGS}")

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from super().idle()
        yield "session_expiry", "Sparkplug wants each session to begin anew"
        if not self.commands:
            yield "command_timeout", "it needs `commands: true`"


def _node(config: SparkplugConnection, context: ConnectionContext) -> Node:
    """What encoder and link of this connection share."""
    group = config.group or context.gateway.site.tenant or "edged"
    name = config.node or str(context.gateway.id)
    made = Node(_plain(group), _plain(name), lambda: context.devices, config.max_readings)
    node: Node = context.shared.setdefault("sparkplug", made)
    return node


def _plain(name: str) -> str:
    """A name of the gateway as a level of a topic."""
    return "".join("-" if char in _FORBIDDEN else char for char in name)


class SparkplugConnector:
    """Builds the parts of a `sparkplug` connection."""

    connection_config: type[ConnectionConfig] = SparkplugConnection

    def encoder(self, config: SparkplugConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection."""
        return _node(config, context)

    def link(self, config: SparkplugConnection, context: ConnectionContext) -> Link:
        """The link of this connection."""
        from edged.uplink.links.mqtt_commands import CommandService  # noqa: PLC0415  # as below
        from edged.uplink.links.sparkplug import SparkplugLink  # noqa: PLC0415  # only a forwarding daemon pays for aiomqtt

        node = _node(config, context)
        dialect = SparkplugCommands(node, config.command_timeout, context.name)
        return SparkplugLink(
            context.name, replace(broker(config, context), clean=True), pacing(config), node,
            primary_host=config.primary_host, counters=context.counters, twin=context.twin,
            service=CommandService(context.name, dialect, context.commands),
        )  # fmt: skip


CONNECTOR = SparkplugConnector()
