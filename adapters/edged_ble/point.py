"""What a technician writes about one value of a BLE device, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from edged.adapter import STRICT, PointConfig

from .codecs.advert import uuid_of
from .codecs.gatt import FORMATS
from .codecs.layout import INTEGERS, WIDTHS, Field, FieldType, Order


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

    def __post_init__(self) -> None:
        super().__post_init__()
        # a configuration that went through JSON has text for keys and lists for tuples
        object.__setattr__(self, "enum", {int(key): text for key, text in self.enum.items()})
        object.__setattr__(self, "flags", {int(key): text for key, text in self.flags.items()})
        object.__setattr__(self, "bits", None if self.bits is None else tuple(self.bits))
        object.__setattr__(self, "invalid", tuple(self.invalid))
        if self.characteristic:
            _check_characteristic(self)
        elif self.service or self.notify:
            raise ValueError(f"`{'service' if self.service else 'notify'}` belongs to a `characteristic`")
        elif self.writable:
            raise ValueError("`writable: true` needs a `characteristic`: advertisements cannot be written")
        _check_layout(self)

    @property
    def has_layout(self) -> bool:
        """Whether it says where its bytes are."""
        return self.at is not None or self.type is not None

    @property
    def layout(self) -> Field:
        """Where its bytes are and how they are read."""
        return Field(
            self.at or 0, self.type or "uint8", self.order, self.length, self.bit, self.bits, self.enum, self.flags,
            self.invalid,
        )  # fmt: skip


def _check_characteristic(point: BlePoint) -> None:
    known = FORMATS.get(uuid_of(point.characteristic))
    if point.service:
        uuid_of(point.service)
    if point.has_layout:
        if point.field:
            raise ValueError("`field` is a part of a standard characteristic, and `at` and `type` describe another one")
        return
    if known is None:
        raise ValueError(
            f"`characteristic: {point.characteristic}` has no standard format that edged knows: say with `at` and "
            f"`type` what its bytes mean"
        )
    if point.field and point.field not in known.points:
        raise ValueError(f"`field: {point.field}`: {known.name} has {', '.join(known.points)}")


def _check_layout(point: BlePoint) -> None:
    type_ = point.type or "uint8"
    parts = [key for key in ("bit", "bits", "flags", "enum", "invalid") if getattr(point, key) not in (None, {}, ())]
    if parts and not point.has_layout:
        raise ValueError(f"`{parts[0]}` needs `at` and `type`, which say where the value is")
    if point.length is not None and type_ in WIDTHS:
        raise ValueError(f"`length` is for text and hex, and the type here is {type_}")
    if point.length is not None and not 1 <= point.length <= 255:  # noqa: PLR2004  # the range stated in the message
        raise ValueError("`length` must lie between 1 and 255")
    if parts and type_ not in INTEGERS:
        raise ValueError(f"`{parts[0]}` needs an integer such as uint16, and the type here is {type_}")
    exclusive = [key for key in ("bit", "bits", "flags") if key in parts]
    if ("bit" in parts and len(exclusive) > 1) or (point.flags and point.enum):
        raise ValueError("`bit`, `bits`, `flags` and `enum` contradict each other here: use one")
    bits = 8 * WIDTHS.get(type_, 1)
    if point.bit is not None and not 0 <= point.bit < bits:
        raise ValueError(f"`bit: {point.bit}`: the bits of {type_} go from 0 to {bits - 1}")
    if point.bits is not None and not 0 <= point.bits[0] <= point.bits[1] < bits:
        raise ValueError(f"`bits` needs the lowest and the highest bit, from 0 to {bits - 1}")
    if not point.has_layout:
        return
    kind = point.layout.kind.type
    numeric = [key for key in ("scale", "offset", "map", "range", "deadband", "decimals") if _is_set(point, key)]
    if numeric and kind in {"text", "boolean"} and numeric != ["deadband"]:
        raise ValueError(f"`{numeric[0]}` is for numbers, and this point is {kind}")


def _is_set(point: BlePoint, key: str) -> bool:
    return bool(getattr(point, key) != {"scale": 1.0, "offset": 0.0}.get(key))
