"""The connector `aws-iot`: AWS IoT Core over MQTT, with device shadows and fleet provisioning.

The messages are described in docs/how-to/aws-iot.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Duration, FileName, Size
from edged.errors import ConfigError
from edged.uplink.api import ConnectionContext, Encoder, Lane, Link
from edged.uplink.brokers import Endpoint, broker
from edged.uplink.connectors.mqtt import Announcements, JsonEncoder, MqttConnection, make_service
from edged.uplink.dialects.aws import (
    MAX_IN_FLIGHT,
    MAX_MESSAGE,
    SHADOW,
    THING,
    Shadow,
    ShadowCommands,
    check_topic,
)
from edged.uplink.dialects.clouds import Both, Unretained
from edged.uplink.dialects.twins import Limits
from edged.uplink.topics import fill
from edged.uplink.upstream import names_of, pacing

if TYPE_CHECKING:
    from edged.uplink.links.aws import Provisioner
    from edged.uplink.links.mqtt import Broker

_ALPN = "x-amzn-mqtt-ca"
_CLASSIC = "classic"
_HTTPS = 443
_SHADOW_NAME = r"[a-zA-Z0-9:_-]{1,64}"
_MIN_KEEPALIVE, _MAX_KEEPALIVE, _MAX_SESSION = 30, 1200, 7 * 86_400
_TOPICS = (
    "topic", "status_topic", "health_topic", "metadata_topic", "command_topic", "result_topic", "monitor_topic",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AwsConnection(MqttConnection):
    """AWS IoT Core. Topics, layouts and commands are those of `mqtt`, within the limits that AWS has."""

    __pydantic_config__: ClassVar = STRICT
    PLAIN_LOGIN: ClassVar[bool] = False

    keepalive: Duration = Duration(30)
    """A silent connection is probed after this time, and given up after twice as long. AWS takes 30s to 20m."""
    thing: str = ""
    """The name of the thing. Without it: the gateway's `id`, or what the provisioning template makes of it."""
    retain: bool = False
    """`true` has AWS retain status and metadata; the policy must allow `iot:RetainPublish`."""
    shadow: str = ""
    """The device shadow to keep: a name, or `classic` for the unnamed one. Without it there is none."""
    shadow_points: list[str] = field(default_factory=list)
    """Which points the shadow reports, such as `chiller/*`. Without it: those that are `writable` or have
    `monitor: true`."""
    shadow_every: Duration = Duration(10)
    """Changes are gathered for so long before the shadow is updated."""
    shadow_size: Size = Size(6 * 1024)
    """How much of a shadow's 8 KB what is reported may take; the rest is for what is desired."""
    command_timeout: Duration = Duration(60)
    """With `commands: true`: how old a desired value of the shadow may be when it is carried out."""
    provisioning_template: str = ""
    """Fleet provisioning: the template by which AWS registers this gateway when it has no certificate of its own."""
    provisioning_parameters: dict[str, str] = field(default_factory=dict)
    """What the template is told. Without it: `SerialNumber`, the gateway's `id`."""
    claim_certificate: FileName = FileName()
    """Fleet provisioning: file with the claim certificate, PEM."""
    claim_key: FileName = FileName()
    """File with the private key of `claim_certificate`. Without it: it is in the certificate's file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_service()
        self._check_shadow()
        if self.provisioning_template:
            if not self.claim_certificate:
                raise ValueError(
                    "`provisioning_template` needs the `claim_certificate` with which to ask for a certificate"
                )
            if self.certificate or self.key or self.thing or self.client_id:
                raise ValueError(
                    "with `provisioning_template` AWS makes the certificate and names the thing: leave `certificate`, "
                    "`key`, `thing` and `client_id` out"
                )
        elif self.claim_certificate:
            raise ValueError("`claim_certificate` needs the `provisioning_template` that it is for")
        elif not self.certificate:
            raise ValueError("AWS knows a device by its certificate: set `certificate` and `key`")
        for name in _TOPICS:
            try:
                check_topic(re.sub(r"\{\w*\}", "x", getattr(self, name)))
            except ValueError as exc:
                raise ValueError(f"`{name}`: {exc}") from None

    def _check_service(self) -> None:
        if Endpoint.parse(self.url).scheme != "mqtts":
            raise ValueError("AWS wants TLS: write `url: mqtts://…`, with `:443` where a firewall blocks port 8883")
        if self.username is not None:
            raise ValueError("AWS knows a device by its certificate: leave `username` out")
        if self.window > MAX_IN_FLIGHT:
            raise ValueError(f"`window` can be at most {MAX_IN_FLIGHT}: AWS takes no more at once")
        if self.max_message > MAX_MESSAGE:
            raise ValueError("`max_message` can be at most 128KiB: AWS takes no more")
        if not _MIN_KEEPALIVE <= self.keepalive <= _MAX_KEEPALIVE:
            raise ValueError("`keepalive` must lie between 30s and 20m")
        if self.session_expiry > _MAX_SESSION:
            raise ValueError("`session_expiry` can be at most 7d: AWS keeps a session no longer")
        if self.thing and not re.fullmatch(THING, self.thing):
            raise ValueError("`thing` has up to 128 letters, digits, `:`, `_` and `-`")

    def _check_shadow(self) -> None:
        if self.shadow and not re.fullmatch(_SHADOW_NAME, self.shadow):
            raise ValueError("`shadow` has up to 64 letters, digits, `:`, `_` and `-`, or is `classic`")
        if self.shadow_every < 1:
            raise ValueError("`shadow_every` must be at least 1s")
        if not 512 <= self.shadow_size <= 30 * 1024:  # noqa: PLR2004  # as the message says
            raise ValueError("`shadow_size` must lie between 512B and 30KiB, to which AWS can raise the limit")
        if self.command_timeout <= 0:
            raise ValueError("`command_timeout` must be longer than 0")

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from super().idle()
        if not self.shadow:
            for key in ("shadow_points", "shadow_every", "shadow_size", "command_timeout"):
                yield key, "there is no `shadow`"
        elif not self.commands:
            yield "command_timeout", "it needs `commands: true`"
        if not self.provisioning_template:
            yield "provisioning_parameters", "there is no `provisioning_template`"
        if self.claim_key and not self.claim_certificate:
            yield "claim_key", "there is no `claim_certificate`"


def _check_topics(config: AwsConnection, context: ConnectionContext) -> None:
    """Raises ConfigError where one is too long with the names of this gateway, or cannot be made."""
    names = {**names_of(context), "lane": Lane.HISTORICAL.value, "device": "device", "point": "point"}
    try:
        for key in _TOPICS:
            check_topic(fill(getattr(config, key), names))
    except ValueError as exc:
        raise ConfigError(f"connection {context.name}: {exc}") from exc


class AwsConnector:
    """Builds the parts of an `aws-iot` connection."""

    connection_config: type[ConnectionConfig] = AwsConnection

    def encoder(self, config: AwsConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection. Raises ConfigError if its topics cannot be made."""
        _check_topics(config, context)
        return JsonEncoder(config, context)

    def link(self, config: AwsConnection, context: ConnectionContext) -> Link:
        """The link of this connection. Raises ConfigError if its topics cannot be made."""
        from edged.uplink.links.aws import AwsLink, ShadowKeeper  # noqa: PLC0415  # only a forwarding daemon pays for aiomqtt
        from edged.uplink.links.exchange import Reported  # noqa: PLC0415  # likewise

        _check_topics(config, context)
        thing = config.thing or str(context.gateway.id)
        announcements = Announcements(config, context)
        shadow = Shadow("" if config.shadow == _CLASSIC else config.shadow, Limits(config.shadow_size))
        keeper = None
        if config.shadow and context.twin is not None:
            document = Reported(context.name, context.twin, context.devices, config.shadow_points, shadow.limits)
            keeper = ShadowKeeper(context.name, shadow, document, config.shadow_every, context.clock_trusted)
        commands = ShadowCommands(shadow, config.command_timeout, context.clock_trusted)
        return AwsLink(
            context.name, _broker(config, context, thing),
            announcements if config.retain else Unretained(announcements), pacing(config),
            make_service(config, context, partial(Both, commands, SHADOW) if config.shadow else None),
            thing=thing, shadow=shadow, keeper=keeper, provisioner=_provisioner(config, context),
        )  # fmt: skip


def _broker(config: AwsConnection, context: ConnectionContext, thing: str) -> Broker:
    """The thing's name is the usual client id; on port 443 the protocol is chosen by ALPN."""
    known = broker(config, context)
    tls = known.tls
    if tls is not None and not tls.alpn and known.port == _HTTPS:
        tls = replace(tls, alpn=(_ALPN,))
    return replace(known, tls=tls, client_id=config.client_id or thing)


def _provisioner(config: AwsConnection, context: ConnectionContext) -> Provisioner | None:
    """Raises ConfigError where credentials could not be kept."""
    from edged.uplink.links.aws import Claim, Provisioner  # noqa: PLC0415  # as above

    if not config.provisioning_template:
        return None
    if context.state is None:
        raise ConfigError(f"connection {context.name}: there is no folder in which credentials could be kept")
    gateway = str(context.gateway.id)
    known = _broker(config, context, gateway)
    tls = replace(known.tls, certificate=config.claim_certificate, key=config.claim_key) if known.tls else None
    claim = Claim(
        replace(known, tls=tls, client_id=gateway, clean=True), config.provisioning_template,
        config.provisioning_parameters or {"SerialNumber": gateway},
    )  # fmt: skip
    return Provisioner(context.name, claim, context.state)


CONNECTOR = AwsConnector()
