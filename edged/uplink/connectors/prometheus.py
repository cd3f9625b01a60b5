"""The connector `prometheus`: values and health on a local HTTP port, for Prometheus and all that read its format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edged.config.base import STRICT
from edged.config.types import Secret
from edged.uplink.api import ConnectionContext, Server
from edged.uplink.listening import ListeningConnection


@dataclass(frozen=True, kw_only=True)
class PrometheusConnection(ListeningConnection):
    """An HTTP server for Prometheus: the last values of all points, and how the gateway is, under `/metrics`."""

    __pydantic_config__: ClassVar = STRICT

    token: Secret | None = None
    """What a client must send as `Authorization: Bearer …`: `!secret NAME`. Without it everybody who reaches the port
    may read."""


class PrometheusConnector:
    """Builds the server of a `prometheus` connection."""

    connection_config: type[ListeningConnection] = PrometheusConnection

    def server(self, config: PrometheusConnection, context: ConnectionContext) -> Server:
        """The server. Raises ConfigError where the token cannot be found."""
        from edged.uplink.links.prometheus import PrometheusServer  # noqa: PLC0415  # only a running daemon pays for it

        return PrometheusServer(config, context, context.secret(config.token) if config.token else "")


CONNECTOR = PrometheusConnector()
