"""RTU frames: unit, PDU, CRC-16 (Modbus over Serial Line V1.02, 2.5.1 and 6.2.2).

Pure. The parser finds the one right reply in whatever a line delivers: noise before it, pieces, foreign frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .pdu import InvalidReplyError

if TYPE_CHECKING:
    from .pdu import Request

MAX_FRAME = 256
"""Bytes of the longest RTU frame."""
_KEEP = 4 * MAX_FRAME


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC = _table()


def crc16(data: bytes) -> int:
    """The checksum of an RTU frame."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc


def rtu_frame(unit: int, pdu: bytes) -> bytes:
    """The frame that carries a PDU to or from a unit."""
    body = bytes((unit,)) + pdu
    return body + crc16(body).to_bytes(2, "little")


class RtuReplyParser:
    """Collects what comes after a request until the reply to it is complete.

    A frame counts only if its unit, function, announced length and CRC are right. Bytes before it (noise, an echo of
    the request, an answer to somebody else) are skipped. Use a new parser for each request.
    """

    def __init__(self, unit: int, request: Request[Any]) -> None:
        self._unit = unit
        self._request = request
        self._data = bytearray()
        self.received = 0
        """How many bytes came, to tell silence from garbage."""
        self.skipped = 0
        """How many bytes before the reply were not part of it."""

    def feed(self, data: bytes) -> bytes | None:
        """The PDU of the reply once it is complete; None while it is not. It may still be an exception."""
        self.received += len(data)
        self._data += data
        start = self._data.find(self._unit)
        while start >= 0:
            pdu = self._frame_at(start)
            if pdu is not None:
                self.skipped += start
                del self._data[: start + len(pdu) + 3]
                return pdu
            start = self._data.find(self._unit, start + 1)
        if (excess := len(self._data) - _KEEP) > 0:
            self.skipped += excess
            del self._data[:excess]
        return None

    @property
    def rest(self) -> bytes:
        """What came after the reply, which nobody asked for."""
        return bytes(self._data)

    def complaint(self) -> str:
        """What to say when the time is up and there is no reply."""
        if not self.received:
            return "no answer"
        return f"{self.received} bytes came that are no reply to the request: {bytes(self._data[:16]).hex(' ')}"

    def _frame_at(self, start: int) -> bytes | None:
        body = bytes(self._data[start + 1 : start + MAX_FRAME])
        try:
            size = self._request.size_of(body)
        except InvalidReplyError:
            return None
        if size is None or len(body) < size + 2:
            return None
        crc = int.from_bytes(body[size : size + 2], "little")
        return body[:size] if crc == crc16(bytes((self._unit,)) + body[:size]) else None
