"""Requests and replies as the Modbus Application Protocol Specification V1.1b3 has them, and RTU framing.

Pure. A `Request` knows its bytes and how the one right reply to them looks; any other reply is an error, never a
value. Function codes 1 to 7, 8/0, 15, 16, 22, 23 and 43/14.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edged.adapter import PermanentError, Reason, TransientError

from .planner import ADDRESSES, MAX_BITS, MAX_REGISTERS, Table

T = TypeVar("T")

READ_FUNCTIONS: Mapping[Table, int] = {Table.COIL: 1, Table.DISCRETE: 2, Table.HOLDING: 3, Table.INPUT: 4}
LOOPBACK = 8
"""Function code 8 (6.8), of which only sub-function 0 is used."""
MAX_WRITE_REGISTERS = 123
"""Most registers of one write (6.12)."""
MAX_WRITE_COILS = 1968
"""Most coils of one write (6.11)."""
MAX_READ_WRITE_REGISTERS = 121
"""Most registers that function code 23 writes (6.17)."""

EXCEPTIONS: Mapping[int, str] = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledge",
    6: "server device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}
"""The exception codes by the names of the specification (7)."""
_REASONS = {10: Reason.UNREACHABLE, 11: Reason.TIMEOUT}


class InvalidReplyError(TransientError):
    """What came is not a valid reply to the request. `reason` is `protocol`."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason=Reason.PROTOCOL)


class RefusedError(PermanentError):
    """The device will never grant this request: exception 1 (function), 2 (address) or 3 (value, or too many)."""

    def __init__(self, function: int, code: int) -> None:
        super().__init__(_describe(function, code), reason=Reason.EXCEPTION)
        self.code = code


class DeviceFailureError(TransientError):
    """The device, or a gateway before it, cannot grant the request now: any other exception code."""

    def __init__(self, function: int, code: int) -> None:
        super().__init__(_describe(function, code), reason=_REASONS.get(code, Reason.EXCEPTION))
        self.code = code


def _describe(function: int, code: int) -> str:
    name = EXCEPTIONS.get(code, "not a code of the specification")
    return f"the device answered function {function} with exception {code} ({name})"


def exception_for(function: int, code: int) -> RefusedError | DeviceFailureError:
    """The error for an exception reply. `function` without the error bit."""
    return RefusedError(function, code) if code in {1, 2, 3} else DeviceFailureError(function, code)


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """A request PDU and how to read its reply. Build it with the functions below."""

    pdu: bytes
    reply_size: int | None
    """Bytes of the normal reply PDU; None where only the reply itself tells."""
    check: Callable[[bytes], T]
    """Reads a normal reply PDU that has the right function code and size. Raises InvalidReplyError."""

    @property
    def function(self) -> int:
        """The function code."""
        return self.pdu[0]

    def parse(self, reply: bytes) -> T:
        """What the reply PDU says. Raises InvalidReplyError, RefusedError or DeviceFailureError."""
        if not reply:
            raise InvalidReplyError("the reply is empty")
        if reply[0] == self.function | 0x80:
            if len(reply) != 2:  # noqa: PLR2004  # function and exception code
                raise InvalidReplyError(f"an exception reply has 2 bytes, not {len(reply)}")
            raise exception_for(self.function, reply[1])
        if reply[0] != self.function:
            raise InvalidReplyError(f"the reply is for function {reply[0]}, the request was {self.function}")
        if self.reply_size is not None and len(reply) != self.reply_size:
            raise InvalidReplyError(f"the reply has {len(reply)} bytes instead of {self.reply_size}")
        return self.check(reply)

    def size_of(self, start: bytes) -> int | None:
        """How long the reply PDU that begins so will be; None if more bytes are needed to tell.

        Raises InvalidReplyError if no reply to this request begins so.
        """
        if not start:
            return None
        if start[0] == self.function | 0x80:
            return 2
        if start[0] != self.function:
            raise InvalidReplyError(f"the reply is for function {start[0]}, the request was {self.function}")
        if self.reply_size is None:
            return _identification_size(start)
        if self.function in _COUNTED and len(start) > 1 and start[1] != self.reply_size - 2:
            raise InvalidReplyError(f"the reply announces {start[1]} bytes of data instead of {self.reply_size - 2}")
        return self.reply_size


_COUNTED = frozenset({1, 2, 3, 4, 23})


def read(table: Table, start: int, count: int) -> Request[tuple[int, ...]] | Request[tuple[bool, ...]]:
    """Function codes 1 to 4. Raises ValueError outside the protocol's limits."""
    return read_bits(table, start, count) if table.is_bits else read_registers(table, start, count)


def read_registers(table: Table, start: int, count: int) -> Request[tuple[int, ...]]:
    """Function code 3 or 4 (6.3, 6.4)."""
    _check_range(start, count, MAX_REGISTERS)
    pdu = struct.pack(">BHH", READ_FUNCTIONS[table], start, count)
    return Request(pdu, 2 + 2 * count, _registers)


def read_bits(table: Table, start: int, count: int) -> Request[tuple[bool, ...]]:
    """Function code 1 or 2 (6.1, 6.2)."""
    _check_range(start, count, MAX_BITS)
    pdu = struct.pack(">BHH", READ_FUNCTIONS[table], start, count)

    def check(reply: bytes) -> tuple[bool, ...]:
        _check_count(reply)
        return unpack_bits(reply[2:], count)

    return Request(pdu, 2 + (count + 7) // 8, check)


def write_coil(address: int, value: bool) -> Request[None]:  # noqa: FBT001  # the value written, not a switch
    """Function code 5 (6.5)."""
    _check_range(address, 1, 1)
    return _echoed(struct.pack(">BHH", 5, address, 0xFF00 if value else 0))


def write_register(address: int, value: int) -> Request[None]:
    """Function code 6 (6.6)."""
    _check_range(address, 1, 1)
    return _echoed(b"\x06" + address.to_bytes(2, "big") + _packed([value]))


def write_coils(start: int, values: Sequence[bool]) -> Request[None]:
    """Function code 15 (6.11)."""
    _check_range(start, len(values), MAX_WRITE_COILS)
    data = pack_bits(values)
    pdu = struct.pack(">BHHB", 15, start, len(values), len(data)) + data
    return _echoed(pdu, 5)


def write_registers(start: int, values: Sequence[int]) -> Request[None]:
    """Function code 16 (6.12)."""
    _check_range(start, len(values), MAX_WRITE_REGISTERS)
    data = _packed(values)
    return _echoed(struct.pack(">BHHB", 16, start, len(values), len(data)) + data, 5)


def mask_write(address: int, and_mask: int, or_mask: int) -> Request[None]:
    """Function code 22 (6.16): the register becomes (register AND and_mask) OR (or_mask AND NOT and_mask)."""
    _check_range(address, 1, 1)
    return _echoed(b"\x16" + address.to_bytes(2, "big") + _packed([and_mask, or_mask]))


def read_exception_status() -> Request[int]:
    """Function code 7 (6.7): eight bits that mean something else in each device."""
    return Request(b"\x07", 2, lambda reply: reply[1])


def loopback(data: int) -> Request[None]:
    """Function code 8, return query data (6.8): does nothing, and its reply repeats the request."""
    return _echoed(struct.pack(">BHH", LOOPBACK, 0, data))


def read_write(read_start: int, read_count: int, write_start: int, values: Sequence[int]) -> Request[tuple[int, ...]]:
    """Function code 23 (6.17): writes first, then reads."""
    _check_range(read_start, read_count, MAX_REGISTERS)
    _check_range(write_start, len(values), MAX_READ_WRITE_REGISTERS)
    data = _packed(values)
    pdu = struct.pack(">BHHHHB", 23, read_start, read_count, write_start, len(values), len(data)) + data
    return Request(pdu, 2 + 2 * read_count, _registers)


@dataclass(frozen=True, slots=True)
class Identification:
    """One reply to a request for the device's identification."""

    objects: Mapping[int, bytes]
    """0 vendor name, 1 product code, 2 revision, 3 vendor URL, 4 product name, 5 model name, 6 application name."""
    next_object: int | None
    """Where to go on with a further request; None if this was all."""


def read_identification(level: int = 1, first_object: int = 0) -> Request[Identification]:
    """Function code 43/14 (6.21). `level` 1 basic, 2 regular, 3 extended, 4 one single object."""
    if level not in {1, 2, 3, 4} or not 0 <= first_object <= 0xFF:  # noqa: PLR2004  # a byte
        raise ValueError("the level is 1 to 4 and the object a byte")

    def check(reply: bytes) -> Identification:
        return _identification(reply, level)

    return Request(bytes((43, 14, level, first_object)), None, check)


def pack_bits(values: Sequence[bool]) -> bytes:
    """Eight to a byte, the first in the least significant bit."""
    return sum(1 << i for i, value in enumerate(values) if value).to_bytes((len(values) + 7) // 8, "little")


def unpack_bits(data: bytes, count: int) -> tuple[bool, ...]:
    """The first `count` bits."""
    digits = f"{int.from_bytes(data, 'little'):0{8 * len(data)}b}"[::-1]
    return tuple(map("1".__eq__, digits[:count]))


def _check_range(start: int, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise ValueError(f"one request takes 1 to {most} items, not {count}")
    if start < 0 or start + count > ADDRESSES:
        raise ValueError(f"addresses go from 0 to {ADDRESSES - 1}, not {start} to {start + count - 1}")


def _packed(values: Sequence[int]) -> bytes:
    try:
        return struct.pack(f">{len(values)}H", *values)
    except struct.error:
        raise ValueError("a register takes a number from 0 to 65535") from None


def _echoed(pdu: bytes, size: int | None = None) -> Request[None]:
    """A write, whose reply repeats its first bytes."""
    expected = pdu[:size]

    def check(reply: bytes) -> None:
        if reply != expected:
            raise InvalidReplyError(f"the device confirmed {reply.hex(' ')} and the request was {expected.hex(' ')}")

    return Request(pdu, len(expected), check)


def _check_count(reply: bytes) -> None:
    if reply[1] != len(reply) - 2:
        raise InvalidReplyError(f"the reply announces {reply[1]} bytes of data and has {len(reply) - 2}")


def _registers(reply: bytes) -> tuple[int, ...]:
    _check_count(reply)
    return struct.unpack_from(f">{reply[1] // 2}H", reply, 2)


_IDENTIFICATION_HEAD = 7


def _identification_size(reply: bytes) -> int | None:
    if len(reply) > 1 and reply[1] != 14:  # noqa: PLR2004  # the MEI type of 43/14
        raise InvalidReplyError(f"the reply is for interface {reply[1]}, the request was 14")
    if len(reply) < _IDENTIFICATION_HEAD:
        return None
    size = _IDENTIFICATION_HEAD
    for _ in range(reply[6]):
        if len(reply) < size + 2:
            return None
        size += 2 + reply[size + 1]
    return size


def _identification(reply: bytes, level: int) -> Identification:
    if _identification_size(reply) != len(reply):
        raise InvalidReplyError("the identification is cut off or too long")
    if reply[2] != level:
        raise InvalidReplyError(f"the identification is for level {reply[2]}, the request was {level}")
    objects: dict[int, bytes] = {}
    at = _IDENTIFICATION_HEAD
    while at < len(reply):
        objects[reply[at]] = reply[at + 2 : at + 2 + reply[at + 1]]
        at += 2 + reply[at + 1]
    return Identification(objects, reply[5] if reply[4] == 0xFF else None)  # noqa: PLR2004  # says that more follows
