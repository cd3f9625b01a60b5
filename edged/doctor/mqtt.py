"""A CONNECT and its answer, so that the doctor can try a login without taking the gateway's session. Pure.

MQTT 5 (3.1, 3.2) and 3.1.1. The client id is one of its own, the session ends with the connection.
"""

from __future__ import annotations

import struct

_CLEAN, _PASSWORD, _USERNAME = 0x02, 0x40, 0x80
_FIVE = 5
_OLD_CODES = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
"""The return codes of 3.1.1 as those of MQTT 5."""
DISCONNECT = b"\xe0\x00"


def connect_packet(client_id: str, username: str | None, password: str | None, *, version: int = 5) -> bytes:
    """The first packet. `version`: 5, or 4 for 3.1.1."""
    flags = _CLEAN | (_USERNAME if username is not None else 0) | (_PASSWORD if password is not None else 0)
    body = _text("MQTT") + struct.pack(">BBH", version, flags, 30) + (b"\0" if version == _FIVE else b"")
    body += _text(client_id)
    for text in (username, password):
        body += _text(text) if text is not None else b""
    return b"\x10" + _length(len(body)) + body


def connack_code(packet: bytes) -> int | None:
    """The reason code of MQTT 5 in a CONNACK; None if these bytes are none."""
    if len(packet) < 4 or packet[0] != 0x20:  # noqa: PLR2004  # the type of a CONNACK
        return None
    at = 1
    while at < len(packet) and packet[at] & 0x80:
        at += 1
    if len(packet) < at + 3:
        return None
    code = packet[at + 2]
    return _OLD_CODES.get(code, code)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _length(number: int) -> bytes:
    digits = bytearray()
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(digits)
