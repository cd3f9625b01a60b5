"""RuuviTag data formats 3 and 5 and Ruuvi Air's format 6 (docs.ruuvi.com, Bluetooth advertisements)."""

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
    "pm2_5": Kind("number", "µg/m³"),
    "co2": Kind("integer", "ppm"),
    "voc_index": Kind("integer"),
    "nox_index": Kind("integer"),
    "illuminance": Kind("number", "lx"),
    "calibrating": Kind("boolean", "", "The sensor is not accurate yet"),
}
_CALIBRATING = Quality("uncertain", "calibrating")
_CALIBRATED = ("pm2_5", "co2", "voc_index", "nox_index")
_DF3 = Struct(">xBBBHhhhH")
_DF5 = Struct(">xhHHhhhHBH6s")
_DF6 = Struct(">xhHHHHBBBxBB3s")
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


class RuuviAir(Stateless):
    """Satisfies `Decoder`, for Ruuvi Air: data format 6."""

    points = AIR_POINTS

    def decode(self, adv: Advertisement) -> Decoded | None:
        """What the device says."""
        data = adv.manufacturer_data.get(COMPANY)
        if not data or data[0] != 6:  # noqa: PLR2004  # the data format
            return None
        if len(data) != _DF6.size:
            return refused(f"Ruuvi data format 6 has {_DF6.size} bytes, and there are {len(data)}")
        temperature, humidity, pressure, dust, co2, voc, nox, light, sequence, flags, mac = _DF6.unpack(data)
        if mac != b"\xff\xff\xff" and not adv.address.endswith(mac.hex(":").upper()):
            return refused(f"its data are those of the device with the address ending in {mac.hex(':').upper()}")
        voc, nox = voc << 1 | flags >> 6 & 1, nox << 1 | flags >> 7
        values: dict[str, Value] = {
            "temperature": None if temperature == _NO_15S else temperature / 200,
            "humidity": None if humidity == _NO_16 else humidity / 400,
            "pressure": None if pressure == _NO_16 else (pressure + 50_000) / 100,
            "pm2_5": None if dust == _NO_16 else dust / 10,
            "co2": None if co2 == _NO_16 else co2,
            "voc_index": None if voc == _NO_9 else voc,
            "nox_index": None if nox == _NO_9 else nox,
            "illuminance": None if light == _NO_8 else round(math.exp(light * _LUX) - 1, 2),
            "calibrating": bool(flags & 1),
        }
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
