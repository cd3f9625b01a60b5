"""BTHome version 2, plain and encrypted (bthome.io/format, bthome.io/encryption)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edged.adapter import Quality, Value

from .advert import ABSENT, Advertisement, Decoded, Kind, ValueType, address_of, refused, uuid_of
from .aes import Ccm

SERVICE = uuid_of("FCD2")
_UUID = b"\xd2\xfc"
_ENCRYPTED, _ADDRESSED, _VERSION = 0x01, 0x02, 2
_ADDRESS = 6
_HEAD = 1 + _ADDRESS
"""Bytes before the objects where the packet has the sender's address in it, as version 2 had at first."""
_COUNTER, _TAG = 4, 4
_EVENTS: Mapping[int, Mapping[int, str]] = {
    0x3A: {
        0x01: "press", 0x02: "double_press", 0x03: "triple_press", 0x04: "long_press", 0x05: "long_double_press",
        0x06: "long_triple_press", 0x80: "hold_press", 0x81: "hold_release", 0xFE: "hold_press",
    },
    0x3C: {0x01: "rotate_left", 0x02: "rotate_right"},
}  # fmt: skip
_COMMANDS = {0x00: "off", 0x01: "on", 0x02: "toggle", 0x03: "step_up", 0x04: "step_down"}


@dataclass(frozen=True, slots=True)
class _Object:
    """An object id: how many bytes its value has and what they mean."""

    name: str
    size: int
    """0 where a byte in front of the value tells it."""
    signed: bool = False
    divisor: int = 1
    factor: float = 0.0
    """For the one object whose resolution is not one over a whole number."""


def _numbers() -> dict[int, tuple[_Object, Kind]]:
    rows: tuple[tuple[int, str, str, int, bool, int], ...] = (
        (0x01, "battery", "%", 1, False, 1),
        (0x02, "temperature", "°C", 2, True, 100),
        (0x03, "humidity", "%", 2, False, 100),
        (0x04, "pressure", "hPa", 3, False, 100),
        (0x05, "illuminance", "lx", 3, False, 100),
        (0x06, "mass", "kg", 2, False, 100),
        (0x07, "mass_lb", "lb", 2, False, 100),
        (0x08, "dew_point", "°C", 2, True, 100),
        (0x09, "count", "", 1, False, 1),
        (0x0A, "energy", "kWh", 3, False, 1000),
        (0x0B, "power", "W", 3, False, 100),
        (0x0C, "voltage", "V", 2, False, 1000),
        (0x0D, "pm2_5", "µg/m³", 2, False, 1),
        (0x0E, "pm10", "µg/m³", 2, False, 1),
        (0x12, "co2", "ppm", 2, False, 1),
        (0x13, "tvoc", "µg/m³", 2, False, 1),
        (0x14, "moisture", "%", 2, False, 100),
        (0x2E, "humidity", "%", 1, False, 1),
        (0x2F, "moisture", "%", 1, False, 1),
        (0x3D, "count", "", 2, False, 1),
        (0x3E, "count", "", 4, False, 1),
        (0x3F, "rotation", "°", 2, True, 10),
        (0x40, "distance", "m", 2, False, 1000),
        (0x41, "distance", "m", 2, False, 10),
        (0x42, "duration", "s", 3, False, 1000),
        (0x43, "current", "A", 2, False, 1000),
        (0x44, "speed", "m/s", 2, False, 100),
        (0x45, "temperature", "°C", 2, True, 10),
        (0x46, "uv_index", "", 1, False, 10),
        (0x47, "volume", "L", 2, False, 10),
        (0x48, "volume", "L", 2, False, 1000),
        (0x49, "volume_flow_rate", "m³/h", 2, False, 1000),
        (0x4A, "voltage", "V", 2, False, 10),
        (0x4B, "gas", "m³", 3, False, 1000),
        (0x4C, "gas", "m³", 4, False, 1000),
        (0x4D, "energy", "kWh", 4, False, 1000),
        (0x4E, "volume", "L", 4, False, 1000),
        (0x4F, "water", "L", 4, False, 1000),
        (0x50, "timestamp", "s", 4, False, 1),
        (0x51, "acceleration", "m/s²", 2, False, 1000),
        (0x52, "gyroscope", "°/s", 2, False, 1000),
        (0x55, "volume_storage", "L", 4, False, 1000),
        (0x56, "conductivity", "µS/cm", 2, False, 1),
        (0x57, "temperature", "°C", 1, True, 1),
        (0x59, "count", "", 1, True, 1),
        (0x5A, "count", "", 2, True, 1),
        (0x5B, "count", "", 4, True, 1),
        (0x5C, "power", "W", 4, True, 100),
        (0x5D, "current", "A", 2, True, 1000),
        (0x5E, "direction", "°", 2, False, 100),
        (0x5F, "precipitation", "mm", 2, False, 10),
        (0x60, "channel", "", 1, False, 1),
        (0x61, "rotational_speed", "rpm", 2, False, 1),
        (0x62, "speed", "m/s", 4, True, 1_000_000),
        (0x63, "acceleration", "m/s²", 4, True, 1_000_000),
        (0x64, "light_level", "", 1, False, 1),
        (0x65, "settings_revision", "", 1, False, 1),
        (0xF0, "device_type", "", 2, False, 1),
    )
    result = {}
    for number, name, unit, size, signed, divisor in rows:
        result[number] = _Object(name, size, signed, divisor), Kind("number", unit)
    result[0x58] = _Object("temperature", 1, signed=True, factor=0.35), Kind("number", "°C")
    return result


_BOOLEANS: Mapping[int, str] = {
    0x0F: "generic_boolean", 0x10: "power_on", 0x11: "opening", 0x15: "battery_low", 0x16: "battery_charging",
    0x17: "carbon_monoxide", 0x18: "cold", 0x19: "connectivity", 0x1A: "door", 0x1B: "garage_door",
    0x1C: "gas_detected", 0x1D: "heat", 0x1E: "light", 0x1F: "lock", 0x20: "moisture_detected", 0x21: "motion",
    0x22: "moving", 0x23: "occupancy", 0x24: "plug", 0x25: "presence", 0x26: "problem", 0x27: "running",
    0x28: "safety", 0x29: "smoke", 0x2A: "sound", 0x2B: "tamper", 0x2C: "vibration", 0x2D: "window",
}  # fmt: skip
_OTHERS: Mapping[int, tuple[str, int, ValueType, bool]] = {
    0x3A: ("button", 1, "text", True),
    0x3B: ("command", 0, "text", True),
    0x3C: ("dimmer", 2, "text", True),
    0x53: ("text", 0, "text", False),
    0x54: ("raw", 0, "text", False),
    0xF1: ("firmware", 4, "text", False),
    0xF2: ("firmware", 3, "text", False),
}


def _tables() -> tuple[dict[int, _Object], dict[str, Kind]]:
    objects, points = {}, {}
    for number, (one, kind) in _numbers().items():
        objects[number] = one
        points[one.name] = kind
    for number, name in _BOOLEANS.items():
        objects[number] = _Object(name, 1)
        points[name] = Kind("boolean")
    for number, (name, size, type_, event) in _OTHERS.items():
        objects[number] = _Object(name, size)
        points[name] = Kind(type_, event=event)
    return objects, points


OBJECTS, POINTS = _tables()


class BTHome:
    """Satisfies `Decoder`. A second object of the same meaning in one packet is called `temperature_2` and so on."""

    complete = False

    def __init__(self, key: bytes | None = None) -> None:
        self.points: Mapping[str, Kind] = POINTS
        self._cipher = None if key is None else Ccm(key)
        self._counter: int | None = None
        self._last: tuple[bytes, Decoded] | None = None

    def reset(self) -> None:
        """Forget the counter."""
        self._counter = self._last = None

    def decode(self, adv: Advertisement) -> Decoded | None:
        """What the packet says."""
        data = adv.service_data.get(SERVICE)
        if data is None:
            return None
        if not data:
            return refused("a BTHome packet without contents")
        version = data[0] >> 5
        if version != _VERSION:
            return refused(f"BTHome version {version}, and only version {_VERSION} is understood")
        head = _HEAD if data[0] & _ADDRESSED else 1
        if len(data) < head:
            return refused("a BTHome packet that is cut")
        if head == _HEAD and (said := address_of(data[6:0:-1])) != adv.address:
            return refused(f"its data are those of the sensor {said}")
        if data[0] & _ENCRYPTED:
            return self._open(data, head, adv.address)
        if self._cipher is not None:
            return refused("not encrypted although the sensor has a `bind_key`: somebody else may have sent it")
        return parse(data[head:])

    def _open(self, data: bytes, head: int, address: str) -> Decoded:
        if self._cipher is None:
            return refused("encrypted: the sensor needs its `bind_key`")
        if self._last is not None and self._last[0] == data:
            return self._last[1]
        if len(data) < head + _COUNTER + _TAG:
            return refused("an encrypted BTHome packet that is too short")
        counter = int.from_bytes(data[-_COUNTER - _TAG : -_TAG], "little")
        if self._counter is not None and counter <= self._counter:
            return refused(f"counter {counter} after {self._counter}: an old packet that was sent again")
        try:
            mac = bytes.fromhex(address.replace(":", ""))
        except ValueError:
            return refused(f"encrypted, and {address} is not the sensor's address, which is needed to decrypt")
        nonce = mac + _UUID + data[:1] + data[-_COUNTER - _TAG : -_TAG]
        whole = len(mac) == _ADDRESS
        plain = self._cipher.decrypt(nonce, data[head : -_COUNTER - _TAG], data[-_TAG:]) if whole else None
        if plain is None:
            return refused("the `bind_key` does not fit")
        found = parse(plain)
        found = Decoded(found.values, found.quality, counter, found.problem)
        self._counter, self._last = counter, (data, found)
        return found


def parse(data: bytes) -> Decoded:
    """The objects of a packet. Those behind one that is not known are left out; a cut packet yields nothing."""
    values: dict[str, Value] = {}
    quality: dict[str, Quality] = {}
    seen: dict[str, int] = {}
    packet: int | None = None
    at, end = 0, len(data)
    while at < end:
        number = data[at]
        at += 1
        if number == 0 and at < end:
            packet = data[at]
            at += 1
            continue
        one = OBJECTS.get(number)
        if one is None:
            if number == 0:
                return refused("a BTHome packet that is cut")
            break
        size = one.size
        if not size:
            if at == end:
                return refused("a BTHome packet that is cut")
            size = 1 + (data[at] & 0x1F) if number == 0x3B else data[at]  # noqa: PLR2004  # a command and its arguments
            at += 1
        if at + size > end:
            return refused("a BTHome packet that is cut")
        name = one.name
        again = seen[name] = seen.get(name, 0) + 1
        if again > 1:
            name = f"{name}_{again}"
        value = _value(number, one, data[at : at + size])
        at += size
        if value is not None:
            values[name] = value
        elif number not in _EVENTS:
            values[name], quality[name] = None, ABSENT
    return Decoded(values, quality, packet)


def _value(number: int, one: _Object, data: bytes) -> Value:
    """The value of an object; None for an event that did not happen and for what is no text."""
    if number in _BOOLEANS:
        return data != b"\0"
    if number not in _OTHERS:
        raw = int.from_bytes(data, "little", signed=one.signed)
        if one.factor:
            return round(raw * one.factor, 2)
        return raw if one.divisor == 1 else raw / one.divisor
    match number:
        case 0x3A:
            return _EVENTS[number].get(data[0], f"event_{data[0]:02x}") if data[0] else None
        case 0x3C:
            return f"{_EVENTS[number].get(data[0], f'event_{data[0]:02x}')} {data[1]}" if data[0] else None
        case 0x3B:
            return " ".join((_COMMANDS.get(data[0], f"command_{data[0]:02x}"), *(f"{byte:02x}" for byte in data[1:])))
        case 0x53:
            return _text(data)
        case 0x54:
            return data.hex()
    return ".".join(str(byte) for byte in reversed(data))


def _text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
