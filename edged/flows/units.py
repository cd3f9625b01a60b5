"""The units of the field and how they turn into each other. Pure.

Each unit is a factor and an offset to the base unit of its quantity: base = value * factor + offset.
Sources: SI brochure (9th ed.), NIST SP 811 appendix B for the units beside the SI.
"""

from __future__ import annotations

from difflib import get_close_matches

_QUANTITIES: dict[str, dict[str, float | tuple[float, float]]] = {
    "temperature": {"°C": (1.0, 273.15), "K": 1.0, "°F": (5 / 9, 459.67 * 5 / 9)},
    "pressure": {
        "Pa": 1.0, "hPa": 100.0, "kPa": 1e3, "MPa": 1e6, "mbar": 100.0, "bar": 1e5, "psi": 6894.757293168361,
        "atm": 101_325.0, "mmHg": 133.322387415, "inHg": 3386.388640341, "mmH2O": 9.80665, "inH2O": 249.08891,
    },
    "energy": {
        "J": 1.0, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "Wh": 3600.0, "kWh": 3.6e6, "MWh": 3.6e9, "GWh": 3.6e12,
        "kcal": 4186.8, "BTU": 1055.05585262,
    },
    "power": {"mW": 1e-3, "W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9,
        "hp": 745.6998715822702, "BTU/h": 0.2930710701722},
    "apparent power": {"VA": 1.0, "kVA": 1e3, "MVA": 1e6},
    "reactive power": {"var": 1.0, "kvar": 1e3, "Mvar": 1e6},
    "reactive energy": {"varh": 1.0, "kvarh": 1e3, "Mvarh": 1e6},
    "voltage": {"µV": 1e-6, "mV": 1e-3, "V": 1.0, "kV": 1e3},
    "current": {"µA": 1e-6, "mA": 1e-3, "A": 1.0, "kA": 1e3},
    "resistance": {"mΩ": 1e-3, "Ω": 1.0, "kΩ": 1e3, "MΩ": 1e6},
    "frequency": {"mHz": 1e-3, "Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "rpm": 1 / 60, "1/min": 1 / 60},
    "length": {
        "µm": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3, "in": 0.0254, "ft": 0.3048, "yd": 0.9144,
        "mi": 1609.344,
    },
    "area": {"mm²": 1e-6, "cm²": 1e-4, "m²": 1.0, "ha": 1e4, "km²": 1e6, "ft²": 0.09290304},
    "volume": {
        "ml": 1e-6, "mL": 1e-6, "l": 1e-3, "L": 1e-3, "m³": 1.0, "m3": 1.0, "gal": 0.003785411784,
        "ft³": 0.028316846592,
    },
    "flow": {
        "m³/s": 1.0, "m³/h": 1 / 3600, "m3/h": 1 / 3600, "l/s": 1e-3, "l/min": 1e-3 / 60, "l/h": 1e-3 / 3600,
        "L/s": 1e-3, "L/min": 1e-3 / 60, "L/h": 1e-3 / 3600, "gpm": 0.003785411784 / 60, "cfm": 0.028316846592 / 60,
    },
    "mass": {"mg": 1e-6, "g": 1e-3, "kg": 1.0, "t": 1e3, "oz": 0.028349523125, "lb": 0.45359237},
    "mass flow": {"kg/s": 1.0, "kg/h": 1 / 3600, "t/h": 1 / 3.6, "lb/h": 0.45359237 / 3600},
    "speed": {"m/s": 1.0, "km/h": 1 / 3.6, "mph": 0.44704, "kn": 1852 / 3600, "ft/min": 0.00508},
    "time": {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0},
    "share": {"1": 1.0, "%": 1e-2, "‰": 1e-3, "ppm": 1e-6, "ppb": 1e-9},
    "data": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1024.0, "MiB": 2.0**20, "GiB": 2.0**30},
    "angle": {"rad": 1.0, "°": 0.017453292519943295, "deg": 0.017453292519943295},
}  # fmt: skip
_OTHER_NAMES = {
    "C": "°C",
    "degC": "°C",
    "F": "°F",
    "degF": "°F",
    "ohm": "Ω",
    "kohm": "kΩ",
    "m^3/h": "m³/h",
    "m^3": "m³",
}


def linear(source: str, target: str) -> tuple[float, float]:
    """(a, b) with target = source * a + b. Raises ValueError if there is no such conversion."""
    if source == target:
        return 1.0, 0.0
    quantity, (factor, offset) = _unit(source)
    other, (target_factor, target_offset) = _unit(target)
    if quantity != other:
        raise ValueError(f"{source} is a unit of {quantity} and {target} one of {other}: they do not convert")
    return _tidy(factor / target_factor), _tidy((offset - target_offset) / target_factor)


def _tidy(number: float) -> float:
    """Without the last digits, which are the division's: 32 and not 31.99999999999994."""
    return float(f"{number:.13g}")


def known(unit: str) -> bool:
    """Whether there are conversions of it."""
    return any(_OTHER_NAMES.get(unit, unit) in units for units in _QUANTITIES.values())


def _unit(name: str) -> tuple[str, tuple[float, float]]:
    name = _OTHER_NAMES.get(name, name)
    for quantity, units in _QUANTITIES.items():
        if name in units:
            size = units[name]
            return quantity, size if isinstance(size, tuple) else (size, 0.0)
    names = [one for units in _QUANTITIES.values() for one in units]
    close = get_close_matches(name, names, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(f"{name!r} is not a unit that can be converted{hint}")
