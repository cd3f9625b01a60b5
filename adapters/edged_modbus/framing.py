"""The two ways to put a PDU on a serial line: RTU and ASCII. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from .ascii import AsciiReplyParser, ascii_frame
from .frame import RtuReplyParser, rtu_frame
from .pdu import Request
from .traffic import Heard, ascii_frames, rtu_frames


class Parser(Protocol):
    """Finds the one right reply in what comes."""

    received: int
    skipped: int

    @property
    def rest(self) -> bytes:
        """What came after the reply."""
        ...

    def feed(self, data: bytes) -> bytes | None:
        """The reply's PDU once it is complete."""
        ...

    def complaint(self) -> str:
        """What to say when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Framing:
    """One of the two ways to put a PDU on a line."""

    frame: Callable[[int, bytes], bytes]
    parser: Callable[[int, Request[Any]], Parser]
    frames: Callable[[bytes], Iterator[Heard]]
    length: Callable[[int], int]
    """Characters of a frame whose PDU has so many bytes."""


RTU = Framing(rtu_frame, RtuReplyParser, rtu_frames, lambda size: size + 3)
ASCII = Framing(ascii_frame, AsciiReplyParser, ascii_frames, lambda size: 2 * size + 7)
