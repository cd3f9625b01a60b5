"""RuuviTag data formats 3 and 5, and Ruuvi Air's 6 and E1 (docs.ruuvi.com, Bluetooth advertisements)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from struct import Struct

from edged.adapter import Quality, Value

from .advert import ABSENT, Advertisement, Decoded, Kind, Stateless, address_of, decoded, refused

COMPANY = 0x0499
TAG_POINTS: Mapping[str, Kind] = {
    "temperature": Kind("number", "°C"),
    "humidity": Kind("number", "%"),
    "pressure": Kind("number", "hPa"),
    "acceleration_x": Kind("number", "g"),
    "acceleration_y": Kind("number", "g"),
    "acceleration_z": Kind("number", "g"),
    "battery_voltage": Kind("number", "V"),
    "tx_power": Kind("integer", "dBm", "Transmission power; not in data format 3"),
    "movement_counter": Kind("integer", "", "Counts movements, from 0 to 254; not in data format 3"),
}
AIR_POINTS: Mapping[str, Kind] = {
    "temperature": Kind("number", "°C"),
    "humidity": Kind("number", "%"),
    "pressure": Kind("number", "hPa"),
    "pm1": Kind("number", "µg/m³", "Only in data format E1"),
    "pm2_5": Kind("number", "µg/m³"),
    "pm4": Kind("number", "µg/m³", "Only in data format E1"),
    "pm10": Kind("number", "µg/m³", "Only in data format E1"),
    "co2": Kind("integer", "ppm"),
    "voc_index": Kind("integer"),
    "nox_index": Kind("integer"),
    "illuminance": Kind("number", "lx"),
    "calibrating": Kind("boolean", "", "The sensor is not accurate yet"),
}
_CALIBRATING = Quality("uncertain", "calibrating")
_DUST = ("pm1", "pm2_5", "pm4", "pm10")
AIR_COMMON = tuple(name for name in AIR_POINTS if name not in {"pm1", "pm4", "pm10"})
"""What both formats have."""
_CALIBRATED = (*_DUST, "co2", "voc_index", "nox_index")
_DF3 = Struct(">xBBBHhhhH")
_DF5 = Struct(">xhHHhhhHBH6s")
_DF6 = Struct(">xhHHHHBBBxBB3s")
_DFE1 = Struct(">xhHH4HHBB3s3x3sB5x6s")
_NO_24 = 0xFFFFFF
_NO_16, _NO_15S, _NO_11, _NO_9, _NO_8, _NO_5 = 0xFFFF, -0x8000, 0x7FF, 0x1FF, 0xFF, 0x1F
_LUX = math.log(65536) / 254


class RuuviTag(Stateless):
    """Satisfies `Decoder`, for the tags: data formats 3 and 5."""

    points = TAG_POINTS

    def decode(self, adv: Advertisement) -> Decoded | None:
        """What the tag says."""
        data = adv.manufacturer_data.get(COMPANY)
        if not data:
            return None
        if data[0] == 5:  # noqa: PLR2004  # the data format
            return _format_5(data, adv.address)
        return _format_3(data) if data[0] == 3 else None  # noqa: PLR2004  # the data format


class RuuviAir:
    """Satisfies `Decoder`, for Ruuvi Air: data formats 6 and E1.

    A device sends both, and whoever hears E1 shall take no notice of 6: it says less of the same.
    """

    points = AIR_POINTS
    complete = False

    def __init__(self) -> None:
        self._extended = False

    def reset(self) -> None:
        """Format 6 counts again: the radio may no longer hear the other."""
        self._extended = False

    def decode(self, adv: Advertisement) -> Decoded | None:
        """What the device says."""
        data = adv.manufacturer_data.get(COMPANY)
        if not data or data[0] not in {6, 0xE1}:
            return None
        if data[0] == 6:  # noqa: PLR2004  # the data format
            return Decoded({}) if self._extended else _format_6(data, adv.address)
        found = _format_e1(data, adv.address)
        self._extended |= bool(found.values)
        return found


def _format_6(data: bytes, address: str) -> Decoded:
    if len(data) != _DF6.size:
        return refused(f"Ruuvi data format 6 has {_DF6.size} bytes, and there are {len(data)}")
    temperature, humidity, pressure, dust, co2, voc, nox, light, sequence, flags, mac = _DF6.unpack(data)
    if mac != b"\xff\xff\xff" and not address.endswith(mac.hex(":").upper()):
        return refused(f"its data are those of the device with the address ending in {mac.hex(':').upper()}")
    values = _climate(temperature, humidity, pressure)
    values["pm2_5"] = None if dust == _NO_16 else dust / 10
    values |= _gases(co2, voc, nox, flags)
    values["illuminance"] = None if light == _NO_8 else round(math.exp(light * _LUX) - 1, 2)
    return _calibrated(values, flags, sequence)


def _format_e1(data: bytes, address: str) -> Decoded:
    if len(data) != _DFE1.size:
        return refused(f"Ruuvi data format E1 has {_DFE1.size} bytes, and there are {len(data)}")
    temperature, humidity, pressure, *dust, co2, voc, nox, light, sequence, flags, mac = _DFE1.unpack(data)
    if mac != b"\xff\xff\xff\xff\xff\xff" and address_of(mac) != address:
        return refused(f"its data are those of the device {address_of(mac)}")
    values = _climate(temperature, humidity, pressure)
    values |= {name: None if one == _NO_16 else one / 10 for name, one in zip(_DUST, dust, strict=True)}
    values |= _gases(co2, voc, nox, flags)
    lux, number = int.from_bytes(light), int.from_bytes(sequence)
    values["illuminance"] = None if lux == _NO_24 else lux / 100
    return _calibrated(values, flags, None if number == _NO_24 else number)


def _climate(temperature: int, humidity: int, pressure: int) -> dict[str, Value]:
    return {
        "temperature": None if temperature == _NO_15S else temperature / 200,
        "humidity": None if humidity == _NO_16 else humidity / 400,
        "pressure": None if pressure == _NO_16 else (pressure + 50_000) / 100,
    }


def _gases(co2: int, voc: int, nox: int, flags: int) -> dict[str, Value]:
    voc, nox = voc << 1 | flags >> 6 & 1, nox << 1 | flags >> 7
    return {
        "co2": None if co2 == _NO_16 else co2,
        "voc_index": None if voc == _NO_9 else voc,
        "nox_index": None if nox == _NO_9 else nox,
    }


def _calibrated(values: dict[str, Value], flags: int, sequence: int | None) -> Decoded:
    """The values, of which some are uncertain while the device says that it calibrates."""
    values["calibrating"] = bool(flags & 1)
    if not flags & 1:
        return decoded(values, sequence)
    quality = {
        name: ABSENT if value is None else _CALIBRATING
        for name, value in values.items()
        if value is None or name in _CALIBRATED
    }
    return Decoded(values, quality, sequence)


def _format_3(data: bytes) -> Decoded:
    if len(data) != _DF3.size:
        return refused(f"Ruuvi data format 3 has {_DF3.size} bytes, and there are {len(data)}")
    humidity, whole, hundredths, pressure, x, y, z, millivolts = _DF3.unpack(data)
    degrees = (whole & 0x7F) + hundredths / 100
    return decoded(
        {
            "temperature": (-degrees if whole & 0x80 else degrees) if hundredths < 100 else None,  # noqa: PLR2004  # hundredths
            "humidity": humidity / 2,
            "pressure": (pressure + 50_000) / 100,
            "acceleration_x": x / 1000,
            "acceleration_y": y / 1000,
            "acceleration_z": z / 1000,
            "battery_voltage": millivolts / 1000,
        }
    )


def _format_5(data: bytes, address: str) -> Decoded:
    if len(data) != _DF5.size:
        return refused(f"Ruuvi data format 5 has {_DF5.size} bytes, and there are {len(data)}")
    temperature, humidity, pressure, x, y, z, power, movements, sequence, mac = _DF5.unpack(data)
    if mac != b"\xff\xff\xff\xff\xff\xff" and address_of(mac) != address:
        return refused(f"its data are those of the tag {address_of(mac)}")
    voltage, transmission = power >> 5, power & _NO_5
    return decoded(
        {
            "temperature": None if temperature == _NO_15S else temperature / 200,
            "humidity": None if humidity == _NO_16 else humidity / 400,
            "pressure": None if pressure == _NO_16 else (pressure + 50_000) / 100,
            "acceleration_x": None if x == _NO_15S else x / 1000,
            "acceleration_y": None if y == _NO_15S else y / 1000,
            "acceleration_z": None if z == _NO_15S else z / 1000,
            "battery_voltage": None if voltage == _NO_11 else (voltage + 1600) / 1000,
            "tx_power": None if transmission == _NO_5 else 2 * transmission - 40,
            "movement_counter": None if movements == _NO_8 else movements,
        },
        None if sequence == _NO_16 else sequence,
    )
