"""Decoders of the extra `ble-decoders`: the libraries that Home Assistant uses, behind our own interface.

They are imported when the first device needs one. Two of their habits matter here: `update` returns everything that the
sensor ever said, old values too, so only what was set during the call is taken; and they write to the log for each
advertisement that they do not like, so their logs are silenced and the reason is returned instead.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edged.adapter import ConfigError, Quality, Value
from edged_ble.units import POINTS, Role, translated

from .advert import ABSENT, Advertisement, Decoded, Kind, refused, uuid_of

FOREIGN = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError,
    struct.error,
)  # fmt: skip
"""What a parser of foreign bytes can raise."""
_MIBEACON = uuid_of("FE95")
_MIBEACON_COUNTER = 4


@dataclass(frozen=True, slots=True)
class Library:
    """Where a library's decoder is."""

    package: str
    cls: str
    keyed: bool = False
    """Its constructor takes the bind key."""


LIBRARIES: Mapping[str, Library] = {
    "bthome-ble": Library("bthome_ble", "BTHomeBluetoothDeviceData", keyed=True),
    "govee": Library("govee_ble", "GoveeBluetoothDeviceData"),
    "inkbird": Library("inkbird_ble", "INKBIRDBluetoothDeviceData"),
    "ruuvitag-ble": Library("ruuvitag_ble", "RuuvitagBluetoothDeviceData"),
    "sensorpush": Library("sensorpush_ble", "SensorPushBluetoothDeviceData"),
    "thermobeacon": Library("thermobeacon_ble", "ThermoBeaconBluetoothDeviceData"),
    "thermopro": Library("thermopro_ble", "ThermoProBluetoothDeviceData"),
    "xiaomi": Library("xiaomi_ble", "XiaomiBluetoothDeviceData", keyed=True),
}
"""By the name of the decoder. The order is that in which unknown advertisements are tried."""


def _load(name: str) -> tuple[Any, Callable[..., Any]]:
    """The library's class and the class of the advertisements it takes. Raises ConfigError."""
    library = LIBRARIES[name]
    try:
        module, habluetooth = import_module(library.package), import_module("habluetooth")
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"`decoder: {name}` needs the Python package {exc.name!r} (pip install 'edged[ble-decoders]')"
        ) from exc
    for package in (library.package, "bluetooth_data_tools"):
        logging.getLogger(package).setLevel(logging.CRITICAL)
    return getattr(module, library.cls), habluetooth.BluetoothServiceInfoBleak


def _recording(cls: Any) -> Any:
    """The class, remembering in `heard` what the last `update` set."""

    class Recording(cls):  # type: ignore[misc]  # the base is only known at run time
        def __init__(self, *args: Any) -> None:
            self.heard: list[tuple[Role, str, str | None, object]] = []
            super().__init__(*args)

        def update_sensor(
            self, key: str, native_unit_of_measurement: Any, native_value: Any, *args: Any, **kw: Any
        ) -> None:
            if self.precision >= 0 and isinstance(native_value, float):
                native_value = round(native_value, self.precision)
            unit = None if native_unit_of_measurement is None else str(native_unit_of_measurement.value)
            self.heard.append(("sensor", _plain(key, args, kw), unit, native_value))
            super().update_sensor(key, native_unit_of_measurement, native_value, *args, **kw)

        def update_binary_sensor(self, key: str, native_value: Any, *args: Any, **kw: Any) -> None:
            self.heard.append(("binary", _plain(key, args, kw), None, native_value))
            super().update_binary_sensor(key, native_value, *args, **kw)

        def fire_event(self, key: str, event_type: str, event_properties: Any = None, *args: Any, **kw: Any) -> None:
            details = " ".join(str(one) for one in (event_properties or {}).values())
            self.heard.append(("event", _plain(key, args, kw), None, f"{event_type} {details}".strip()))
            super().fire_event(key, event_type, event_properties, *args, **kw)

    return Recording


def _plain(key: object, args: tuple[Any, ...], kw: Mapping[str, Any]) -> str:
    """The key as a name, with the part of the device that it is of."""
    part = kw.get("device_id", args[2] if len(args) > 2 else None)  # noqa: PLR2004  # the third of the optional ones
    text = str(getattr(key, "value", key)).lower()
    return text if part is None else f"{text}_{part}".lower().replace("-", "_").replace(" ", "_")


class LibraryDecoder:
    """Satisfies `Decoder`."""

    complete = False

    def __init__(self, name: str, key: bytes | None = None) -> None:
        """Raises ConfigError if the library is not installed."""
        cls, self._info = _load(name)
        self._cls = _recording(cls)
        self._arguments = (key,) if LIBRARIES[name].keyed else ()
        self._key = key
        self._name = name
        self._data = self._cls(*self._arguments)
        self.points: Mapping[str, Kind] = POINTS

    def reset(self) -> None:
        """Begin anew."""
        self._data = self._cls(*self._arguments)

    def supported(self, adv: Advertisement) -> bool:
        """Whether the library knows this advertisement."""
        try:
            return bool(self._cls(*self._arguments).supported(self._info_of(adv)))
        except FOREIGN:
            return False

    def decode(self, adv: Advertisement) -> Decoded | None:
        """What the library makes of it."""
        data = self._data
        data.heard.clear()
        try:
            data.update(self._info_of(adv))
            known = data.primary_device_id is not None or bool(data.get_device_name())
        except FOREIGN as exc:
            self.reset()
            return refused(f"the library for {self._name} failed: {type(exc).__name__} {exc}")
        if not known:
            return None
        return self._decoded(adv)

    def _decoded(self, adv: Advertisement) -> Decoded:
        values: dict[str, Value] = {}
        quality: dict[str, Quality] = {}
        problem = self._problem()
        for role, key, unit, value in self._data.heard:
            try:
                found = translated(role, key, unit, value)
            except ValueError as exc:
                problem = problem or str(exc)
                continue
            if found is not None:
                values[found[0]] = found[1]
                if found[1] is None:
                    quality[found[0]] = ABSENT
        packet = adv.service_data.get(_MIBEACON, b"") if self._name == "xiaomi" else b""
        number = packet[_MIBEACON_COUNTER] if len(packet) > _MIBEACON_COUNTER else None
        # What edged has no name for cannot be a configured point, so it matters only where there is nothing else.
        return Decoded(values, quality, number, "" if values else problem)

    def _problem(self) -> str:
        data = self._data
        scheme = getattr(data, "encryption_scheme", None)
        if scheme is None or scheme.value == "none":
            return ""
        if self._key is None:
            return "encrypted: the sensor needs its `bind_key`"
        return "" if data.bindkey_verified else "the `bind_key` does not fit"

    def _info_of(self, adv: Advertisement) -> Any:
        return self._info(
            name=adv.name or adv.address,
            address=adv.address,
            rssi=adv.rssi,
            manufacturer_data=dict(adv.manufacturer_data),
            service_data=dict(adv.service_data),
            service_uuids=list(adv.service_uuids),
            source="edged",
            device=None,
            advertisement=None,
            connectable=False,
            time=0.0,
            tx_power=adv.tx_power,
        )
