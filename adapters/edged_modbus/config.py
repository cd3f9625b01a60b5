"""What a technician writes about Modbus buses and devices.

Plain frozen dataclasses that check themselves. Points are in `point.py`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Literal

from edged.adapter import STRICT, BusConfig, DeviceConfig, Duration, FileName, Name

from .planner import ADDRESSES, MAX_BITS, MAX_REGISTERS, Limits, Span, Table
from .point import ModbusPoint

__all__ = [
    "ModbusDevice", "ModbusPoint", "ModbusRtuOverTcpBus", "ModbusTcpBus", "ModbusTlsBus", "ModbusUdpBus", "SunSpec",
    "Table",
]  # fmt: skip

_SHORTEST_TIMEOUT, _LONGEST_TIMEOUT, _LONGEST_PAUSE = 0.001, 600.0, 60.0
_LAST_UNIT = 247
_LONGEST_NAME = 253
"""Characters of a host's name (RFC 1035, 2.3.4)."""
_HOST_NAME = re.compile(r"(?:(?![-.])[\w-]{1,63}(?<!-)\.)*(?![-.])[\w-]{1,63}(?<!-)\.?")
"""Labels between points; names in other scripts are for the resolver to judge."""
_NUMERIC = re.compile(r"[0-9.]+")

LongOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]


@dataclass(frozen=True, kw_only=True)
class SunSpec:
    """A device that tells itself which SunSpec models it has, and so which points."""

    __pydantic_config__: ClassVar = STRICT

    address: int | None = None
    """Where its map begins. Without it: looked for at 40000, 50000 and 0."""
    models: tuple[int, ...] = ()
    """Only these models, e.g. `[103, 160]`. Without it: all."""
    points: tuple[str, ...] = ()
    """Only these points, e.g. `[W, Hz, "mppt.*", "120.WRtg"]`. Without it: what is measured, not settings."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(self.models))
        object.__setattr__(self, "points", tuple(self.points))
        if self.address is not None and not 0 <= self.address < ADDRESSES:
            raise ValueError(f"`address: {self.address}`: addresses go from 0 to {ADDRESSES - 1}")


@dataclass(frozen=True, kw_only=True)
class ModbusDevice(DeviceConfig):
    """One Modbus device (a unit) on a bus."""

    __pydantic_config__: ClassVar = STRICT

    brings_points: ClassVar = "sunspec"

    unit: int = 1
    """Its unit (slave) number: 1 to 247 on a line; 0 or 255 for many devices that have their own network address."""
    timeout: Duration = Duration(1)
    """How long to wait for an answer."""
    retries: int = 1
    """How often to repeat a request without an answer before the reading counts as failed."""
    pause: Duration = Duration(0)
    """How long to leave it alone between two requests; some devices need it."""
    order: LongOrder | None = None
    """The byte order of its 32-bit and 64-bit values, for points that do not say it themselves."""
    max_registers: int = MAX_REGISTERS
    """Most registers in one request."""
    max_coils: int = MAX_BITS
    """Most coils or discrete inputs in one request."""
    one_request_per_point: bool = False
    """For devices that only answer requests for exactly one value."""
    avoid: tuple[str, ...] = ()
    """Addresses never to touch, e.g. `["holding 40-49", "input 7"]`."""
    sunspec: SunSpec | None = None
    """Find out from the device itself what it has, instead of listing `points`. `profile: sunspec` does it."""
    points: dict[Name, ModbusPoint] = field(default_factory=dict)  # type: ignore[assignment]  # narrower than the base
    """Its values by name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "avoid", tuple(self.avoid))
        if not 0 <= self.unit <= 255:  # noqa: PLR2004  # the range stated in the message
            raise ValueError(f"`unit: {self.unit}`: unit numbers go from 0 to 255")
        check_timeout(self.timeout)
        if self.pause > _LONGEST_PAUSE:
            raise ValueError(f"`pause` is the rest between two requests: at most {Duration(_LONGEST_PAUSE)}")
        if not 0 <= self.retries <= 10:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`retries` must lie between 0 and 10")
        if not 1 <= self.max_registers <= MAX_REGISTERS:
            raise ValueError(f"`max_registers` must lie between 1 and {MAX_REGISTERS}, the limit of the protocol")
        if not 1 <= self.max_coils <= MAX_BITS:
            raise ValueError(f"`max_coils` must lie between 1 and {MAX_BITS}, the limit of the protocol")
        for text in self.avoid:
            try:
                Span.parse(text)
            except ValueError as exc:
                raise ValueError(f"`avoid`: {exc}") from None
        if self.sunspec is not None and self.points:
            raise ValueError(
                "a device with `sunspec` tells its points itself: choose some with `points` below `sunspec`, and give "
                "other registers a device entry of their own"
            )
        for name, point in self.points.items():
            if not point.table.is_bits and point.count > self.max_registers:
                raise ValueError(
                    f"point {name!r} takes {point.count} registers, and `max_registers` allows {self.max_registers}"
                )
        if self.order is not None:
            object.__setattr__(self, "points", {name: self._ordered(point) for name, point in self.points.items()})

    def _ordered(self, point: ModbusPoint) -> ModbusPoint:
        if point.order is not None or point.data_type == "string" or point.width not in {32, 64}:
            return point
        return dataclasses.replace(point, order=self.order)

    @property
    def limits(self) -> Limits:
        """What the planner has to keep to."""
        return Limits(
            max_registers=self.max_registers,
            max_coils=self.max_coils,
            one_request_per_point=self.one_request_per_point,
            avoid=tuple(Span.parse(text) for text in self.avoid),
        )


@dataclass(frozen=True, kw_only=True)
class ModbusTcpBus(BusConfig):
    """Modbus TCP: a device, or a gateway with several units behind it."""

    __pydantic_config__: ClassVar = STRICT

    host: str
    """Its name or address."""
    port: int = 502
    """Its TCP port."""
    timeout: Duration = Duration(3)
    """How long to wait for a connection."""
    connections: int = 1
    """How many connections to open at once. Many devices accept only one or a few."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_endpoint(self.host, self.port, self.timeout)
        if not 1 <= self.connections <= 16:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`connections` must lie between 1 and 16")


@dataclass(frozen=True, kw_only=True)
class ModbusTlsBus(ModbusTcpBus):
    """Modbus/TCP Security: Modbus TCP inside TLS."""

    __pydantic_config__: ClassVar = STRICT

    port: int = 802
    """Its TCP port."""
    ca: FileName = FileName()
    """File with the certificates (PEM) of the authorities to trust. Without it: the system's."""
    certificate: FileName = FileName()
    """File with our own certificate (PEM), when the device wants one."""
    key: FileName = FileName()
    """File with the key of our certificate (PEM)."""
    server_name: str = ""
    """The name in the device's certificate, when it is not `host`."""
    verify: bool = True
    """`false` accepts any certificate: anybody on the way can then read and change everything."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key and not self.certificate:
            raise ValueError("`key` is of no use without `certificate`")

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if not self.verify:
            for key in ("ca", "server_name"):
                yield key, "`verify: false` accepts any certificate"


@dataclass(frozen=True, kw_only=True)
class ModbusUdpBus(BusConfig):
    """Modbus over UDP."""

    __pydantic_config__: ClassVar = STRICT

    host: str
    """Its name or address."""
    port: int = 502
    """Its UDP port."""
    timeout: Duration = Duration(3)
    """How long to wait for the name of the host to be resolved."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_endpoint(self.host, self.port, self.timeout)


@dataclass(frozen=True, kw_only=True)
class ModbusRtuOverTcpBus(BusConfig):
    """RTU frames through TCP: a serial server (terminal server, RS-485 to Ethernet converter) in transparent mode."""

    __pydantic_config__: ClassVar = STRICT

    host: str
    """Its name or address."""
    port: int
    """Its TCP port. There is no usual one: look it up in the converter's settings."""
    timeout: Duration = Duration(3)
    """How long to wait for a connection."""
    baudrate: int | None = None
    """The speed of the line behind it; used to plan the reads and to predict the load."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_endpoint(self.host, self.port, self.timeout)
        if self.baudrate is not None and not 50 <= self.baudrate <= 10_000_000:  # noqa: PLR2004  # any real line
            raise ValueError(f"`baudrate: {self.baudrate}` is not the speed of a serial line, such as 9600 or 19200")

    def doubts(self, device: DeviceConfig) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from line_doubts(device)


def line_doubts(device: DeviceConfig) -> Iterator[tuple[str, str]]:
    """Units that no device on a serial line has (Modbus over Serial Line V1.02, 2.2)."""
    unit = getattr(device, "unit", None)
    if unit == 0:
        yield "unit", "unit 0 means all devices of a line at once, and none of them answers: write the device's number"
    elif unit is not None and unit > _LAST_UNIT:
        yield "unit", f"devices on a line have units 1 to {_LAST_UNIT}; {unit} is reserved, and few answer it"


def check_timeout(timeout: float) -> None:
    """Raises ValueError for one that nobody means."""
    if timeout <= 0:
        raise ValueError("`timeout` must be longer than 0")
    if not _SHORTEST_TIMEOUT <= timeout <= _LONGEST_TIMEOUT:
        raise ValueError(f"`timeout` must lie between {Duration(_SHORTEST_TIMEOUT)} and {Duration(_LONGEST_TIMEOUT)}")


def _check_endpoint(host: str, port: int, timeout: float) -> None:
    if problem := _about_host(host):
        raise ValueError(f"`host: {host}` {problem}")
    if not 1 <= port <= 65535:  # noqa: PLR2004  # the range stated in the message
        raise ValueError(f"`port: {port}`: ports go from 1 to 65535")
    check_timeout(timeout)


def _about_host(host: str) -> str:
    """What is wrong with a name or an address of a host; empty if nothing is."""
    name, colon, port = host.rpartition(":")
    if colon and ":" not in name and port.isdecimal():
        return f"is a host and a port: write `host: {name}` and `port: {port}`"
    if host.startswith("["):
        return "has brackets, which belong into URLs only: write the address without them"
    if ":" in host and "/" not in host:
        return "" if _is_address(IPv6Address, host.partition("%")[0]) else "is not an IPv6 address"
    if _NUMERIC.fullmatch(host):
        known = _is_address(IPv4Address, host)
        return "" if known else "is not an IPv4 address: four numbers from 0 to 255, without zeros before them"
    if len(host) > _LONGEST_NAME or not _HOST_NAME.fullmatch(host):
        return "is not a host: write a name or an address such as 192.0.2.10"
    return ""


def _is_address(kind: type[IPv4Address | IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
