"""What to make of bytes that are no reply to a request of ours.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .ascii import ascii_body
from .frame import MAX_FRAME, crc16

_MOST = 512
"""Most bytes that are looked at."""
_READS = frozenset({1, 2, 3, 4, 23})
_SHORTEST = 5


class Heard(NamedTuple):
    """A frame with a right checksum."""

    unit: int
    pdu: bytes
    asks: bool
    """Its shape is that of a request; a reply to a single write looks the same."""


def rtu_frames(data: bytes) -> Iterator[Heard]:
    """The RTU frames in some bytes, wherever they begin."""
    data = data[-_MOST:]
    at = 0
    while at + _SHORTEST <= len(data):
        for size in _sizes(data, at):
            frame = data[at : at + size]
            if len(frame) == size and not crc16(frame):
                yield Heard(frame[0], frame[1:-2], asks=_asks(frame[1:-2]))
                at += size
                break
        else:
            at += 1


def ascii_frames(data: bytes) -> Iterator[Heard]:
    """The ASCII frames in some bytes."""
    for line in data.split(b"\n"):
        body = ascii_body(line.rstrip(b"\r").rpartition(b":")[2])
        if body is not None:
            yield Heard(body[0], body[1:], asks=_asks(body[1:]))


def _sizes(data: bytes, at: int) -> set[int]:
    """How long a frame that begins here may be, as a request and as a reply."""
    function = data[at + 1]
    if function & 0x80:
        return {5}
    if function not in {*range(1, 9), 11, 12, 15, 16, 17, 20, 21, 22, 23, 24, 43}:
        return set()
    if function == 7:  # noqa: PLR2004  # read exception status
        return {5}
    sizes = {8, 5 + data[at + 2]}
    if function in {15, 16} and at + 6 < len(data):
        sizes.add(9 + data[at + 6])
    if function == 23 and at + 10 < len(data):  # noqa: PLR2004  # read and write, with the count where it has it
        sizes.add(13 + data[at + 10])
    return {size for size in sizes if size <= MAX_FRAME}


def _asks(pdu: bytes) -> bool:
    if pdu[0] & 0x80:
        return False
    if pdu[0] in _READS:
        return len(pdu) != 2 + pdu[1]
    return len(pdu) != 5 or pdu[0] not in {15, 16}  # noqa: PLR2004  # the reply to a multiple write
