"""The wire format of Protocol Buffers: as much as a few fixed messages need, without a library. Pure.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, I64, LEN, I32 = 0, 1, 2, 5
"""The wire types in use; the groups (3 and 4) are long deprecated."""
_MOST_BYTES = 10


def varint(number: int) -> bytes:
    """A number of up to 64 bits; a negative one in two's complement, as int64 is written."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A field of an integer, enum or bool type."""
    return varint(field << 3 | VARINT) + varint(value)


def data(field: int, content: bytes) -> bytes:
    """A field of bytes, text in UTF-8, or an embedded message."""
    return varint(field << 3 | LEN) + varint(len(content)) + content


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of each field: an int, or the bytes of anything else. Raises ValueError if it is torn."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == LEN:
            size, at = _varint(message, at)
        elif kind in {I64, I32}:
            size = 8 if kind == I64 else 4
        else:
            raise ValueError(f"a field of wire type {kind}, which is unknown")
        if at + size > len(message):
            raise ValueError("the message is torn")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(_MOST_BYTES):
        if at + i >= len(message):
            raise ValueError("the message is torn")
        byte = message[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:  # noqa: PLR2004  # the top bit says that more follow
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + i + 1
    raise ValueError("a number of more than 64 bits")
