"""The standard formats of GATT characteristics: pure parsers.

Source: Bluetooth SIG, GATT Specification Supplement, and for the medical numbers IEEE 11073-20601.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from struct import Struct, error

from edged.adapter import Value

from .advert import Kind, ValueType, uuid_of

Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Format:
    """How the value of a standard characteristic is read."""

    name: str
    """The characteristic's name in the assigned numbers, e.g. `Battery Level`."""
    points: Mapping[str, Kind]
    """What it has."""
    main: str
    """The one of `points` that is meant when none is named."""
    parse: Callable[[bytes], Values]
    """The values. None for those the device says it does not know; those that are absent are left out.
    Raises ValueError when the bytes are not of this format."""


def sfloat(raw: int) -> float | None:
    """The 16-bit number of IEEE 11073: an exponent of 4 bits and a mantissa of 12. None where it is no number."""
    return _decimal(raw >> 12, raw & 0xFFF, 12, 4)


def ieee_float(raw: int) -> float | None:
    """The 32-bit number of IEEE 11073: an exponent of 8 bits and a mantissa of 24. None where it is no number."""
    return _decimal(raw >> 24, raw & 0xFFFFFF, 24, 8)


def _decimal(exponent: int, mantissa: int, bits: int, exponent_bits: int) -> float | None:
    half = 1 << bits - 1
    if half - 2 <= mantissa <= half + 2:
        return None  # +INFINITY, NaN, NRes, reserved, -INFINITY
    if mantissa >= half:
        mantissa -= 1 << bits
    if exponent >= 1 << exponent_bits - 1:
        exponent -= 1 << exponent_bits
    return mantissa / 10**-exponent if exponent < 0 else float(mantissa * 10**exponent)


class _Reader:
    """Takes one number after the other. Raises ValueError where the bytes end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int, *, signed: bool = False) -> int:
        part = self._data[self._at : self._at + size]
        if len(part) < size:
            raise ValueError(f"{len(self._data)} bytes are too few")
        self._at += size
        return int.from_bytes(part, "little", signed=signed)

    def pairs(self) -> Iterator[int]:
        """The rest as numbers of two bytes."""
        while self._at < len(self._data):
            yield self.take(2)

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data)} bytes, and the flags tell of {self._at}")


def _number(
    point: str, layout: str, unit: str = "", *, divisor: int = 1, absent: int | None = None, type_: ValueType = "number"
) -> tuple[Mapping[str, Kind], str, Callable[[bytes], Values]]:
    """A characteristic that is one number, in steps of 1/divisor."""
    form = Struct("<" + layout)

    def parse(data: bytes) -> Values:
        try:
            (raw,) = form.unpack(data)
        except error:
            raise ValueError(f"{len(data)} bytes instead of {form.size}") from None
        if raw == absent:
            return {point: None}
        return {point: raw if divisor == 1 else raw / divisor}

    return {point: Kind(type_, unit)}, point, parse


def _wide(
    point: str, size: int, unit: str, divisor: int, *absent: int
) -> tuple[Mapping[str, Kind], str, Callable[[bytes], Values]]:
    """The same, unsigned and of any number of bytes."""

    def parse(data: bytes) -> Values:
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes instead of {size}")
        raw = int.from_bytes(data, "little")
        return {point: None if raw in absent else raw if divisor == 1 else raw / divisor}

    return {point: Kind("number", unit)}, point, parse


def _text(point: str) -> tuple[Mapping[str, Kind], str, Callable[[bytes], Values]]:
    def parse(data: bytes) -> Values:
        try:
            return {point: data.rstrip(b"\0").decode("utf-8")}
        except UnicodeDecodeError:
            raise ValueError("the bytes are no text") from None

    return {point: Kind("text")}, point, parse


_HEALTH = {
    "temperature": Kind("number", "°C", "Converted if the device uses °F"),
    "time": Kind("text", "", "When it was measured, by the thermometer's clock"),
    "location": Kind("text", "", "Where on the body it was measured"),
}
_PLACES = {
    1: "armpit", 2: "body", 3: "ear", 4: "finger", 5: "gastrointestinal", 6: "mouth", 7: "rectum", 8: "toe",
    9: "tympanum",
}  # fmt: skip


def _health_thermometer(data: bytes) -> Values:
    reader = _Reader(data)
    flags = reader.take(1)
    degrees = ieee_float(reader.take(4))
    if degrees is not None and flags & 1:
        degrees = round((degrees - 32) * 5 / 9, 3)
    values: dict[str, Value] = {"temperature": degrees}
    if flags & 2:
        year, month, day, hour, minute, second = (reader.take(size) for size in (2, 1, 1, 1, 1, 1))
        values["time"] = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}" if year else None
    if flags & 4:
        values["location"] = _PLACES.get(reader.take(1))
    reader.end()
    return values


_HEART = {
    "heart_rate": Kind("integer", "1/min"),
    "contact": Kind("boolean", "", "The sensor touches the skin"),
    "energy_expended": Kind("integer", "kJ"),
    "rr_interval": Kind("number", "s", "Time between the last two beats"),
}


def _heart_rate(data: bytes) -> Values:
    reader = _Reader(data)
    flags = reader.take(1)
    values: dict[str, Value] = {"heart_rate": reader.take(2 if flags & 1 else 1)}
    if flags & 4:
        values["contact"] = bool(flags & 2)
    if flags & 8:
        values["energy_expended"] = reader.take(2)
    intervals = list(reader.pairs()) if flags & 16 else []
    if intervals:
        values["rr_interval"] = intervals[-1] / 1024
    reader.end()
    return values


_CYCLING = {
    "wheel_revolutions": Kind("integer", "", "All revolutions so far"),
    "wheel_time": Kind("number", "s", "When the last was complete, modulo 64 s"),
    "crank_revolutions": Kind("integer", "", "All revolutions so far, modulo 65536"),
    "crank_time": Kind("number", "s", "When the last was complete, modulo 64 s"),
}


def _cycling_speed(data: bytes) -> Values:
    reader = _Reader(data)
    flags = reader.take(1)
    values: dict[str, Value] = {}
    if flags & 1:
        values["wheel_revolutions"] = reader.take(4)
        values["wheel_time"] = reader.take(2) / 1024
    if flags & 2:
        values["crank_revolutions"] = reader.take(2)
        values["crank_time"] = reader.take(2) / 1024
    reader.end()
    return values


_RUNNING = {
    "speed": Kind("number", "m/s"),
    "cadence": Kind("integer", "1/min"),
    "stride_length": Kind("number", "m"),
    "total_distance": Kind("number", "m"),
    "running": Kind("boolean", "", "Running, not walking"),
}


def _running_speed(data: bytes) -> Values:
    reader = _Reader(data)
    flags = reader.take(1)
    values: dict[str, Value] = {"speed": reader.take(2) / 256, "cadence": reader.take(1), "running": bool(flags & 4)}
    if flags & 1:
        values["stride_length"] = reader.take(2) / 100
    if flags & 2:
        values["total_distance"] = reader.take(4) / 10
    reader.end()
    return values


_POWER = {
    "power": Kind("integer", "W"),
    "balance": Kind("number", "%", "Share of the power, of the left pedal if the device knows it"),
}


def _cycling_power(data: bytes) -> Values:
    reader = _Reader(data)
    flags = reader.take(2)
    values: dict[str, Value] = {"power": reader.take(2, signed=True)}
    if flags & 1:
        values["balance"] = reader.take(1) / 2
    # What follows depends on eleven more flags, and nobody asked for it yet.
    return values


_PRESSURE = {
    "systolic": Kind("number", "mmHg", "Converted if the device uses kPa"),
    "diastolic": Kind("number", "mmHg"),
    "mean": Kind("number", "mmHg", "Mean arterial pressure"),
}
_MMHG_PER_KPA = 7.500_615_05


def _blood_pressure(data: bytes) -> Values:
    reader = _Reader(data)
    flags = reader.take(1)
    numbers = [sfloat(reader.take(2)) for _ in range(3)]
    if flags & 1:
        numbers = [None if one is None else round(one * _MMHG_PER_KPA, 1) for one in numbers]
    return dict(zip(("systolic", "diastolic", "mean"), numbers, strict=True))


def _medical(point: str, unit: str, factor: int = 1) -> tuple[Mapping[str, Kind], str, Callable[[bytes], Values]]:
    """A characteristic that is one number of 16 bits as medical devices write it."""

    def parse(data: bytes) -> Values:
        if len(data) != 2:  # noqa: PLR2004  # an SFLOAT
            raise ValueError(f"{len(data)} bytes instead of 2")
        value = sfloat(int.from_bytes(data, "little"))
        return {point: None if value is None else value * factor}

    return {point: Kind("number", unit)}, point, parse


def _elevation(data: bytes) -> Values:
    if len(data) != 3:  # noqa: PLR2004  # an sint24
        raise ValueError(f"{len(data)} bytes instead of 3")
    return {"elevation": int.from_bytes(data, "little", signed=True) / 100}


_NO_16, _NO_24 = 0xFFFF, 0xFFFFFF
_NOT_VALID_24 = 0xFFFFFE
"""What the supplement calls "value is not valid" beside "value is not known"; only some have it."""
_TABLE: Mapping[str, tuple[str, tuple[Mapping[str, Kind], str, Callable[[bytes], Values]]]] = {
    "2A00": ("Device Name", _text("device_name")),
    "2A19": ("Battery Level", _number("battery", "B", "%", type_="integer")),
    "2A1C": ("Temperature Measurement", (_HEALTH, "temperature", _health_thermometer)),
    "2A1E": ("Intermediate Temperature", (_HEALTH, "temperature", _health_thermometer)),
    "2A1F": ("Temperature Celsius", _number("temperature", "h", "°C", divisor=10)),
    "2A24": ("Model Number String", _text("model")),
    "2A25": ("Serial Number String", _text("serial_number")),
    "2A26": ("Firmware Revision String", _text("firmware")),
    "2A27": ("Hardware Revision String", _text("hardware")),
    "2A28": ("Software Revision String", _text("software")),
    "2A29": ("Manufacturer Name String", _text("manufacturer")),
    "2A35": ("Blood Pressure Measurement", (_PRESSURE, "systolic", _blood_pressure)),
    "2A37": ("Heart Rate Measurement", (_HEART, "heart_rate", _heart_rate)),
    "2A53": ("RSC Measurement", (_RUNNING, "speed", _running_speed)),
    "2A5B": ("CSC Measurement", (_CYCLING, "wheel_revolutions", _cycling_speed)),
    "2A63": ("Cycling Power Measurement", (_POWER, "power", _cycling_power)),
    "2A6C": ("Elevation", ({"elevation": Kind("number", "m")}, "elevation", _elevation)),
    "2A6D": ("Pressure", _number("pressure", "I", "hPa", divisor=1000)),
    "2A6E": ("Temperature", _number("temperature", "h", "°C", divisor=100, absent=-0x8000)),
    "2A6F": ("Humidity", _number("humidity", "H", "%", divisor=100, absent=_NO_16)),
    "2A70": ("True Wind Speed", _number("wind_speed", "H", "m/s", divisor=100)),
    "2A71": ("True Wind Direction", _number("wind_direction", "H", "°", divisor=100)),
    "2A72": ("Apparent Wind Speed", _number("wind_speed", "H", "m/s", divisor=100)),
    "2A73": ("Apparent Wind Direction", _number("wind_direction", "H", "°", divisor=100)),
    "2A76": ("UV Index", _number("uv_index", "B", type_="integer")),
    "2A77": ("Irradiance", _number("irradiance", "H", "W/m²", divisor=10)),
    "2A78": ("Rainfall", _number("rainfall", "H", "mm")),
    "2A79": ("Wind Chill", _number("wind_chill", "b", "°C")),
    "2A7A": ("Heat Index", _number("heat_index", "b", "°C")),
    "2A7B": ("Dew Point", _number("dew_point", "b", "°C")),
    "2AEE": ("Electric Current", _number("current", "H", "A", divisor=100, absent=_NO_16)),
    "2AF2": ("Energy", _wide("energy", 3, "kWh", 1, _NO_24)),
    "2AFB": ("Illuminance", _wide("illuminance", 3, "lx", 100, _NO_24)),
    "2B05": ("Power", _wide("power", 3, "W", 10, _NO_24, _NOT_VALID_24)),
    "2B18": ("Voltage", _number("voltage", "H", "V", divisor=64, absent=_NO_16)),
    "2B8C": ("CO2 Concentration", _number("co2", "H", "ppm", absent=_NO_16)),
    "2BD3": ("Non-Methane Volatile Organic Compounds Concentration", _medical("voc", "kg/m³")),
    "2BD5": ("Particulate Matter - PM1 Concentration", _medical("pm1", "kg/m³")),
    "2BD6": ("Particulate Matter - PM2.5 Concentration", _medical("pm2_5", "kg/m³")),
    "2BD7": ("Particulate Matter - PM10 Concentration", _medical("pm10", "kg/m³")),
}
FORMATS: Mapping[str, Format] = {
    uuid_of(short): Format(name, points, main, parse) for short, (name, (points, main, parse)) in _TABLE.items()
}
"""By the characteristic's UUID as `uuid_of` writes it."""
