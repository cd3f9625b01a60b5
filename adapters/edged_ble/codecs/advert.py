"""What was heard, and what it says: the values between the radio and the decoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from edged.adapter import Quality, Reason, Value, bad

ValueType = Literal["number", "integer", "boolean", "text"]
_BASE = "-0000-1000-8000-00805f9b34fb"
_NOTHING: Mapping[str, Quality] = MappingProxyType({})
ABSENT = bad(Reason.DECODE)
"""The quality of a value that the sensor itself says it does not have."""


def uuid_of(text: str | int) -> str:
    """A UUID in full and in lower case, as BlueZ writes it: `FCD2` is 0000fcd2-0000-1000-8000-00805f9b34fb.

    Takes numbers and 16, 32 or 128 bits of hexadecimal digits. Raises ValueError.
    """
    digits = f"{text:04x}" if isinstance(text, int) else text.strip().lower().removeprefix("0x").replace("-", "")
    if len(digits) not in {4, 8, 32} or set(digits) - set("0123456789abcdef"):
        raise ValueError(f"{text!r} is not a UUID: write 4 hexadecimal digits such as 181A, or all 32 of them")
    if len(digits) < 32:  # noqa: PLR2004  # the short forms of a UUID
        return digits.zfill(8) + _BASE
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One advertisement as it was heard."""

    address: str
    """The sender's address, upper case with colons."""
    name: str | None = None
    rssi: int = -127
    """How strong it was, dBm; -127 where unknown."""
    manufacturer_data: Mapping[int, bytes] = field(default_factory=dict)
    """By company number, without it."""
    service_data: Mapping[str, bytes] = field(default_factory=dict)
    """By UUID as `uuid_of` writes it."""
    service_uuids: tuple[str, ...] = ()
    """As `uuid_of` writes them."""
    tx_power: int | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """What a decoder knows of one of its values."""

    type: ValueType = "number"
    unit: str = ""
    description: str = ""
    event: bool = False
    """It tells that something happened, such as a button's press. Each is reported once and none is ever stale."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one advertisement says. Without values and without problem: nothing new."""

    values: Mapping[str, Value]
    """By the decoder's name of the value; None where the sensor itself says that it has none."""
    quality: Mapping[str, Quality] = field(default_factory=lambda: _NOTHING)
    """Of the values that are not good."""
    packet_id: int | None = None
    """The sender's number of this measurement. An advertisement with the number of the one before repeats it, and one
    without number does if its values are the same."""
    problem: str = ""
    """Why there are no values although the advertisement is of this decoder, in words for people."""


class Decoder(Protocol):
    """Makes values of one sensor's advertisements.

    Has no state but the counters that refuse what was recorded and played again, so each sensor needs its own.
    """

    points: Mapping[str, Kind]
    """All values it can yield."""
    complete: bool
    """Whether every sensor of this format has all of `points`; else a sensor has some of them."""

    def decode(self, adv: Advertisement) -> Decoded | None:
        """What it says; None if it is of another format. Raises nothing, whatever the bytes are."""
        ...

    def reset(self) -> None:
        """Forget the counters: the sensor has been silent for so long that it may have been restarted."""
        ...


class Stateless:
    """Of decoders that remember nothing."""

    complete = True

    def reset(self) -> None:
        """There is nothing to forget."""


def decoded(values: Mapping[str, Value], packet_id: int | None = None) -> Decoded:
    """`values`, those that are None being bad."""
    absent = {name: ABSENT for name, value in values.items() if value is None}
    return Decoded(values, absent or _NOTHING, packet_id)


def refused(why: str) -> Decoded:
    """No values, and the reason."""
    return Decoded({}, problem=why)


def address_of(octets: bytes) -> str:
    """Six bytes, most significant first, as an address is written."""
    return octets.hex(":").upper()
