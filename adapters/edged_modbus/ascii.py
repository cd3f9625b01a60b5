"""ASCII frames: a colon, unit, PDU and LRC as hexadecimal digits, CR LF (Modbus over Serial Line V1.02, 2.5.2).

Pure.
"""

from __future__ import annotations

import binascii
from typing import Any

from .frame import MAX_FRAME
from .pdu import InvalidReplyError, Request

_LONGEST = 2 * MAX_FRAME + 3
_KEEP = 4 * _LONGEST


def lrc(data: bytes) -> int:
    """The checksum of an ASCII frame (6.2.1)."""
    return -sum(data) & 0xFF


def ascii_frame(unit: int, pdu: bytes) -> bytes:
    """The frame that carries a PDU to or from a unit."""
    body = bytes((unit,)) + pdu
    return b":" + (body + bytes((lrc(body),))).hex().upper().encode() + b"\r\n"


def ascii_body(frame: bytes) -> bytes | None:
    """Unit and PDU of what stands between the colon and CR LF; None if it is no frame."""
    try:
        body = binascii.unhexlify(frame)
    except ValueError:
        return None
    return body[:-1] if len(body) > 2 and not sum(body) & 0xFF else None  # noqa: PLR2004  # unit, function, LRC


class AsciiReplyParser:
    """The same for ASCII frames as `RtuReplyParser` for RTU's."""

    def __init__(self, unit: int, request: Request[Any]) -> None:
        self._unit = unit
        self._request = request
        self._data = b""
        self.received = 0
        self.skipped = 0

    def feed(self, data: bytes) -> bytes | None:
        """The PDU of the reply once it is complete; None while it is not. It may still be an exception."""
        self.received += len(data)
        self._data += data
        while (end := self._data.find(b"\n")) >= 0:
            start = self._data.rfind(b":", 0, end)
            pdu = self._pdu(self._data[start + 1 : end].rstrip(b"\r")) if start >= 0 else None
            self.skipped += start if pdu is not None else end + 1
            self._data = self._data[end + 1 :]
            if pdu is not None:
                return pdu
        if (excess := len(self._data) - _KEEP) > 0:
            self.skipped += excess
            self._data = self._data[excess:]
        return None

    @property
    def rest(self) -> bytes:
        """What came after the reply, which nobody asked for."""
        return self._data

    def complaint(self) -> str:
        """What to say when the time is up and there is no reply."""
        if not self.received:
            return "no answer"
        return f"{self.received} bytes came that are no reply to the request: {self._data[:32]!r}"

    def _pdu(self, digits: bytes) -> bytes | None:
        body = ascii_body(digits)
        if body is None or body[0] != self._unit:
            return None
        try:
            size = self._request.size_of(body[1:])
        except InvalidReplyError:
            return None
        return body[1:] if size == len(body) - 1 else None
