"""What a technician writes about radios and the devices that are heard through them.

Plain frozen dataclasses that check themselves.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from edged.adapter import STRICT, BusConfig, DeviceConfig, Duration, Name, PointConfig, Secret

from .codecs.layout import FieldType, Order

Scan = Literal["auto", "passive", "active"]
_ADDRESS = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}")


@dataclass(frozen=True, kw_only=True)
class Allow:
    """Which senders are listened to besides the configured devices. Without it: all."""

    __pydantic_config__: ClassVar = STRICT

    addresses: tuple[str, ...] = ()
    """Addresses or their beginnings, e.g. `["A4:C1:38"]`."""
    names: tuple[str, ...] = ()
    """Names, with `*` for any text, e.g. `["ATC_*"]`."""
    services: tuple[str, ...] = ()
    """UUIDs of services, e.g. `["181A"]`."""
    companies: tuple[int, ...] = ()
    """Company numbers, e.g. `[0x0499]`."""


@dataclass(frozen=True, kw_only=True)
class BleBus(BusConfig):
    """A Bluetooth radio of this machine."""

    __pydantic_config__: ClassVar = STRICT

    radio: str = ""
    """Its name or address, such as `hci0`. Without it: the machine's first one."""
    scan: Scan = "auto"
    """`passive` only listens; `active` also asks each sender for more, which costs their batteries; `auto` is passive
    where the system can do it."""
    allow: Allow | None = None
    """Which unknown senders to remember for `edged scan ble`. Without it: all."""
    connections: int = 1
    """How many devices may be connected at once."""
    silence: Duration = Duration(120)
    """When nothing at all has been heard for so long the radio is restarted, unless it is usually as quiet as that."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Bytes that tell this kind of advertisement from others."""

    __pydantic_config__: ClassVar = STRICT

    at: int = 0
    """The first byte, counted from 0, negative from the end."""
    hex: str
    """What must be there, e.g. `"05"`; a dot stands for any digit."""


@dataclass(frozen=True, kw_only=True)
class Packet:
    """Where the number of the measurement is."""

    __pydantic_config__: ClassVar = STRICT

    at: int
    """Its first byte."""
    type: FieldType = "uint8"
    """Its type."""
    order: Order = "little"
    """Which byte comes first."""


@dataclass(frozen=True, kw_only=True)
class ByteMap:
    """Where the bytes of the values are in an advertisement, and what it looks like."""

    __pydantic_config__: ClassVar = STRICT

    company: int | None = None
    """They are manufacturer data with this company number."""
    service: str | None = None
    """They are service data with this UUID, e.g. `FCD2`."""
    length: tuple[int, int] | int | None = None
    """How many bytes there are, or the fewest and the most."""
    match: tuple[Match, ...] = ()
    """Bytes that must be as given."""
    packet: Packet | None = None
    """Where its number is, by which a repetition is known."""


@dataclass(frozen=True, kw_only=True)
class BlePoint(PointConfig):
    """One value of a BLE device: of its advertisements, or of a GATT characteristic if `characteristic` is given."""

    __pydantic_config__: ClassVar = STRICT

    field: str = ""
    """The decoder's name of the value, or the part of a standard characteristic; the point's own name unless given.
    `rssi` and `last_seen` exist for every device."""
    characteristic: str = ""
    """The UUID of a GATT characteristic, e.g. `2A19`. Without it the value is in the advertisements."""
    service: str = ""
    """The UUID of its service, where a device has the characteristic in several."""
    notify: bool = False
    """The device sends the characteristic by itself instead of being asked."""
    at: int | None = None
    """The first byte of the value, counted from 0, negative from the end; for `decoder: bytes` and for
    characteristics that are not standard."""
    type: FieldType | None = None
    """What its bytes mean; `uint8` unless given."""
    order: Order = "little"
    """Which of its bytes comes first."""
    length: int | None = None
    """Bytes of `text` and `hex`; all that follow unless given."""
    bit: int | None = None
    """One bit as true or false; 0 is the least significant."""
    bits: tuple[int, int] | None = None
    """Some bits as a number: the lowest and the highest."""
    enum: dict[int, str] = dataclasses.field(default_factory=dict)
    """Words for numbers, e.g. `{0: off, 1: on}`. Any other number is `bad(decode)`."""
    flags: dict[int, str] = dataclasses.field(default_factory=dict)
    """Words for bits, e.g. `{0: low battery}`. The value lists those that are set."""
    invalid: tuple[int, ...] = ()
    """Raw numbers by which the device says that it has no value. They become `bad(decode)`."""


@dataclass(frozen=True, kw_only=True)
class BleDevice(DeviceConfig):
    """One BLE device: a sensor that advertises its values, one that is connected to, or both."""

    __pydantic_config__: ClassVar = STRICT

    brings_points: ClassVar = True
    """`points` can be left out: the decoder knows them."""

    address: str = ""
    """Its Bluetooth address, e.g. `A4:C1:38:01:23:45`."""
    name: str = ""
    """The name it advertises, instead of `address`, for devices that change their address."""
    decoder: str = ""
    """How its advertisements are read: the name of a format, or `bytes` for one described by `data` and `points`."""
    bind_key: Secret | None = None
    """The key of an encrypted sensor, in hexadecimal digits."""
    data: ByteMap | None = None
    """What its advertisements look like, with `decoder: bytes`."""
    expect: Duration = Duration(300)
    """How long it may be silent before its values are `bad(stale)`."""
    timeout: Duration = Duration(20)
    """How long a connection and what is read through it may take."""
    stay: bool = False
    """Stay connected, instead of connecting for each reading."""
    listen: Duration = Duration(10)
    """How long to wait for values with `notify` after connecting."""
    pair: bool = False
    """Pair with it before reading."""
    passkey: Secret | None = None
    """The passkey it asks for when pairing: six digits."""
    points: dict[Name, BlePoint] = dataclasses.field(default_factory=dict)  # type: ignore[assignment]  # narrower than the base
    """Its values by name. Without any: all that the decoder finds."""

    @property
    def advertised(self) -> tuple[Name, ...]:
        """The points that are in its advertisements, those of the radio included."""
        return tuple(name for name, point in self.points.items() if not point.characteristic)

    @property
    def connected(self) -> tuple[Name, ...]:
        """The points that are read through a connection."""
        return tuple(name for name, point in self.points.items() if point.characteristic)
