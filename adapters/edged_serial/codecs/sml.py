"""SML (Smart Message Language), as German electricity meters send it through their optical interface.

Source: BSI TR-03109-1, annex IV, part b (SML 1.04: transport version 1 in §8, binary encoding in §6.3, SML_GetList.Res
in §5.1.7), and the DLMS UA blue book for units (table of `unit` of scaler_unit) and OBIS codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .checks import CRCS
from .decode import Fields
from .framing import MAX_FRAME
from .values import Measured, Raw

ESCAPE = b"\x1b\x1b\x1b\x1b"
BEGIN = ESCAPE + b"\x01\x01\x01\x01"
_GET_LIST_RESPONSE = 0x0701
_DEPTH = 16
_ABSENT = b""
UNITS = {
    7: "s", 8: "°", 9: "°C", 13: "m³", 14: "m³", 15: "m³/h", 27: "W", 28: "VA", 29: "var", 30: "Wh", 31: "VAh",
    32: "varh", 33: "A", 34: "C", 35: "V", 44: "Hz",
}  # fmt: skip
"""Unit codes of the DLMS UA that meters use."""


class SmlFramer:
    """Transmissions of version 1. Only those with a correct checksum are frames; escapes are taken out of them."""

    def __init__(self, limit: int = 4096) -> None:
        self.skipped = 0
        self.rejected = 0
        self._limit = min(max(limit, 64), MAX_FRAME)
        self._buffer = bytearray()

    @property
    def partial(self) -> bytes:
        """See `Framer`."""
        return bytes(self._buffer)

    def gap(self) -> list[bytes]:
        """See `Framer`."""
        return []

    def reset(self) -> None:
        """See `Framer`."""
        self._buffer.clear()

    def feed(self, data: bytes) -> list[bytes]:
        """See `Framer`."""
        self._buffer += data
        frames: list[bytes] = []
        while self._step(frames):
            pass
        return frames

    def _drop(self, count: int) -> bool:
        self.skipped += count
        del self._buffer[:count]
        return True

    def _step(self, frames: list[bytes]) -> bool:
        at = self._buffer.find(BEGIN)
        if at < 0:
            keep = next((n for n in range(len(BEGIN) - 1, 0, -1) if self._buffer.endswith(BEGIN[:n])), 0)
            self._drop(len(self._buffer) - keep)
            return False
        self._drop(at)
        content = bytearray()
        place = len(BEGIN)
        while place + 8 <= len(self._buffer):
            word = bytes(self._buffer[place : place + 4])
            if word != ESCAPE:
                content += word
                place += 4
            else:
                after = bytes(self._buffer[place + 4 : place + 8])
                if after == ESCAPE:
                    content += ESCAPE
                    place += 8
                    continue
                if after[0] == 0x1A and after[1] <= 3:  # noqa: PLR2004  # at most three fill bytes
                    return self._end(place + 8, content, after[1], frames)
                return self._drop(place if after == BEGIN[4:] else 4)
            if place > self._limit:
                return self._drop(4)
        return False

    def _end(self, end: int, content: bytearray, fill: int, frames: list[bytes]) -> bool:
        raw = bytes(self._buffer[:end])
        # Some meters compute the CRC of DIN EN 62056-46 with other start values (Kermit's).
        valid = any(
            CRCS[name](raw[:-2]) == int.from_bytes(raw[-2:], "little") for name in ("crc16-x25", "crc16-kermit")
        )
        if not valid or fill > len(content):
            self.rejected += 1
            return self._drop(4)
        frames.append(bytes(content[: len(content) - fill]))
        del self._buffer[:end]
        return True


class _MalformedError(ValueError):
    """The bytes are no SML."""


Node = bytes | int | bool | list["Node"]


def parse(data: bytes) -> list[Node]:
    """All elements of an SML file. Raises ValueError."""
    nodes: list[Node] = []
    at = 0
    while at < len(data):
        if data[at] == 0:  # fill byte, or the end of a message outside its list
            at += 1
            continue
        node, at = _element(data, at, 0)
        nodes.append(node)
    return nodes


def _element(data: bytes, at: int, depth: int) -> tuple[Node, int]:
    if depth > _DEPTH:
        raise _MalformedError("too deep")
    first, begin = _byte(data, at), at
    kind, length = (first >> 4) & 7, first & 0x0F
    while _byte(data, at) & 0x80:
        at += 1
        if at - begin > 3:  # noqa: PLR2004  # 64 KiB
            raise _MalformedError("too long")
        length = length << 4 | _byte(data, at) & 0x0F
    at += 1
    if kind == 7:  # noqa: PLR2004  # a list
        items: list[Node] = []
        for _ in range(length):
            if _byte(data, at) == 0:  # end of message stands for itself
                items.append(_ABSENT)
                at += 1
                continue
            item, at = _element(data, at, depth + 1)
            items.append(item)
        return items, at
    end = begin + length
    if end < at or end > len(data):
        raise _MalformedError("too short")
    body = data[at:end]
    match kind:
        case 0:
            return body, end
        case 4 if len(body) == 1:
            return body != b"\0", end
        case 5 | 6 if 1 <= len(body) <= 8:  # noqa: PLR2004  # bytes of a 64-bit integer
            return int.from_bytes(body, "big", signed=kind == 5), end  # noqa: PLR2004  # a signed integer
    raise _MalformedError("unknown type")


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise _MalformedError("too short")
    return data[at]


class SmlDecoder:
    """Fields are OBIS codes, e.g. `1-0:1.8.0` (with `*F` where the last part is not 255), and `id`, the meter's."""

    def fields(self) -> frozenset[str] | None:
        return None

    def decode(self, frame: bytes) -> Fields | None:
        """The values of all lists in an SML file; None if it is none, or has no list."""
        fields: Fields = {}
        try:
            for message in parse(frame):
                _take(message, fields)
        except (_MalformedError, OverflowError):
            return None
        return fields or None

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:
        """An SML file with these values, in a resolution of 0.0001."""
        entries = []
        codes = {unit: code for code, unit in reversed(UNITS.items())}
        for name, raw in fields.items():
            value, unit = raw if isinstance(raw, Measured) else (raw, "")
            obis = _parse_obis(name)
            if obis is not None and isinstance(value, int | float):
                entries.append((obis, codes.get(unit), -4, round(value * 10_000)))
        return file_of(entries)


def _take(message: Node, fields: Fields) -> None:
    if not isinstance(message, list) or len(message) < 5:  # noqa: PLR2004  # the parts of an SML_Message
        raise _MalformedError("no message")
    body = message[3]
    if not isinstance(body, list) or len(body) != 2:  # noqa: PLR2004  # tag and content
        raise _MalformedError("no body")
    if body[0] != _GET_LIST_RESPONSE:
        return
    response = body[1]
    if not isinstance(response, list) or len(response) != 7 or not isinstance(response[4], list):  # noqa: PLR2004  # SML_GetList.Res
        raise _MalformedError("no list")
    if isinstance(response[1], bytes) and response[1]:
        fields["id"] = response[1].hex().upper()
    for entry in response[4]:
        if not isinstance(entry, list) or len(entry) != 7:  # noqa: PLR2004  # SML_ListEntry
            raise _MalformedError("no entry")
        name, unit, scaler, value = entry[0], entry[3], entry[4], entry[5]
        if not isinstance(name, bytes) or len(name) != 6:  # noqa: PLR2004  # an OBIS code
            raise _MalformedError("no name")
        key = obis_text(name)
        fields[key] = None if key in fields else _value(value, unit, scaler)


def _value(value: Node, unit: Node, scaler: Node) -> Raw:
    if isinstance(value, bool):
        return value
    if isinstance(value, bytes):
        printable = value.isascii() and value.decode("ascii", "replace").isprintable()
        return (value.decode("ascii") if printable else value.hex().upper()) or None
    if isinstance(value, list):
        return None
    power = scaler if isinstance(scaler, int) else 0
    if not -30 <= power <= 30:  # noqa: PLR2004  # nothing that a meter measures
        return None
    number = value if power == 0 else float(f"{value}e{power}")
    if not isinstance(unit, int):
        return number
    return Measured(number, UNITS.get(unit, f"unit {unit}"))


def obis_text(code: bytes) -> str:
    """An OBIS code as people write it."""
    a, b, c, d, e, f = code
    return f"{a}-{b}:{c}.{d}.{e}" + (f"*{f}" if f != 0xFF else "")  # noqa: PLR2004  # the one that is left out


def _parse_obis(text: str) -> bytes | None:
    parts = text.replace("-", ".").replace(":", ".").replace("*", ".").split(".")
    if len(parts) not in {5, 6} or not all(part.isdecimal() and int(part) < 256 for part in parts):  # noqa: PLR2004  # a byte each
        return None
    return bytes([*map(int, parts), 0xFF][:6])


# -- the way back: for simulators and tests ----------------------------------------------------------------------------


def _octets(data: bytes) -> bytes:
    length = len(data) + 1
    if length < 16:  # noqa: PLR2004  # what one length byte can say
        return bytes([length]) + data
    length += 1
    return bytes([0x80 | length >> 4, length & 0x0F]) + data


def _integer(value: int, size: int, *, signed: bool) -> bytes:
    return bytes([(0x50 if signed else 0x60) | size + 1]) + value.to_bytes(size, "big", signed=signed)


def _list(*items: bytes) -> bytes:
    head = bytes([0x70 | len(items)]) if len(items) < 16 else bytes([0xF0 | len(items) >> 4, len(items) & 0x0F])  # noqa: PLR2004  # what one length byte can say
    return head + b"".join(items)


def file_of(
    entries: Sequence[tuple[bytes, int | None, int, int]], server: bytes = b"\x0a\x01EDG\x00\x00\x00\x00\x01"
) -> bytes:
    """An SML file with one list: (OBIS code, unit code, scaler, value)."""
    listed = [
        _list(
            _octets(name), b"\x01", b"\x01", b"\x01" if unit is None else _integer(unit, 1, signed=False),
            _integer(scaler, 1, signed=True), _integer(value, 8, signed=True), b"\x01",
        )
        for name, unit, scaler, value in entries
    ]  # fmt: skip
    body = _list(b"\x01", _octets(server), b"\x01", b"\x01", _list(*listed), b"\x01", b"\x01")
    return _message(1, _GET_LIST_RESPONSE, body)


def _message(number: int, tag: int, body: bytes) -> bytes:
    begin = b"\x76" + _octets(bytes([number])) + b"\x62\x00\x62\x00" + _list(_integer(tag, 2, signed=False), body)
    return begin + b"\x63" + CRCS["crc16-x25"](begin).to_bytes(2, "little") + b"\x00"


def transmission(file: bytes) -> bytes:
    """An SML file as it goes over the wire."""
    fill = -len(file) % 4
    padded = file + bytes(fill)
    escaped = b"".join(
        word * 2 if word == ESCAPE else word for word in (padded[i : i + 4] for i in range(0, len(padded), 4))
    )
    raw = BEGIN + escaped + ESCAPE + bytes([0x1A, fill])
    return raw + CRCS["crc16-x25"](raw).to_bytes(2, "little")
