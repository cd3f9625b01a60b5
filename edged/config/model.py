"""The configuration as the daemon uses it: what is not an adapter's or a connector's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import ClassVar, Literal
from zoneinfo import ZoneInfo, available_timezones

from edged.config.base import STRICT, BusConfig, ConnectionConfig, DeviceConfig, Settings
from edged.config.flows import FlowConfig, cursor_name
from edged.config.types import Duration, Name, Size


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """Where the gateway stands. Every field can be used in topic templates."""

    __pydantic_config__: ClassVar = STRICT

    tenant: str = ""
    """Whose gateway it is."""
    building: str = ""
    """The building."""
    location: str = ""
    """Where in it."""
    timezone: str = "UTC"
    """The zone of local times and schedules, e.g. `Europe/Berlin`."""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (OSError, ValueError, LookupError):
            near = get_close_matches(self.timezone, available_timezones(), 1)
            hint = f"did you mean {near[0]}?" if near else "they look like Europe/Berlin"
            raise ValueError(f"{self.timezone!r} is not a time zone; {hint}") from None


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """Who this gateway is."""

    __pydantic_config__: ClassVar = STRICT

    id: Name
    """Its name upstream. It must be unique among the gateways of one broker."""
    site: SiteConfig = field(default_factory=SiteConfig)
    """Where it stands."""


_LONGEST_SOCKET = 107
"""Bytes of `sockaddr_un.sun_path` less the NUL that ends it (unix(7))."""

_USUAL = {"path": "/var/lib/edged/buffer.db", "socket": "/run/edged/edged.sock"}


def _check_whole(key: str, path: str) -> None:
    """Where the daemon was started must not decide where its files are."""
    if path and (not path.startswith("/") or path.endswith("/") or "\0" in path):
        raise ValueError(f"`{key}` must be the whole path of a file, beginning with `/`, such as {_USUAL[key]}")


@dataclass(frozen=True, kw_only=True)
class BufferConfig(Settings):
    """The store-and-forward log."""

    __pydantic_config__: ClassVar = STRICT

    path: str = ""
    """The file. Without it: `buffer.db` in the state directory (/var/lib/edged under systemd)."""
    flush: Duration = Duration(1)
    """How often readings are made durable. A power cut loses at most this much."""
    flush_readings: int = 20_000
    """Flush earlier when so many readings wait."""
    max_bytes: Size = Size(256 * 2**20)
    """The database, its journal included, never grows past this."""
    min_free: Size = Size(64 * 2**20)
    """Never grow when the disk has less than this left."""
    max_age: Duration = Duration(0)
    """Give up readings older than this even if not delivered, for all connections; 0 keeps them."""
    retention: Duration = Duration(0)
    """Keep readings for so long although they need no more sending, for `edged buffer export` and `replay`. Where room
    is needed they go first. 0 keeps none."""
    when_full: Literal["drop-oldest", "drop-newest", "thin"] = "drop-oldest"
    """What to give up when the limits are reached: the oldest readings, or new ones. `thin` first reduces the oldest
    ones to the lowest, the highest and the last value per `thin_interval`, marked as `uncertain(thinned)`, and drops
    only what is thin already. Everything given up is counted."""
    thin_interval: Duration = Duration(60)
    """With `when_full: thin`: of how much time three values remain of each point."""
    inbox_readings: int = 200_000
    """How many readings may wait in memory for a slow disk, before the oldest of them are dropped and counted (with
    `when_full: drop-newest`: new ones are refused)."""

    def __post_init__(self) -> None:
        if not 0.01 <= self.flush <= 60:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`flush` must lie between 10ms and 60s")
        if not 1 <= self.flush_readings <= self.inbox_readings:
            raise ValueError("`flush_readings` must be at least 1 and not above `inbox_readings`")
        if self.thin_interval <= 0:
            raise ValueError("`thin_interval` must be longer than 0")
        _check_whole("path", self.path)
        if self.max_bytes < 2**20:
            raise ValueError("`max_bytes` must be at least 1MiB")

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if self.when_full != "thin":
            yield "thin_interval", f"it needs `when_full: thin`, and this is `{self.when_full}`"


@dataclass(frozen=True, kw_only=True)
class ClockConfig:
    """When the time of day is believed. Many small boards start with a wrong one, until the network is there."""

    __pydantic_config__: ClassVar = STRICT

    trust: Literal["auto", "always"] = "auto"
    """`auto`: when the kernel or a time service says that the clock is set, or a clock chip agrees with it. `always`:
    whatever it shows, for a clock that is set by something edged does not know."""
    untrusted: Literal["mark", "hold"] = "mark"
    """What to do with readings taken before that. `mark` sends them as `uncertain(clock)`. `hold` keeps them back until
    the clock is set, then sends them with the right time; without a time source nothing is ever sent."""


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """The local API on a Unix socket, which `edged status` and `edged tail` use."""

    __pydantic_config__: ClassVar = STRICT

    socket: str = ""
    """Its path. Without it: `edged.sock` in the runtime directory (/run/edged under systemd)."""
    watch: Duration = Duration(60)
    """How long a reload watches what it changed before the new configuration counts as good. What worked before and
    does not come up in that time is rolled back."""

    def __post_init__(self) -> None:
        _check_whole("socket", self.socket)
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
            raise ValueError(f"`socket` is longer than the {_LONGEST_SOCKET} bytes that the path of a socket can have")
        if not 1 <= self.watch <= 86_400:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`watch` must lie between 1s and 1d")


@dataclass(frozen=True, kw_only=True)
class BackupConfig(Settings):
    """Backups that are made by themselves: configuration, state and buffer, each in one file."""

    __pydantic_config__: ClassVar = STRICT

    directory: str = ""
    """The folder they go to, such as `/media/usb/edged`; it must be there, on a disk that is mounted. Without it none
    are made by themselves."""
    every: Duration = Duration(86_400)
    """How often. Looked at once an hour."""
    keep: int = 7
    """So many of the newest are kept."""
    keep_weeks: int = 4
    """Besides these, the last one of each of so many weeks."""
    max_bytes: Size = Size(0)
    """All together take no more than this: the oldest go, but never the newest. 0: no limit."""
    min_free: Size = Size(64 * 2**20)
    """With less than this left on their disk after the next one, the oldest go first."""
    secrets: bool = False
    """Whether private keys and `secrets.env` are included. Then keep the disk locked away."""

    def __post_init__(self) -> None:
        if self.directory and not self.directory.startswith("/"):
            raise ValueError("`directory` must be a whole path, such as /media/usb/edged")
        if self.every < 3600:  # noqa: PLR2004  # as stated in the message
            raise ValueError("`every` must be at least 1h")
        if not (1 <= self.keep <= 1000 and 0 <= self.keep_weeks <= 1000):  # noqa: PLR2004  # as stated in the message
            raise ValueError("`keep` must lie between 1 and 1000, `keep_weeks` between 0 and 1000")

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if not self.directory:
            for name in ("every", "keep", "keep_weeks", "max_bytes", "min_free", "secrets"):
                yield name, "it needs `directory`: without it no backups are made by themselves"


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole configuration, validated."""

    gateway: GatewayConfig
    buffer: BufferConfig = field(default_factory=BufferConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    clock: ClockConfig = field(default_factory=ClockConfig)
    backup: BackupConfig = field(default_factory=BackupConfig)
    buses: Mapping[str, BusConfig] = field(default_factory=dict)
    """Instances of the class that the bus's adapter names."""
    devices: Mapping[str, DeviceConfig] = field(default_factory=dict)
    """Likewise, by the adapter of the device's bus; profiles already applied."""
    connections: Mapping[str, ConnectionConfig] = field(default_factory=dict)
    """Instances of the class that the connector names."""
    flows: Mapping[str, FlowConfig] = field(default_factory=dict)
    """Which readings go where. A connection that none of them names gets all."""

    def devices_on(self, bus: str) -> dict[str, DeviceConfig]:
        """The enabled devices of one bus."""
        return {name: device for name, device in self.devices.items() if device.bus == bus and device.enabled}

    def flows_to(self, connection: str) -> dict[str, FlowConfig]:
        """The flows that go to a connection, disabled ones included."""
        return {name: flow for name, flow in self.flows.items() if connection in flow.connections}

    def cursors(self) -> dict[str, float]:
        """The places in the buffer, one for each connection or flow to it, and how old readings get there, seconds."""
        ages: dict[str, float] = {}
        for name, connection in self.connections.items():
            if not connection.keeps:
                continue
            flows = self.flows_to(name)
            for flow, config in flows.items():
                age = config.connections[name].max_age
                ages[cursor_name(name, flow)] = float(connection.max_age if age is None else age)
            if not flows:
                ages[name] = float(connection.max_age)
        return ages

    def intervals(self) -> dict[str, int]:
        """The places of flows, and the interval that each waits for, microseconds; 0 if it waits for none."""
        return {
            cursor_name(connection, name): round(flow.interval * 1e6)
            for name, flow in self.flows.items()
            for connection in flow.connections
        }
