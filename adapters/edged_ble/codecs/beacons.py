"""Beacons: Apple's iBeacon, and Google's Eddystone with its frames UID, URL and TLM (github.com/google/eddystone)."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

from edged.adapter import Value

from .advert import Advertisement, Decoded, Kind, Stateless, decoded, refused, uuid_of

APPLE = 0x004C
EDDYSTONE = uuid_of("FEAA")
IBEACON_POINTS: Mapping[str, Kind] = {
    "uuid": Kind("text"),
    "major": Kind("integer"),
    "minor": Kind("integer"),
    "measured_power": Kind("integer", "dBm", "Signal strength at one metre, as calibrated"),
}
EDDYSTONE_POINTS: Mapping[str, Kind] = {
    "battery_voltage": Kind("number", "V"),
    "temperature": Kind("number", "°C"),
    "advertisements": Kind("integer", "", "Advertisements since the beacon was started"),
    "uptime": Kind("number", "s", "Time since the beacon was started"),
    "namespace": Kind("text"),
    "instance": Kind("text"),
    "url": Kind("text"),
    "measured_power": Kind("integer", "dBm", "Signal strength at the beacon, as calibrated"),
}
_IBEACON = Struct(">2x16sHHb")
_TLM = Struct(">2xHhII")
_UID_LENGTH, _URL_SCHEME = 18, 2
_NO_TEMPERATURE = -0x8000
_SCHEMES = ("http://www.", "https://www.", "http://", "https://")
_ENDINGS = (
    ".com/", ".org/", ".edu/", ".net/", ".info/", ".biz/", ".gov/", ".com", ".org", ".edu", ".net", ".info", ".biz",
    ".gov",
)  # fmt: skip


class IBeacon(Stateless):
    """Satisfies `Decoder`."""

    points = IBEACON_POINTS

    def decode(self, adv: Advertisement) -> Decoded | None:
        """Who the beacon is."""
        data = adv.manufacturer_data.get(APPLE)
        if data is None or not data.startswith(b"\x02\x15"):
            return None
        if len(data) != _IBEACON.size:
            return refused(f"an iBeacon has {_IBEACON.size} bytes, and there are {len(data)}")
        uuid, major, minor, power = _IBEACON.unpack(data)
        values: dict[str, Value] = {"uuid": uuid_of(uuid.hex()), "major": major, "minor": minor}
        return Decoded({**values, "measured_power": power})


class Eddystone(Stateless):
    """Satisfies `Decoder`. A beacon sends its frames in turn, each of them when it likes."""

    points = EDDYSTONE_POINTS
    complete = False

    def decode(self, adv: Advertisement) -> Decoded | None:
        """What the frame says."""
        data = adv.service_data.get(EDDYSTONE)
        if not data:
            return None
        match data[0]:
            case 0x00:
                return _uid(data)
            case 0x10:
                return _url(data)
            case 0x20:
                return _telemetry(data)
        return None


def _uid(data: bytes) -> Decoded:
    if len(data) not in {_UID_LENGTH, _UID_LENGTH + 2}:
        return refused(f"an Eddystone UID has {_UID_LENGTH} or {_UID_LENGTH + 2} bytes, and there are {len(data)}")
    power = int.from_bytes(data[1:2], "big", signed=True)
    return Decoded({"namespace": data[2:12].hex(), "instance": data[12:18].hex(), "measured_power": power})


def _url(data: bytes) -> Decoded:
    if len(data) <= _URL_SCHEME or data[_URL_SCHEME] >= len(_SCHEMES):
        return refused("an Eddystone URL that is cut or begins with an unknown scheme")
    text = _SCHEMES[data[_URL_SCHEME]]
    for byte in data[_URL_SCHEME + 1 :]:
        if byte < len(_ENDINGS):
            text += _ENDINGS[byte]
        elif 0x20 < byte < 0x7F:  # noqa: PLR2004  # what can be printed
            text += chr(byte)
        else:
            return refused(f"an Eddystone URL with the byte {byte:#04x}")
    return Decoded({"url": text, "measured_power": int.from_bytes(data[1:2], "big", signed=True)})


def _telemetry(data: bytes) -> Decoded:
    if len(data) > 1 and data[1] == 1:
        return refused("encrypted Eddystone telemetry, which only the owner's cloud can read")
    if len(data) != _TLM.size or data[1] != 0:
        return refused(f"Eddystone telemetry has {_TLM.size} bytes and version 0; this has not")
    millivolts, temperature, count, tenths = _TLM.unpack(data)
    return decoded(
        {
            "battery_voltage": millivolts / 1000 if millivolts else None,
            "temperature": None if temperature == _NO_TEMPERATURE else temperature / 256,
            "advertisements": count,
            "uptime": tenths / 10,
        }
    )
