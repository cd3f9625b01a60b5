"""What connections have in common, whatever they go to: how hard they are driven, and how their TLS is checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Duration, FileName
from edged.errors import ConfigError
from edged.uplink.api import ConnectionContext, Pacing

RECONNECT: dict[str, tuple[tuple[float, float], ...]] = {
    "quick": (),
    "aggressive": ((180, 3 * 3600), (1800, 7 * 86_400 + 3 * 3600), (3600, math.inf)),
    "normal": ((300, 3600), (3600, 25 * 3600), (86_400, math.inf)),
    "calm": ((600, 12 * 3600), (3600, math.inf)),
}
"""For each `reconnect`: the seconds between two attempts, and until how long after the connection broke."""
NAMES = ("gateway", "tenant", "building", "location", "connection")
"""What every template of names may use."""


@dataclass(frozen=True, kw_only=True)
class PacedConnection(ConnectionConfig):
    """An upstream that may be away: how often it is tried again, and what goes first when it is back."""

    __pydantic_config__: ClassVar = STRICT

    retry_max: Duration = Duration(30)
    """The longest pause between two attempts to connect. Pauses are random, and grow up to this."""
    reconnect: Literal["quick", "aggressive", "normal", "calm"] = "quick"
    """How often a connection that is down is tried again; it is never given up. `quick`: after seconds, up to
    `retry_max`. For links that cost money or battery: `aggressive`: every 3 min for 3 h, every 30 min for a week, then
    hourly. `normal`: every 5 min for 1 h, hourly for a day, then daily. `calm`: every 10 min for 12 h, then hourly. The
    first attempt always comes within `retry_max`."""
    historical_share: float = 0.5
    """The largest share of the window for what an outage left behind; fresh readings have the rest."""
    lanes: Literal["live-first", "strict"] = "live-first"
    """`live-first`: after an outage fresh readings go at once, and the backlog beside them; those with `priority: high`
    go ahead of all. `strict`: everything in the order in which it was read, fresh readings last, whatever its
    priority."""

    def check_share(self) -> None:
        """Raises ValueError if the share is none."""
        if not 0 < self.historical_share < 1:
            raise ValueError("`historical_share` is a share of the window, between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class SecuredConnection(ConnectionConfig):
    """An upstream that may be reached through TLS."""

    __pydantic_config__: ClassVar = STRICT

    ca: FileName = FileName()
    """File with the certificates of the authorities to trust, PEM. Without it: those that the system trusts."""
    certificate: FileName = FileName()
    """File with this client's certificate, PEM, where the other side wants one."""
    key: FileName = FileName()
    """File with the private key of `certificate`, without a passphrase. Without it: it is in the certificate's file."""
    server_name: str = ""
    """The name that the other side's certificate must have, when it is not the host of the `url`."""
    insecure: bool = False
    """`true` accepts any certificate: anybody on the way can read and change everything. Only for a test bench."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if self.insecure:
            for key in ("ca", "server_name"):
                yield key, "`insecure: true` accepts any certificate"
        yield from super().idle()

    def check_tls(self, *more: str, tls: bool, secure: str) -> None:
        """Raises ValueError if the settings make no sense. `more`: settings of TLS besides; `secure`: its scheme."""
        names = ("ca", "certificate", "key", *more, "server_name", "insecure")
        given = [name for name in names if getattr(self, name)]
        if given and not tls:
            raise ValueError(f"`{given[0]}` has a meaning only with TLS: write `url: {secure}://…`")
        if self.key and not self.certificate:
            raise ValueError("`key` needs the `certificate` that it belongs to")


def names_of(context: ConnectionContext) -> dict[str, str]:
    """What the names in a template stand for."""
    site = context.gateway.site
    return {
        "gateway": context.gateway.id,
        "tenant": site.tenant,
        "building": site.building,
        "location": site.location,
        "connection": context.name,
    }


def naming(
    template: str, setting: str, context: ConnectionContext, fill: Callable[[str, Mapping[str, str]], str]
) -> Callable[[str], str]:
    """What a device is called there, by the template of a setting. Raises ConfigError if that cannot be made."""
    names = names_of(context)

    def name(device: str) -> str:
        return fill(template, {**names, "device": device})

    try:
        name("device")
    except ValueError as exc:
        raise ConfigError(f"connection {context.name}: `{setting}`: {exc}") from exc
    return name


def pacing(config: PacedConnection) -> Pacing:
    """How the forwarder is to drive it."""
    return Pacing(
        historical_share=config.historical_share, retry_max=config.retry_max, strict=config.lanes == "strict",
        retry_steps=RECONNECT[config.reconnect],
    )  # fmt: skip
