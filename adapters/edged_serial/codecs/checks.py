"""Checksums of serial protocols: how they are computed, and where and how a frame carries them.

The CRCs are described by Ross Williams' five parameters ("A painless guide to CRC error detection algorithms"); names
and check values are those of Greg Cook's catalogue of parametrised CRC algorithms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, reduce
from operator import xor
from typing import Literal

CheckName = Literal[
    "none", "lrc", "xor", "sum8", "sum8-negated", "sum16",
    "crc8", "crc8-maxim", "crc16-modbus", "crc16-arc", "crc16-ccitt-false", "crc16-x25", "crc16-kermit",
    "crc16-xmodem", "crc32", "crc",
]  # fmt: skip
Notation = Literal["binary", "hex", "hex-lower", "decimal"]
ByteOrder = Literal["big", "little"]


@dataclass(frozen=True, slots=True)
class Crc:
    """The parameters of a CRC of 8 to 64 bits, a multiple of 8."""

    width: int
    poly: int
    init: int = 0
    reflect: bool = False
    """Whether bytes and result are taken least significant bit first."""
    xorout: int = 0

    def __call__(self, data: bytes) -> int:
        """The CRC of `data`."""
        table, mask = _table(self.width, self.poly, self.reflect), (1 << self.width) - 1
        if self.reflect:
            register = int(f"{self.init:0{self.width}b}"[::-1], 2)
            for byte in data:
                register = (register >> 8) ^ table[(register ^ byte) & 0xFF]
        else:
            register, top = self.init, self.width - 8
            for byte in data:
                register = ((register << 8) & mask) ^ table[(register >> top) ^ byte]
        return register ^ self.xorout


@cache
def _table(width: int, poly: int, reflect: bool) -> tuple[int, ...]:  # noqa: FBT001  # a cached function's key
    mask, top = (1 << width) - 1, 1 << (width - 1)
    if reflect:
        mirrored = int(f"{poly:0{width}b}"[::-1], 2)
        return tuple(
            reduce(lambda r, _: (r >> 1) ^ mirrored if r & 1 else r >> 1, range(8), byte) for byte in range(256)
        )
    return tuple(
        reduce(lambda r, _: ((r << 1) ^ poly if r & top else r << 1) & mask, range(8), byte << (width - 8))
        for byte in range(256)
    )


CRCS: dict[str, Crc] = {
    "crc8": Crc(8, 0x07),
    "crc8-maxim": Crc(8, 0x31, reflect=True),
    "crc16-modbus": Crc(16, 0x8005, 0xFFFF, reflect=True),
    "crc16-arc": Crc(16, 0x8005, reflect=True),
    "crc16-ccitt-false": Crc(16, 0x1021, 0xFFFF),
    "crc16-x25": Crc(16, 0x1021, 0xFFFF, reflect=True, xorout=0xFFFF),
    "crc16-kermit": Crc(16, 0x1021, reflect=True),
    "crc16-xmodem": Crc(16, 0x1021),
    "crc32": Crc(32, 0x04C11DB7, 0xFFFFFFFF, reflect=True, xorout=0xFFFFFFFF),
}
_SUMS: dict[str, tuple[int, Callable[[bytes], int]]] = {
    "lrc": (8, lambda data: -sum(data) & 0xFF),
    "xor": (8, lambda data: reduce(xor, data, 0)),
    "sum8": (8, lambda data: sum(data) & 0xFF),
    "sum8-negated": (8, lambda data: ~sum(data) & 0xFF),
    "sum16": (16, lambda data: sum(data) & 0xFFFF),
}


def algorithm(name: str, crc: Crc | None = None) -> tuple[int, Callable[[bytes], int]]:
    """(bits, function) of a check by name; `crc` is what the name `crc` means."""
    if name in _SUMS:
        return _SUMS[name]
    chosen = CRCS.get(name, crc)
    if chosen is None:
        raise ValueError(f"there is no check {name!r}")
    return chosen.width, chosen


@dataclass(frozen=True, slots=True)
class Check:
    """A checksum and its place in a frame. `first` and `last` are the slice of the frame that it covers."""

    name: str
    crc: Crc | None = None
    first: int = 0
    last: int | None = None
    """Where the covered bytes end; None: where the checksum begins."""
    at: int | None = None
    """Where the checksum lies, negative from the end; None: at the very end."""
    notation: Notation = "binary"
    order: ByteOrder = "big"

    @property
    def size(self) -> int:
        """How many bytes of the frame it takes."""
        bits = algorithm(self.name, self.crc)[0]
        return {"binary": bits // 8, "decimal": len(str((1 << bits) - 1))}.get(self.notation, bits // 4)

    def encode(self, covered: bytes) -> bytes:
        """The checksum of `covered`, as the frame carries it."""
        bits, function = algorithm(self.name, self.crc)
        value = function(covered)
        match self.notation:
            case "binary":
                return value.to_bytes(bits // 8, self.order)
            case "decimal":
                return b"%0*d" % (self.size, value)
        value = int.from_bytes(value.to_bytes(bits // 8, self.order))
        text = b"%0*X" % (bits // 4, value)
        return text.lower() if self.notation == "hex-lower" else text

    def covered(self, frame: bytes) -> bytes:
        """What of a frame, its checksum included, the checksum is about. Empty where the frame is too short."""
        start = self._start(frame)
        if start < self.first or start + self.size > len(frame):
            return b""
        return frame[self.first : start if self.last is None else self.last]

    def valid(self, frame: bytes) -> bool:
        """Whether the frame carries the checksum of its content. Hexadecimal digits may have either case."""
        start = self._start(frame)
        if start < self.first or start + self.size > len(frame):
            return False
        found = frame[start : start + self.size]
        if self.notation in {"hex", "hex-lower"}:
            found = found.upper() if self.notation == "hex" else found.lower()
        return found == self.encode(self.covered(frame))

    def _start(self, frame: bytes) -> int:
        at = -self.size if self.at is None else self.at
        return at if at >= 0 else len(frame) + at
