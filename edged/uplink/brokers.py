"""What all connections over MQTT have in common: where the broker is, how to be its client, and how hard to drive it.

A connector over MQTT adds to `BrokerConnection` what its dialect needs, and makes its link of `broker` and
`upstream.pacing`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from edged.config.base import STRICT, CommandingConfig
from edged.config.types import Duration, Secret, Size
from edged.uplink.api import ConnectionContext
from edged.uplink.topics import split_url
from edged.uplink.upstream import PacedConnection, SecuredConnection

if TYPE_CHECKING:
    from edged.uplink.links.mqtt import Broker

log = logging.getLogger("edged.uplink")

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""The schemes of a broker's URL, and the port each means when none is given."""
_SYNONYMS = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts", "mqtt+ssl": "mqtts", "http": "ws", "https": "wss"}
_MAX_KEEPALIVE, _MAX_WINDOW = 65_535, 65_535


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
        parts, port = split_url(url)
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
class BrokerConnection(SecuredConnection, PacedConnection, CommandingConfig):
    """An MQTT broker, and how to be its client."""

    __pydantic_config__: ClassVar = STRICT
    PLAIN_LOGIN: ClassVar[bool] = True
    """Whether user name and password, as configured, let in a client of any id, such as `edged doctor`."""

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
    alpn: list[str] = field(default_factory=list)
    """Protocol names to offer in the TLS handshake, e.g. `[x-amzn-mqtt-ca]` for AWS on port 443."""
    keepalive: Duration = Duration(30)
    """A silent connection is probed after this time, and given up after twice as long."""
    session_expiry: Duration = Duration(86_400)
    """How long the broker keeps this client's session after the connection broke."""
    connect_timeout: Duration = Duration(10)
    """How long one attempt to connect may take."""
    ack_timeout: Duration = Duration(20)
    """When messages wait for the broker's word and none comes for so long, the connection is given up and made anew."""
    max_message: Size = Size(128 * 1024)
    """The largest payload the broker takes; bigger ones are divided. What an MQTT 5 broker announces counts as well."""
    window: int = 20
    """How many messages may wait for the broker's word at once. After a crash at most so many are sent twice."""

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
        if not 1 <= self.window <= _MAX_WINDOW:
            raise ValueError(f"`window` must lie between 1 and {_MAX_WINDOW}")
        self.check_share()
        if not 1024 <= self.max_message < 2**28:  # noqa: PLR2004  # MQTT's own limit
            raise ValueError("`max_message` must lie between 1KiB and 256MiB")

    def _check_tls(self, endpoint: Endpoint) -> None:
        self.check_tls("alpn", tls=endpoint.tls, secure="wss" if endpoint.scheme == "ws" else "mqtts")
        if any(not 1 <= len(one.encode()) <= 255 for one in self.alpn):  # noqa: PLR2004  # RFC 7301, 3.1
            raise ValueError("a name in `alpn` has 1 to 255 bytes")


def broker(config: BrokerConnection, context: ConnectionContext) -> Broker:
    """How to reach it. Warns when its certificate is not checked."""
    from edged.uplink.links.mqtt import Broker  # noqa: PLC0415  # only a forwarding daemon pays for aiomqtt
    from edged.uplink.links.tls import Tls  # noqa: PLC0415  # likewise

    endpoint = Endpoint.parse(config.url)
    if config.insecure:
        log.warning("%s: `insecure` is set: the broker's certificate is not checked", context.name)
    tls = Tls(
        ca=config.ca, certificate=config.certificate, key=config.key, alpn=tuple(config.alpn),
        server_name=config.server_name, insecure=config.insecure,
    ) if endpoint.tls else None  # fmt: skip
    password = config.password
    return Broker(
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
