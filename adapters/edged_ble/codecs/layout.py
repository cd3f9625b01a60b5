"""Values at fixed places of some bytes, as a technician describes them: the byte map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edged.adapter import Quality, Value

FieldType = Literal[
    "uint8", "int8", "uint16", "int16", "uint24", "int24", "uint32", "int32", "uint40", "uint48", "uint64", "int64",
    "sfloat", "float", "float32", "float64", "bcd8", "bcd16", "text", "hex",
]  # fmt: skip
Order = Literal["little", "big"]


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
    enum: Mapping[int, str] = field(default_factory=dict)
    flags: Mapping[int, str] = field(default_factory=dict)
    invalid: tuple[int, ...] = ()

    def read(self, data: bytes) -> Value | Quality | None:
        """The value; `bad(...)` where the sensor says that there is none; None if the bytes do not reach so far."""
        raise NotImplementedError
