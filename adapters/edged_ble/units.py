"""What the libraries' values are called here, and in which unit: the one place that says so.

The libraries name values by a key and have a word for each unit. Here a value has one name and one unit whatever sensor
it comes from. What they give in another unit is converted; a unit that is not known is never passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from edged.adapter import Value

from .codecs.advert import Kind, ValueType

Role = Literal["sensor", "binary", "event"]
"""What the library takes a value for."""

_SENSORS: Mapping[str, str] = {
    "acceleration": "m/s²", "acceleration_total": "m/s²", "acceleration_x": "m/s²", "acceleration_y": "m/s²",
    "acceleration_z": "m/s²", "ambient_temperature": "°C", "battery": "%", "case_battery": "%", "channel": "",
    "co2": "ppm", "conductivity": "µS/cm", "consumable": "%", "count": "", "counter": "", "current": "A",
    "dew_point": "°C", "direction": "°", "distance": "m", "duration": "s", "duration_cleared": "s",
    "duration_detected": "s", "energy": "kWh", "formaldehyde": "mg/m³", "gas": "m³", "gyroscope": "°/s",
    "heart_rate": "1/min", "humidity": "%", "iaqs": "", "illuminance": "lx", "impedance": "Ω", "impedance_high": "Ω",
    "impedance_low": "Ω", "internal_center_temperature": "°C", "internal_end_temperature": "°C",
    "internal_temperature": "°C", "light_level": "", "low_temperature_alarm": "°C", "mass": "kg", "mass_lb": "lb",
    "mass_non_stabilized": "kg", "moisture": "%", "movement_counter": "", "nox_index": "", "pm1": "µg/m³",
    "pm10": "µg/m³", "pm2_5": "µg/m³", "pm4": "µg/m³", "power": "W", "precipitation": "mm", "pressure": "hPa",
    "pressure_not_present_duration": "s", "pressure_present_duration": "s", "probe_battery": "%", "profile_id": "",
    "rotation": "°", "rotational_speed": "rpm", "score": "", "settings_revision": "",
    "speed": "m/s",
    "temperature": "°C", "temperature_alarm": "°C", "timestamp": "s", "tvoc": "µg/m³", "uv_index": "",
    "voc_index": "",
    "voltage": "V", "volume": "L", "volume_flow_rate": "m³/h", "volume_storage": "L", "water": "L",
}  # fmt: skip
"""Name → unit."""
_TEXTS = ("charging_state", "key_id", "lock_method", "raw", "text")
_BINARIES = (
    "antilock", "armed", "asleep", "battery_charging", "battery_low", "bottom_submersion", "carbon_monoxide",
    "childlock", "cold", "connectivity", "device_forcibly_removed", "door", "door_left_open", "door_stuck",
    "fingerprint", "garage_door", "gas_detected", "generic_boolean", "heat", "knock_on_the_door", "light", "lock",
    "moisture_detected", "motion", "moving", "occupancy", "opening", "plug", "power_on", "presence", "problem",
    "pry_the_door", "running", "safety", "smoke", "sound", "stabilized", "tamper", "toothbrush", "top_splash",
    "vibration", "wearing", "window",
)  # fmt: skip
_EVENTS = (
    "button", "command", "cube", "dimmer", "error", "fingerprint_event", "lock_event", "motion_event", "switch",
    "vibration_event", "window_event",
)  # fmt: skip


def _kinds() -> dict[str, Kind]:
    kinds: dict[str, Kind] = {name: Kind("number", unit) for name, unit in _SENSORS.items()}
    groups: tuple[tuple[tuple[str, ...], ValueType, bool], ...] = (
        (_TEXTS, "text", False), (_BINARIES, "boolean", False), (_EVENTS, "text", True),
    )  # fmt: skip
    for names, type_, event in groups:
        kinds.update(dict.fromkeys(names, Kind(type_, event=event)))
    return dict(sorted(kinds.items()))


POINTS: Mapping[str, Kind] = _kinds()
"""All that the libraries can yield. Where a sensor has several, such as `temperature_probe_1`, the beginning counts."""

_NAMES: Mapping[Role, Mapping[str, str]] = {
    "sensor": {
        "carbon_dioxide": "co2", "pm25": "pm2_5", "volatile_organic_compounds": "tvoc",
    },
    "binary": {
        "battery": "battery_low", "gas": "gas_detected", "generic": "generic_boolean", "moisture": "moisture_detected",
        "power": "power_on",
    },
    "event": {
        "fingerprint": "fingerprint_event", "lock": "lock_event", "motion": "motion_event",
        "vibration": "vibration_event", "window": "window_event",
    },
}  # fmt: skip
_OF_ROLE: Mapping[Role, frozenset[str]] = {
    "sensor": frozenset((*_SENSORS, *_TEXTS)), "binary": frozenset(_BINARIES), "event": frozenset(_EVENTS),
}  # fmt: skip
_DROPPED = frozenset({"signal_strength", "packet_id"})
"""The radio's own, which every device has as `rssi`, and the number that tells repetitions."""


def _fahrenheit(value: float) -> float:
    return round((value - 32) * 5 / 9, 2)


_CONVERSIONS: Mapping[tuple[str, str], Callable[[float], float]] = {
    ("mbar", "hPa"): float,
    ("Pa", "hPa"): lambda value: value / 100,
    ("kPa", "hPa"): lambda value: value * 10,
    ("°F", "°C"): _fahrenheit,
    ("mV", "V"): lambda value: value / 1000,
    ("mL", "L"): lambda value: value / 1000,
    ("mm", "m"): lambda value: value / 1000,
    ("ohm", "Ω"): float,
    ("min", "s"): lambda value: value * 60,
    ("g", "kg"): lambda value: value / 1000,
    ("UV index", ""): float,
    ("bpm", "1/min"): float,
}


def base_of(name: str, points: Mapping[str, Kind]) -> str | None:
    """The entry of `points` that a name such as `temperature_probe_1` belongs to: its longest beginning."""
    while name not in points:
        name, mark, _ = name.rpartition("_")
        if not mark:
            return None
    return name


def translated(role: Role, key: str, unit: str | None, value: object) -> tuple[str, Value] | None:
    """Our name and value of a library's. None for what is not passed on.

    Raises ValueError for a value or a unit that this table does not know.
    """
    if key in _DROPPED:
        return None
    head, tail = _split(role, key)
    name = head + tail
    base = base_of(name, POINTS)
    if base is None:
        raise ValueError(f"the library calls a value {key!r}, which edged does not know")
    if unit == "lb" and base == "mass":
        base, name = "mass_lb", "mass_lb" + name.removeprefix("mass")
    kind = POINTS[base]
    if value is None:
        return name, None
    if kind.type != "number":
        return name, bool(value) if kind.type == "boolean" else str(value)
    if isinstance(value, datetime):
        return name, value.timestamp()
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        raise ValueError(f"the library gives {value!r} for {key!r}, which is no number")  # noqa: TRY004  # the caller knows one error
    if (unit or "") == kind.unit:
        return name, value
    convert = _CONVERSIONS.get((unit or "", kind.unit))
    if convert is None:
        raise ValueError(f"the library gives {key!r} in {unit!r}, and edged has no conversion to {kind.unit!r}")
    return name, convert(value)


def _split(role: Role, key: str) -> tuple[str, str]:
    """Our word for the longest beginning of the key that has one, and the rest."""
    head = key
    while head:
        if head in _NAMES[role]:
            return _NAMES[role][head], key[len(head) :]
        if head in _OF_ROLE[role]:
            break
        head = head.rpartition("_")[0]
    return key, ""
