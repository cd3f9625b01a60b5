"""What all connections that others come to have in common: where they listen, and who may connect."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from edged.config.base import STRICT, ConnectionConfig

_MOST_CLIENTS = 100
"""Each costs memory."""


@dataclass(frozen=True, kw_only=True)
class ListeningConnection(ConnectionConfig):
    """A server on this machine. Nothing is sent, and nothing waits in the buffer: it shows how things are."""

    __pydantic_config__: ClassVar = STRICT
    keeps: ClassVar[bool] = False
    follows_devices: ClassVar[bool] = True

    listen: str
    """The address and port to listen on, e.g. `192.0.2.4:1502`; `127.0.0.1` is for this machine alone, `0.0.0.0` for
    all. Ports below 1024 need a right that the service does not have."""
    allow: list[str] = field(default_factory=list)
    """Addresses or networks that may connect, e.g. `[192.0.2.0/24]`. Without it: all."""
    max_clients: int = 8
    """How many may be connected at once."""

    def __post_init__(self) -> None:
        _ = self.address, self.networks
        if not 1 <= self.max_clients <= _MOST_CLIENTS:
            raise ValueError(f"`max_clients` must lie between 1 and {_MOST_CLIENTS}")

    @cached_property
    def address(self) -> tuple[str, int]:
        """Host and port. Raises ValueError."""
        host, colon, port = self.listen.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:  # noqa: PLR2004  # ports
            raise ValueError(f"`listen: {self.listen}` must be an address and a port, such as 192.0.2.4:1502")
        try:
            return str(ipaddress.ip_address(host.strip("[]"))), int(port)
        except ValueError:
            raise ValueError(
                f"`listen: {self.listen}`: {host!r} is no IP address; write one of this machine, 127.0.0.1 for itself "
                "alone, or 0.0.0.0 for all"
            ) from None

    @cached_property
    def networks(self) -> Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Who may connect. Raises ValueError."""
        try:
            return [ipaddress.ip_network(one) for one in self.allow]
        except ValueError as exc:
            raise ValueError(f"`allow`: {exc}; write a network such as 192.0.2.0/24, or an address") from None

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield "max_age", "nothing waits for this connection"

    def admits(self, peer: str) -> bool:
        """Whether `allow` names this address."""
        if not self.networks:
            return True
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # how a socket for IPv6 sees a client with IPv4
        return any((mapped or address) in network for network in self.networks)
