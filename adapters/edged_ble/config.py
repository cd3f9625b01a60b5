"""What a technician writes about radios and the devices that are heard through them.

Plain frozen dataclasses that check themselves. Points are in `point.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from edged.adapter import STRICT, BusConfig, ConfigError, DeviceConfig, Duration, FileName, Name, Secret

from .codecs.advert import Kind, uuid_of
from .codecs.gatt import FORMATS
from .codecs.layout import INTEGERS, FieldType, Order, Pattern
from .known import BYTES, KNOWN, RADIO_POINTS, key_of
from .point import BlePoint

__all__ = ["Allow", "BleBus", "BleDevice", "BlePoint", "ByteMap", "Match", "Packet", "Replay"]

Scan = Literal["auto", "passive", "active"]
SOCKET = "socket://"
"""How a `replay` from `edged simulate` begins."""
_ADDRESS = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}")
_RADIO = re.compile(r"hci[0-9]+")
_SOONEST = 10
"""Seconds; connecting for a reading takes several, and drains the device's battery."""


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

    def __post_init__(self) -> None:
        for key in ("addresses", "names", "services", "companies"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        for address in self.addresses:
            if not re.fullmatch(r"[0-9A-F]{2}(:[0-9A-F]{2}){0,5}:?", address.upper()):
                raise ValueError(f"`addresses`: {address!r} is no address nor the beginning of one, such as A4:C1:38")
        for uuid in self.services:
            uuid_of(uuid)
        for company in self.companies:
            _check_company("companies", company)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Advertisements that are not heard by a radio, for trials without one."""

    __pydantic_config__: ClassVar = STRICT

    file: FileName
    """The recording (`edged scan ble --record FILE`), or `socket://127.0.0.1:15022` where
    `edged simulate` serves sensors."""
    speed: float = 1.0
    """How fast: 2 takes half of the time that the recording took."""
    loop: bool = True
    """At the end, begin again."""

    def __post_init__(self) -> None:
        if not 0 < self.speed <= 1000:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`speed` must be above 0, up to 1000")
        if self.file.startswith(SOCKET) and self.endpoint is None:
            raise ValueError(f"`file: {self.file}`: write it as {SOCKET}127.0.0.1:15022")
        if not self.file:
            raise ValueError("`file` is empty: name a recording")

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Where `edged simulate` serves them; None for a file."""
        host, colon, port = self.file.removeprefix(SOCKET).rpartition(":")
        if not self.file.startswith(SOCKET) or not (host and colon and port.isascii() and port.isdecimal()):
            return None
        return (host.strip("[]"), int(port)) if int(port) <= 0xFFFF else None  # noqa: PLR2004  # ports are 16 bits


@dataclass(frozen=True, kw_only=True)
class BleBus(BusConfig):
    """A Bluetooth radio of this machine."""

    __pydantic_config__: ClassVar = STRICT

    dead_share: float = 1.0
    """The largest share of the bus's time that devices which do not answer may cost the others. Silent senders cost
    nothing, and devices that cannot be connected to leave the radio half of the time anyway."""
    retry_max: Duration = Duration(3)
    """Longest pause before it is looked whether a silent device, or the radio, is back."""
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
    replay: Replay | None = None
    """Use no radio: take the advertisements from a recording or from `edged simulate`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radio and not (_RADIO.fullmatch(self.radio) or _ADDRESS.fullmatch(self.radio.upper())):
            raise ValueError(f"`radio: {self.radio}`: write its name, such as hci0, or its address")
        if not 1 <= self.connections <= 8:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`connections` must lie between 1 and 8")
        if self.silence < _SOONEST:
            raise ValueError(f"`silence` must be at least {_SOONEST}s")
        if self.replay is not None and self.radio:
            raise ValueError("`replay` uses no radio: leave `radio` or `replay` out")


def _check_company(key: str, company: int) -> None:
    if not 0 <= company <= 0xFFFF:  # noqa: PLR2004  # the range stated in the message
        raise ValueError(f"`{key}: {company:#x}`: company numbers go from 0 to 0xFFFF")


@dataclass(frozen=True, kw_only=True)
class Match:
    """Bytes that tell this kind of advertisement from others."""

    __pydantic_config__: ClassVar = STRICT

    at: int = 0
    """The first byte, counted from 0, negative from the end."""
    hex: str
    """What must be there, e.g. `"05"`; a dot stands for any digit."""

    def __post_init__(self) -> None:
        Pattern.parse(self.at, self.hex)


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

    def __post_init__(self) -> None:
        if self.type not in INTEGERS:
            raise ValueError(f"`type: {self.type}`: the number of a packet is an integer, such as uint8")


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "match", tuple(self.match))
        if isinstance(self.length, list | tuple):
            object.__setattr__(self, "length", tuple(self.length))
        if (self.company is None) == (self.service is None):
            raise ValueError("say which data it is: either `company` (manufacturer data) or `service` (service data)")
        if self.company is not None:
            _check_company("company", self.company)
        if self.service is not None:
            uuid_of(self.service)
        if self.lengths is not None and not 1 <= self.lengths.start < self.lengths.stop <= 256:  # noqa: PLR2004  # an advertisement
            raise ValueError("`length` is a number of bytes from 1 to 255, or the fewest and the most of them")

    @property
    def lengths(self) -> range | None:
        """How many bytes there can be; None for any number."""
        match self.length:
            case None:
                return None
            case int(exactly):
                return range(exactly, exactly + 1)
            case (fewest, most):
                return range(fewest, most + 1)


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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_identity()
        self._check_decoder()
        if not self.points and self.decoder in KNOWN:
            object.__setattr__(self, "points", self._all_points())
        if not self.points:
            raise ValueError("it has no points: list some under `points`, or name a `decoder` or a `profile`")
        object.__setattr__(self, "points", {name: self._checked(name, point) for name, point in self.points.items()})
        self._check_connection()

    @property
    def advertised(self) -> tuple[Name, ...]:
        """The points that are in its advertisements, those of the radio included."""
        return tuple(name for name, point in self.points.items() if not point.characteristic)

    @property
    def connected(self) -> tuple[Name, ...]:
        """The points that are read through a connection."""
        return tuple(name for name, point in self.points.items() if point.characteristic)

    @property
    def radio_points(self) -> frozenset[Name]:
        """Those of `advertised` that tell how and when it was heard."""
        own = KNOWN[self.decoder].points if self.decoder in KNOWN else {}
        return frozenset(
            name
            for name, point in self.points.items()
            if not point.characteristic
            and (point.field or name) in RADIO_POINTS
            and (point.field or name) not in own
            and not point.has_layout
        )

    def _check_identity(self) -> None:
        if bool(self.address) == bool(self.name):
            raise ValueError("say which device it is: give either its `address` or the `name` that it advertises")
        address = self.address.strip().upper().replace("-", ":")
        if self.address and not _ADDRESS.fullmatch(address):
            raise ValueError(f"`address: {self.address}` is no Bluetooth address, such as A4:C1:38:01:23:45")
        object.__setattr__(self, "address", address)
        if self.expect <= 0 or self.timeout <= 0 or self.listen <= 0:
            raise ValueError("`expect`, `timeout` and `listen` must be longer than 0")

    def _check_decoder(self) -> None:
        known = KNOWN.get(self.decoder)
        if self.decoder and self.decoder != BYTES and known is None:
            names = [*KNOWN, BYTES]
            hint = _did_you_mean(self.decoder, names) or f"there are {', '.join(names)}"
            raise ValueError(f"`decoder`: there is no decoder {self.decoder!r}; {hint}")
        if (self.data is not None) != (self.decoder == BYTES):
            raise ValueError("`data` and `decoder: bytes` belong together: give both or none")
        if self.bind_key is not None and (known is None or not known.key_lengths):
            raise ValueError(f"`bind_key`: nothing is encrypted with decoder {self.decoder or 'none'}")
        if self.bind_key is not None and not self.bind_key.name:
            if not self.bind_key.text:
                raise ValueError("`bind_key` is empty")
            try:
                key_of(self.bind_key.text, self.decoder)
            except ConfigError as exc:
                raise ValueError(str(exc)) from None

    def _all_points(self) -> dict[Name, BlePoint]:
        known = KNOWN[self.decoder]
        if not known.common:
            raise ValueError(
                f"each sensor of decoder {self.decoder} has some of many values: list those of yours under `points`, "
                f"such as `temperature: {{}}` (`edged scan ble` shows them), or name a `profile`"
            )
        return {Name(name): BlePoint() for name in (*known.common, *RADIO_POINTS)}

    def _checked(self, name: str, point: BlePoint) -> BlePoint:
        """The point with the unit and the description that its decoder knows."""
        if point.characteristic:
            form = None if point.has_layout else FORMATS[uuid_of(point.characteristic)]
            if form is None:
                return point
            part = point.field or (name if name in form.points else form.main)
            return _completed(name, point, form.points[part], form.name)
        field = point.field or name
        if self.decoder == BYTES:
            if point.field and point.field not in RADIO_POINTS:
                raise ValueError(f"`points`: {name}: `field` has no meaning with `decoder: bytes`: use `at` and `type`")
            if point.at is None and field not in RADIO_POINTS:
                raise ValueError(f"`points`: {name} needs `at`, its first byte, counted from 0")
            return point if point.has_layout else _completed(name, point, RADIO_POINTS[field], "the radio")
        if point.has_layout:
            raise ValueError(f"`points`: {name}: `at` and `type` are for `decoder: bytes` and for a `characteristic`")
        known = KNOWN.get(self.decoder)
        kind = (known.kind(field) if known else None) or RADIO_POINTS.get(field)
        if kind is None:
            raise ValueError(_unknown(name, field, self.decoder, {**(known.points if known else {}), **RADIO_POINTS}))
        return _completed(name, point, kind, f"decoder {self.decoder}")

    def _check_connection(self) -> None:
        for name in self.connected:
            every = self.points[name].every or self.every
            if not self.stay and every < _SOONEST:
                raise ValueError(
                    f"`points`: {name}: to connect every {every} is too often: write `every: 5m`, or `stay: true` to "
                    f"stay connected"
                )
        used = [key for key in ("stay", "pair") if getattr(self, key)] + (["passkey"] if self.passkey else [])
        if used and not self.connected:
            raise ValueError(f"`{used[0]}` is for devices that are connected to, and no point has a `characteristic`")
        if self.passkey is not None and not self.pair:
            raise ValueError("`passkey` needs `pair: true`")


def _completed(name: str, point: BlePoint, kind: Kind, source: str) -> BlePoint:
    converted = point.scale != 1 or point.offset != 0 or point.map is not None
    if kind.type in {"text", "boolean"} and (converted or point.range or point.decimals is not None):
        raise ValueError(
            f"`points`: {name} is {kind.type}: `scale`, `offset`, `map`, `range`, `decimals` are for numbers"
        )
    if point.unit and point.unit != kind.unit and not converted and kind.unit:
        raise ValueError(
            f"`points`: {name}: {source} gives it in {kind.unit}, not {point.unit}: leave `unit` out, or convert with "
            f"`scale` and `offset`"
        )
    unit = point.unit or ("" if converted else kind.unit)
    return dataclasses.replace(point, unit=unit, description=point.description or kind.description)


def _unknown(name: str, field: str, decoder: str, kinds: Mapping[str, Kind]) -> str:
    if not decoder:
        return f"`points`: {name} is neither in a `characteristic` nor known without a `decoder`"
    hint = _did_you_mean(field, kinds) or f"it has {', '.join(kinds)}"
    return f"`points`: {name}: decoder {decoder} has no value {field!r}; {hint}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word.lower(), list(known), 1)
    return f"did you mean {near[0]}?" if near else ""
