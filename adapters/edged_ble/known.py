"""Which decoders a device can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from edged.adapter import ConfigError

from . import units
from .codecs import atc, beacons, bthome, ruuvi, services
from .codecs.advert import Decoder, Kind

BYTES = "bytes"
"""The decoder that the configuration itself describes."""
RADIO_POINTS: Mapping[str, Kind] = {
    "rssi": Kind("integer", "dBm", "How strong it is heard"),
    "last_seen": Kind("number", "s", "When it was heard last: seconds since 1970, UTC"),
}
"""What every device has besides, whatever its decoder."""


@dataclass(frozen=True, slots=True)
class Known:
    """A decoder that a device can name."""

    title: str
    points: Mapping[str, Kind]
    common: tuple[str, ...]
    """What a device has whose configuration lists no points; nothing where each sensor has others."""
    make: Callable[[bytes | None], Decoder]
    """A new one with this bind key. Raises ConfigError when it needs a package that is not installed."""
    key_lengths: tuple[int, ...] = ()
    """How many bytes a bind key can have; none where there is no encryption."""
    package: str = ""
    """The library it needs, from the extra `ble-decoders`; empty for our own."""
    numbers: bool = False
    """A sensor that has several of a value numbers them: `temperature`, `temperature_2`."""

    def kind(self, name: str) -> Kind | None:
        """What the value of this name is; None if there is no such value."""
        base: str | None = name
        if self.package:
            base = units.base_of(name, self.points)
        elif self.numbers and name not in self.points:
            head, _, number = name.rpartition("_")
            base = head if number.isdecimal() and number.isascii() and int(number) > 1 else None
        return None if base is None else self.points.get(base)


def _library(name: str, key: bytes | None) -> Decoder:
    from .codecs.library import LibraryDecoder  # noqa: PLC0415  # only who has such a sensor pays for it

    return LibraryDecoder(name, key)


def _of_library(package: str, title: str, *key_lengths: int, name: str = "") -> tuple[str, Known]:
    name = name or package.removesuffix("-ble")
    return name, Known(title, units.POINTS, (), partial(_library, name), key_lengths, package)


KNOWN: Mapping[str, Known] = {
    "atc": Known(
        "Xiaomi and Qingping thermometers with ATC or pvvx firmware",
        atc.POINTS,
        ("temperature", "humidity", "battery", "battery_voltage"),
        lambda _: atc.Atc(),
    ),
    "bthome": Known("BTHome version 2", bthome.POINTS, (), bthome.BTHome, (16,), numbers=True),
    "eddystone": Known("Eddystone UID, URL and TLM", beacons.EDDYSTONE_POINTS, (), lambda _: beacons.Eddystone()),
    "ess": Known(
        "Standard characteristics as service data: temperature, humidity, pressure, battery …",
        services.POINTS,
        (),
        lambda _: services.Environment(),
    ),
    "ibeacon": Known("iBeacon", beacons.IBEACON_POINTS, tuple(beacons.IBEACON_POINTS), lambda _: beacons.IBeacon()),
    "ruuvi": Known(
        "RuuviTag, data formats 3 and 5", ruuvi.TAG_POINTS, tuple(ruuvi.TAG_POINTS), lambda _: ruuvi.RuuviTag()
    ),
    "ruuvi-air": Known(
        "Ruuvi Air, data formats 6 and E1", ruuvi.AIR_POINTS, ruuvi.AIR_COMMON, lambda _: ruuvi.RuuviAir()
    ),
    **dict(
        [
            _of_library("bthome-ble", "BTHome version 1 and 2", 16, name="bthome-ble"),
            _of_library("govee-ble", "Govee"),
            _of_library("inkbird-ble", "Inkbird"),
            _of_library("ruuvitag-ble", "Ruuvi, all data formats", name="ruuvitag-ble"),
            _of_library("sensorpush-ble", "SensorPush"),
            _of_library("thermobeacon-ble", "ThermoBeacon"),
            _of_library("thermopro-ble", "ThermoPro"),
            _of_library("xiaomi-ble", "Xiaomi MiBeacon, and Qingping and others that use it", 12, 16),
        ]
    ),
}
"""By name."""


def new_decoder(name: str, key: bytes | None = None) -> Decoder:
    """A new decoder of this name, which must be in `KNOWN`. Raises ConfigError."""
    return KNOWN[name].make(key)


def key_of(text: str, decoder: str) -> bytes:
    """The bind key in hexadecimal digits. Raises ConfigError; its text is never shown."""
    lengths = KNOWN[decoder].key_lengths
    digits = "".join(text.split()).replace(":", "")
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        raise ConfigError("`bind_key` is not written in hexadecimal digits") from None
    if len(key) not in lengths:
        wanted = " or ".join(str(2 * length) for length in lengths)
        raise ConfigError(f"`bind_key` has {len(digits)} hexadecimal digits, and {decoder} needs {wanted}")
    return key
