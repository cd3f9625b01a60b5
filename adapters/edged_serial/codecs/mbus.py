"""Wired M-Bus: frames, requests and addresses of our own; the records of a telegram are decoded by pymeterbus.

Sources: EN 13757-2 (link layer), EN 13757-3 (telegrams); "The M-Bus: A Documentation", revision 4.8, chapters 5 to 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from edged.adapter import ConfigError

from .decode import Fields
from .values import Measured, Raw

ACK = b"\xe5"
SELECTED = 0xFD
"""The primary address of whoever was selected by secondary address."""
_LONGEST = 255 + 6
_LONG, _SHORT, _STOP = 0x68, 0x10, 0x16
_SHORT_SIZE, _LONG_SIZE, _DATA_SIZE = 5, 9, 19
"""Bytes of a short frame, of the shortest long frame, and of the shortest with a variable data header."""
_SND_NKE, _REQ_UD2, _SND_UD = 0x40, 0x5B, 0x53
_FCB = 0x20
_SELECT = 0x52
_SECONDARY = re.compile(r"[0-9Ff]{8}(?:[0-9A-Fa-f]{8})?")
_RSP_UD = frozenset({0x08, 0x18, 0x28, 0x38})
_VARIABLE = frozenset({0x72, 0x76})


class MbusFramer:
    """`E5`, short frames and long frames, with correct checksums."""

    def __init__(self) -> None:
        self.skipped = 0
        self.rejected = 0
        self._buffer = bytearray()

    @property
    def partial(self) -> bytes:
        """See `Framer`."""
        return bytes(self._buffer)

    def gap(self) -> list[bytes]:
        """See `Framer`: a frame has no gaps (EN 13757-2 §5.5.3), so what is not complete is noise."""
        self.skipped += len(self._buffer)
        self._buffer.clear()
        return []

    def reset(self) -> None:
        """See `Framer`."""
        self._buffer.clear()

    def feed(self, data: bytes) -> list[bytes]:
        """See `Framer`."""
        self._buffer += data
        frames: list[bytes] = []
        while self._buffer:
            length = self._length()
            if length > len(self._buffer):
                break
            if length and valid(bytes(self._buffer[:length])):
                frames.append(bytes(self._buffer[:length]))
                del self._buffer[:length]
                continue
            self.rejected += length > 1
            self.skipped += 1
            del self._buffer[:1]
        return frames

    def _length(self) -> int:
        """How long the frame at the front is, as far as can be told; 0 if there is none."""
        buffer = self._buffer
        match buffer[0]:
            case 0xE5:
                return 1
            case 0x10:
                return 5
            case 0x68:
                if len(buffer) < 4:  # noqa: PLR2004  # start, length, length, start
                    return 4 if all(a == b for a, b in zip(buffer[2:3], buffer[1:2], strict=False)) else 0
                return buffer[1] + 6 if buffer[1] == buffer[2] and buffer[3] == _LONG and buffer[1] >= 3 else 0  # noqa: PLR2004  # the frame's header
        return 0


def valid(frame: bytes) -> bool:
    """Whether a frame is one: markers, lengths and checksum."""
    if frame == ACK:
        return True
    if len(frame) == _SHORT_SIZE and frame[0] == _SHORT and frame[4] == _STOP:  # a short frame
        return sum(frame[1:3]) & 0xFF == frame[3]
    long = (
        _LONG_SIZE <= len(frame) <= _LONGEST
        and frame[0] == frame[3] == _LONG
        and frame[1] == frame[2] == len(frame) - 6
    )
    return long and frame[-1] == _STOP and sum(frame[4:-2]) & 0xFF == frame[-2]  # the stop byte


def _short(control: int, address: int) -> bytes:
    return bytes([0x10, control, address, (control + address) & 0xFF, 0x16])


def long_frame(content: bytes) -> bytes:
    """A long frame around control, address, CI and data."""
    return bytes([0x68, len(content), len(content), 0x68]) + content + bytes([sum(content) & 0xFF, 0x16])


def reset_link(address: int) -> bytes:
    """SND_NKE: whoever has the address forgets its frame count bit, and any selection."""
    return _short(_SND_NKE, address)


def request_data(address: int, *, count: bool) -> bytes:
    """REQ_UD2 with the frame count bit as given."""
    return _short(_REQ_UD2 | (_FCB if count else 0), address)


def select(secondary: str) -> bytes:
    """SND_UD that selects by secondary address: 8 digits of identification, F for any, and manufacturer to medium."""
    text = secondary.ljust(16, "F")
    identification = bytes.fromhex(text[:8])[::-1]
    return long_frame(bytes([_SND_UD, SELECTED, _SELECT]) + identification + bytes.fromhex(text[8:]))


def parse_address(address: int | str) -> int | str:
    """A primary address (0 to 250) or a secondary one (8 or 16 digits). Raises ValueError."""
    text = str(address)
    if text.isdecimal() and len(text) <= 3:  # noqa: PLR2004  # digits of a primary one
        if int(text) > 250:  # noqa: PLR2004  # those above have other meanings
            raise ValueError(f"`address: {address}`: primary addresses go from 0 to 250")
        return int(text)
    if not _SECONDARY.fullmatch(text):
        raise ValueError(
            f"`address: {address}`: a primary address is 0 to 250, a secondary one in quotes has 8 or all 16 digits"
        )
    return text.upper()


def answers(frame: bytes, address: int | str) -> bool:
    """Whether a frame is the data of the device with this address."""
    if len(frame) < _LONG_SIZE or frame[4] not in _RSP_UD:  # the shortest long frame
        return False
    if isinstance(address, int):
        return frame[5] == address
    if len(frame) < _DATA_SIZE or frame[6] not in _VARIABLE:  # with a data header
        return False
    found = (frame[7:11][::-1] + frame[11:15]).hex().upper()
    return all(want in {"F", have} for want, have in zip(address.ljust(16, "F"), found, strict=True))


def secondary_of(frame: bytes) -> str:
    """The secondary address in a telegram with variable data; empty if there is none."""
    return (
        (frame[7:11][::-1] + frame[11:15]).hex().upper() if len(frame) >= _DATA_SIZE and frame[6] in _VARIABLE else ""
    )


def more_follows(frame: bytes) -> bool:
    """Whether the device has further telegrams for this readout."""
    return bool(MbusDecoder().telegram(frame).more_records_follow)


class MbusDecoder:
    """Fields are named by what is measured, e.g. `energy`, `volume`, `flow_temperature`.

    A suffix tells what else a record is: `.s1` storage number 1, `.t2` tariff 2, `.u1` subunit 1, `.maximum`,
    `.minimum`, `.error`, `.x19` a further VIFE. The second of two records of the same name has `.2`, and so on.
    Besides: `id`, `manufacturer`, `medium`, `status`. A BCD number with a digit above 9 has no value.
    """

    def __init__(self) -> None:
        try:
            import meterbus  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra, without types
        except ModuleNotFoundError:
            raise ConfigError("M-Bus needs the Python package 'pymeterbus' (pip install 'edged[meters]')") from None
        self._library = meterbus

    def fields(self) -> frozenset[str] | None:
        return None

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:  # noqa: ARG002  # the sample in the profile is the form
        return None

    def decode(self, frame: bytes) -> Fields | None:
        """The records of one telegram, or of several that were joined by `join`."""
        fields: Fields = {}
        for one in split(frame):
            if not valid(one) or len(one) < _DATA_SIZE or one[6] not in _VARIABLE:  # with a data header
                return None
            try:
                telegram = self.telegram(one)
                records = list(telegram.records)
            except ValueError:
                return None
            fields |= _header(one)
            for record in records:
                self._record(record, fields)
        return fields or None

    def telegram(self, frame: bytes) -> Any:
        """What the library makes of a frame. Raises ValueError where it cannot."""
        try:
            return self._library.TelegramLong.parse(list(frame))
        except self._library.exceptions.MBusError as exc:
            raise ValueError(str(exc)) from exc
        except (LookupError, TypeError, ArithmeticError) as exc:  # it indexes what may be too short
            raise ValueError(f"not a telegram: {exc!r}") from exc

    def _record(self, record: Any, fields: Fields) -> None:
        try:
            if record.dib.is_eoud or record.dib.function_type.value > 3:  # noqa: PLR2004  # fill bytes and the maker's own
                return
            about = record.interpreted
            value = self._value(record, about)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
            return  # a record that the library does not understand; the others stand
        name = _name(about, record)
        number, free = 1, name
        while free in fields:
            number += 1
            free = f"{name}.{number}"
        fields[free] = value

    def _value(self, record: Any, about: Mapping[str, Any]) -> Raw:
        encoding, raw = record.dib.length_encoding[1].name, list(record.dataField.parts)
        value = about["value"]
        if value is None or isinstance(value, str):
            return value
        if encoding.endswith("BCD"):
            digits = [digit for byte in reversed(raw) for digit in (byte >> 4, byte & 15)]
            # F as the first digit is a minus sign; all other digits above 9 mean an error (EN 13757-3, annex A).
            if any(digit > 9 for digit in digits[1:]) or 9 < digits[0] < 15:  # noqa: PLR2004  # decimal digits, and the sign
                return None
        elif encoding.endswith("INTEGER") and raw == [*bytes(len(raw) - 1), _NO_VALUE]:
            return None  # the value that means there is none
        number = float(f"{float(value):.12g}")  # without the binary error of the library's scaling
        unit = _UNITS.get(record.unit, record.unit)
        return Measured(number, unit) if unit else number


_NO_VALUE = 0x80
_PLAIN_TEXT = 0xFC
"""The VIF that is followed by the unit in letters."""
_UNITS = {
    "m^3": "m³", "m^3/h": "m³/h", "m^3/min": "m³/min", "m^3/s": "m³/s", "C": "°C", "seconds": "s", "minutes": "min",
    "hours": "h", "days": "d", "none": "", "H.C.A": "", "Bittimes": "", "date": "", "time": "", "date time": "",
}  # fmt: skip
_FUNCTIONS = {"MAXIMUM_VALUE": ".maximum", "MINIMUM_VALUE": ".minimum", "ERROR_STATE_VALUE": ".error"}
_NAMES = {"energy_wh": "energy", "energy_j": "energy", "power_w": "power", "power_j_h": "power"}


def _name(about: Mapping[str, Any], record: Any) -> str:
    kind = str(about["type"]).rpartition(".")[2].lower()
    name = _NAMES.get(kind, kind)
    if about["storage_number"]:
        name += f".s{about['storage_number']}"
    for letter, key in (("t", "tariff"), ("u", "device")):
        if about.get(key):
            name += f".{letter}{about[key]}"
    name += _FUNCTIONS.get(str(about["function"]).rpartition(".")[2], "")
    codes = list(record.vib.parts)
    extra = codes[2:] if codes and codes[0] in {0xFB, 0xFD} else codes[1:] if codes and codes[0] != _PLAIN_TEXT else []
    return name + "".join(f".x{code & 0x7F:02x}" for code in extra)


def _header(frame: bytes) -> Fields:
    letters = int.from_bytes(frame[11:13], "little")
    maker = "".join(chr((letters >> shift & 31) + 64) for shift in (10, 5, 0))
    return {"id": frame[7:11][::-1].hex(), "manufacturer": maker, "medium": frame[14], "status": frame[16]}


def join(frames: Iterable[bytes]) -> bytes:
    """Several telegrams of one readout as one frame for `decode`."""
    return b"".join(frames)


def split(joined: bytes) -> list[bytes]:
    """What `join` joined; a single frame stays as it is."""
    parts, at = [], 0
    while at + 6 <= len(joined) and joined[at] == _LONG:  # a long frame begins
        end = at + joined[at + 1] + 6
        parts.append(joined[at:end])
        at = end
    return parts if parts and at == len(joined) else [joined]
