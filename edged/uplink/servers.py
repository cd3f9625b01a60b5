"""What all connections over HTTP have in common: where the server is, how to be its client, and how hard to drive it.

A connector over HTTP adds to `ServerConnection` what its dialect needs, and makes its link of `server` and
`upstream.pacing`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edged import __version__
from edged.config.base import STRICT
from edged.config.types import Duration, Size
from edged.uplink.api import ConnectionContext
from edged.uplink.dialects.http import Origin, target
from edged.uplink.upstream import PacedConnection, SecuredConnection

if TYPE_CHECKING:
    from edged.uplink.links.http import Server, Signer

log = logging.getLogger("edged.uplink")

_MAX_WINDOW = 100


@dataclass(frozen=True, kw_only=True)
class ServerConnection(SecuredConnection, PacedConnection):
    """A server that takes readings over HTTP/1.1, and how to be its client."""

    __pydantic_config__: ClassVar = STRICT

    url: str
    """Where the requests go: `https://host/path`, or `http://` without TLS, with `:port` if it is not the usual one."""
    connect_timeout: Duration = Duration(10)
    """How long one attempt to connect may take."""
    response_timeout: Duration = Duration(20)
    """How long the server may take for an answer. After that the connection is given up and made anew."""
    window: int = 4
    """How many requests may be under way at once. After a crash at most so many are sent twice."""
    ordered: bool = True
    """Readings arrive in the order in which they were read: on each lane a request waits for the answer to the one
    before it. `false`: as many at once as the window allows, and they may overtake each other."""
    max_message: Size = Size(1024 * 1024)
    """The largest body the server takes; bigger ones are divided, and so is what it answers with 413."""
    probe: str = ""
    """A path that is asked for with GET whenever a connection is made, such as `/health`. Unless the answer is good
    (2xx), there is no connection. Without it, the first readings show whether the server takes us for who we are."""

    def __post_init__(self) -> None:
        origin = Origin.parse(self.url)
        self.check_tls(tls=origin.tls, secure="https")
        if min(self.connect_timeout, self.response_timeout, self.retry_max) < 0.1:  # noqa: PLR2004  # as the message says
            raise ValueError("`connect_timeout`, `response_timeout` and `retry_max` must be at least 100ms")
        if not 1 <= self.window <= _MAX_WINDOW:
            raise ValueError(f"`window` must lie between 1 and {_MAX_WINDOW}: each request needs a connection")
        self.check_share()
        if not 1024 <= self.max_message < 2**28:  # noqa: PLR2004  # as the message says
            raise ValueError("`max_message` must lie between 1KiB and 256MiB")
        if self.probe and (not self.probe.startswith("/") or not self.probe.isascii() or not self.probe.isprintable()):
            raise ValueError("`probe` is a path, such as /health")


def server(
    config: ServerConnection, context: ConnectionContext, url: str, *, headers: Mapping[str, str],
    signer: Callable[[], Signer], query: Callable[[], str] = str, credentials: str, method: str, own_addresses: bool,
    patience: int,
) -> Server:  # fmt: skip
    """How to reach it; `url`: with its names filled in. Warns when its certificate is not checked."""
    from edged.uplink.links.http import Server  # noqa: PLC0415  # only a forwarding daemon pays for it
    from edged.uplink.links.tls import Tls  # noqa: PLC0415  # likewise

    origin = Origin.parse(url)
    if config.insecure:
        log.warning("%s: `insecure` is set: the server's certificate is not checked", context.name)
    tls = Tls(
        ca=config.ca, certificate=config.certificate, key=config.key, alpn=("http/1.1",),
        server_name=config.server_name, insecure=config.insecure,
    ) if origin.tls else None  # fmt: skip
    return Server(
        origin=origin,
        tls=tls,
        method=method,
        headers={"User-Agent": f"edged/{__version__}", **headers},
        signer=signer,
        query=query,
        credentials=credentials,
        probe=target(config.probe) if config.probe else "",
        connect_timeout=config.connect_timeout,
        response_timeout=config.response_timeout,
        window=config.window,
        ordered=config.ordered,
        own_addresses=own_addresses,
        patience=patience,
        max_message=config.max_message,
    )
