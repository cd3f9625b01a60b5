"""The connector `thingworx`: property writes with an application key, over ThingWorx's REST API.

What is sent is described in docs/how-to/thingworx.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Secret
from edged.errors import ConfigError
from edged.uplink.api import ConnectionContext, Encoder, Link
from edged.uplink.connectors.http import about
from edged.uplink.dialects.http import Origin, fill_text
from edged.uplink.dialects.thingworx import PropertyEncoder, clashes, property_name
from edged.uplink.servers import ServerConnection, server
from edged.uplink.topics import names_used
from edged.uplink.upstream import NAMES, naming, pacing

if TYPE_CHECKING:
    from edged.uplink.links.http import Signer

_MAX_READINGS = 5000
_PATIENCE = 4
"""A value that does not fit its property is answered with 500, and each thing has its own address."""


@dataclass(frozen=True, kw_only=True)
class ThingWorxConnection(ServerConnection):
    """A ThingWorx platform, whose things are this gateway's devices."""

    __pydantic_config__: ClassVar = STRICT

    url: str
    """The platform: `https://host`, with a path if its REST API is not at `/Thingworx`."""
    app_key: Secret
    """The application key: `!secret NAME`."""
    thing: str = "{device}"
    """The thing of a device. `{device}`, `{gateway}`, `{tenant}`, `{building}`, `{location}` and `{connection}` are
    filled in."""
    property_name: str = "{point}"
    """The property of a point. `{point}` is filled in, and `-` and `.` become `_`."""
    quality_property: str = ""
    """A property of the base type STRING that says how far the value of a point can be trusted, such as
    `{point}_quality`. Empty: none, so that a value that is bad is left out without a word."""
    max_readings: int = 500
    """Up to how many readings go into one request."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(self.url)
        if parts.query or "{" in self.url:
            raise ValueError("`url` is that of the platform, such as https://thingworx.example.com")
        if "device" not in names_used(self.thing, (*NAMES, "device"), "`thing`"):
            raise ValueError("`thing` must contain {device}: no two may be called the same")
        for name in ("property_name", "quality_property"):
            text = getattr(self, name)
            if text and "point" not in names_used(text, ("point",), f"`{name}`"):
                raise ValueError(f"`{name}` must contain {{point}}: no two may be called the same")
        if self.quality_property == self.property_name or not self.property_name:
            raise ValueError("`property_name` and `quality_property` must differ, and the first cannot be empty")
        if not 1 <= self.max_readings <= _MAX_READINGS:
            raise ValueError(f"`max_readings` must lie between 1 and {_MAX_READINGS}")


def _property(template: str, point: str) -> str:
    return property_name(fill_text(template, {"point": point}))


def _thing(config: ThingWorxConnection, context: ConnectionContext) -> Callable[[str], str]:
    """What a device is called there. Raises ConfigError if that cannot be made."""
    return naming(config.thing, "thing", context, fill_text)


class ThingWorxConnector:
    """Builds the parts of a `thingworx` connection."""

    connection_config: type[ConnectionConfig] = ThingWorxConnection

    def encoder(self, config: ThingWorxConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection. Raises ConfigError if things or properties cannot be named."""
        thing, prop = _thing(config, context), partial(_property, config.property_name)
        clash = clashes(context.devices, prop)
        if clash:
            raise ConfigError(f"connection {context.name}: {clash}")
        base = f"{Origin.parse(config.url)}{urlsplit(config.url).path.rstrip('/') or '/Thingworx'}"
        gateway = str(context.gateway.id)
        return PropertyEncoder(
            base, config.max_readings, thing, prop,
            partial(_property, config.quality_property) if config.quality_property else None,
            lambda chunk, envelope: about(chunk, envelope, gateway, ""),
        )  # fmt: skip

    def link(self, config: ThingWorxConnection, context: ConnectionContext) -> Link:
        """The link of this connection. Raises ConfigError if things cannot be named."""
        from edged.uplink.links.http import HttpLink  # noqa: PLC0415  # only a forwarding daemon pays for it

        _thing(config, context)

        def begin() -> Signer:
            key = {"appKey": context.secret(config.app_key)}
            return lambda *_: key

        made = server(
            config, context, config.url, headers=_HEADERS, signer=begin, credentials="`app_key`", method="POST",
            own_addresses=True, patience=_PATIENCE,
        )  # fmt: skip
        return HttpLink(context.name, made, pacing(config))


_HEADERS = {
    "Accept": "application/json", "X-XSRF-TOKEN": "TWX-XSRF-TOKEN-VALUE", "x-thingworx-session": "false",
}  # fmt: skip
"""JSON also for errors; what shows that no browser was tricked into this; and no session, for each request has its key.
"""

CONNECTOR = ThingWorxConnector()
