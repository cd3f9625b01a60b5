"""Xiaomi and Qingping thermometers with free firmware: the formats `atc1441` and `custom` (pvvx).

Sources: the README of github.com/atc1441/ATC_MiThermometer, "Advertising format of the custom firmware", and of
github.com/pvvx/ATC_MiThermometer, "Bluetooth Advertising Formats".
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

from .advert import Advertisement, Decoded, Kind, Stateless, address_of, refused, uuid_of

SERVICE = uuid_of("181A")
POINTS: Mapping[str, Kind] = {
    "temperature": Kind("number", "°C"),
    "humidity": Kind("number", "%"),
    "battery": Kind("integer", "%"),
    "battery_voltage": Kind("number", "V"),
    "reed_switch": Kind("boolean", "", "Only in the format `custom`"),
    "output": Kind("boolean", "", "Only in the format `custom`"),
    "temperature_alarm": Kind("boolean", "", "Only in the format `custom`"),
    "humidity_alarm": Kind("boolean", "", "Only in the format `custom`"),
}
_ATC1441 = Struct(">6shBBHB")
_CUSTOM = Struct("<6shHHBBB")
LENGTHS = frozenset({_ATC1441.size, _CUSTOM.size})
_ENCRYPTED = frozenset({8, 11})
"""The same two, encrypted."""


class Atc(Stateless):
    """Satisfies `Decoder`, for both formats: their lengths differ."""

    points = POINTS

    def decode(self, adv: Advertisement) -> Decoded | None:
        """What the thermometer says."""
        data = adv.service_data.get(SERVICE)
        if data is not None and len(data) in _ENCRYPTED:
            return refused("encrypted ATC: set the thermometer to BTHome with encryption, or turn encryption off")
        if data is None or len(data) not in LENGTHS:
            return None
        if len(data) == _ATC1441.size:
            mac, temperature, humidity, battery, millivolts, counter = _ATC1441.unpack(data)
            values = {"temperature": temperature / 10, "humidity": humidity, "battery": battery}
        else:
            mac, temperature, relative, millivolts, battery, counter, flags = _CUSTOM.unpack(data)
            mac = mac[::-1]
            values = {
                "temperature": temperature / 100,
                "humidity": relative / 100,
                "battery": battery,
                "reed_switch": bool(flags & 1),
                "output": bool(flags & 2),
                "temperature_alarm": bool(flags & 8),
                "humidity_alarm": bool(flags & 16),
            }
        if address_of(mac) != adv.address:
            return refused(f"its data are those of the thermometer {address_of(mac)}")
        values["battery_voltage"] = millivolts / 1000
        return Decoded(values, packet_id=counter)
