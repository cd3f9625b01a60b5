"""Values at fixed places of some bytes, as a technician describes them: the byte map."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from edged.adapter import Quality, Value

from .advert import ABSENT, Advertisement, Decoded, Kind, Stateless, refused
from .gatt import ieee_float, sfloat

FieldType = Literal[
    "uint8", "int8", "uint16", "int16", "uint24", "int24", "uint32", "int32", "uint40", "uint48", "uint64", "int64",
    "sfloat", "float", "float32", "float64", "bcd8", "bcd16", "text", "hex",
]  # fmt: skip
Order = Literal["little", "big"]
WIDTHS: Mapping[str, int] = {
    "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint24": 3, "int24": 3, "uint32": 4, "int32": 4, "uint40": 5,
    "uint48": 6, "uint64": 8, "int64": 8, "sfloat": 2, "float": 4, "float32": 4, "float64": 8, "bcd8": 1, "bcd16": 2,
}  # fmt: skip
"""How many bytes the value of a type has; `text` and `hex` have as many as `length` says."""
INTEGERS = frozenset(name for name in WIDTHS if name.startswith(("uint", "int")))
_NO_WORDS: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Field:
    """Where a value lies and how it is read."""

    at: int
    """Its first byte, counted from 0, negative from the end."""
    type: FieldType = "uint8"
    order: Order = "little"
    length: int | None = None
    """Bytes of `text` and `hex`; None for all that follow."""
    bit: int | None = None
    bits: tuple[int, int] | None = None
    enum: Mapping[int, str] = field(default_factory=lambda: _NO_WORDS)
    flags: Mapping[int, str] = field(default_factory=lambda: _NO_WORDS)
    invalid: tuple[int, ...] = ()

    @property
    def kind(self) -> Kind:
        """What its values are, without unit."""
        if self.bit is not None:
            return Kind("boolean")
        if self.enum or self.flags or self.type in {"text", "hex"}:
            return Kind("text")
        return Kind("number" if "float" in self.type else "integer")

    def read(self, data: bytes) -> Value | Quality:
        """The value; `bad(...)` where the sensor says that there is none, or where the bytes are no such value.

        None if the bytes do not reach so far.
        """
        part = self._part(data)
        if part is None:
            return None
        if self.type == "hex":
            return part.hex()
        if self.type == "text":
            return _text(part)
        value = self._number(part)
        if value is None:
            return ABSENT
        return self._meaning(value) if isinstance(value, int) else value

    def _part(self, data: bytes) -> bytes | None:
        start = self.at if self.at >= 0 else len(data) + self.at
        width = WIDTHS.get(self.type, self.length)
        end = len(data) if width is None else start + width
        if start < 0 or end > len(data) or start > len(data):
            return None
        return data[start:end]

    def _number(self, part: bytes) -> int | float | None:
        if self.type in INTEGERS:
            return int.from_bytes(part, self.order, signed=self.type[0] == "i")
        match self.type:
            case "sfloat":
                return sfloat(int.from_bytes(part, self.order))
            case "float":
                return ieee_float(int.from_bytes(part, self.order))
            case "float32" | "float64":
                form = ("<" if self.order == "little" else ">") + ("f" if self.type == "float32" else "d")
                (value,) = struct.unpack(form, part)
                return value if math.isfinite(value) else None
        digits = (part if self.order == "big" else part[::-1]).hex()
        return int(digits) if digits.isdecimal() else None

    def _meaning(self, value: int) -> Value | Quality:
        if value in self.invalid:
            return ABSENT
        if self.bit is not None:
            return bool(value >> self.bit & 1)
        if self.bits is not None:
            low, high = self.bits
            value = value >> low & (1 << high - low + 1) - 1
        if self.flags:
            return ",".join(word for bit, word in sorted(self.flags.items()) if value >> bit & 1)
        return self.enum.get(value, ABSENT) if self.enum else value


def _text(part: bytes) -> Value | Quality:
    try:
        return part.partition(b"\0")[0].decode("utf-8").strip()
    except UnicodeDecodeError:
        return ABSENT


@dataclass(frozen=True, slots=True)
class Pattern:
    """Bytes that must be as given where the mask has ones."""

    at: int
    value: bytes
    mask: bytes

    @classmethod
    def parse(cls, at: int, text: str) -> Pattern:
        """Of hexadecimal digits, a dot standing for any. Raises ValueError."""
        digits = "".join(text.split()).lower()
        if len(digits) % 2 or not digits or set(digits) - set("0123456789abcdef."):
            raise ValueError(f"{text!r} are no bytes: write two hexadecimal digits for each, or dots for any")
        value = bytes.fromhex(digits.replace(".", "0"))
        return cls(at, value, bytes.fromhex("".join("0" if digit == "." else "f" for digit in digits)))

    def fits(self, data: bytes) -> bool:
        """Whether the bytes are as they must be."""
        start = self.at if self.at >= 0 else len(data) + self.at
        part = data[start : start + len(self.value)] if start >= 0 else b""
        if len(part) != len(self.value):
            return False
        return all(a & mask == b for a, b, mask in zip(part, self.value, self.mask, strict=True))


class ByteMapDecoder(Stateless):
    """Satisfies `Decoder`: the values of one kind of advertisement at fixed places."""

    def __init__(
        self,
        fields: Mapping[str, Field],
        *,
        company: int | None = None,
        service: str | None = None,
        lengths: range | None = None,
        patterns: Iterable[Pattern] = (),
        packet: Field | None = None,
    ) -> None:
        """`company` or `service` (as `uuid_of` writes it) say which data; None in `lengths` is any length."""
        self._fields = tuple(fields.items())
        self.points: Mapping[str, Kind] = {name: one.kind for name, one in fields.items()}
        self._company = company
        self._service = service
        self._lengths = lengths
        self._patterns = tuple(patterns)
        self._packet = packet

    def decode(self, adv: Advertisement) -> Decoded | None:
        """The values, raw: their scale is the pipeline's."""
        if self._company is not None:
            data = adv.manufacturer_data.get(self._company)
        else:
            data = adv.service_data.get(self._service or "")
        if data is None or (self._lengths is not None and len(data) not in self._lengths):
            return None
        for pattern in self._patterns:
            if not pattern.fits(data):
                return None
        values: dict[str, Value] = {}
        quality: dict[str, Quality] = {}
        for name, one in self._fields:
            value = one.read(data)
            if value is None:
                return refused(f"{len(data)} bytes are too few for {name}")
            if isinstance(value, Quality):
                values[name], quality[name] = None, value
            else:
                values[name] = value
        packet = None if self._packet is None else self._packet.read(data)
        return Decoded(values, quality, packet if isinstance(packet, int) else None)
