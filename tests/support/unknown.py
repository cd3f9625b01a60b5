"""Unknown Modbus devices, made at random: maps of registers in one style, as manufacturers make them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from edged_modbus.encode import encode_value
from edged_modbus.planner import Table
from edged_modbus.point import ModbusPoint

QUANTITIES = (
    # name, lowest, highest, how far it moves between two looks, digits behind the point on the display
    ("voltage", 218.0, 241.0, 6.0, 1),
    ("current", 0.4, 62.0, 6.0, 2),
    ("power", 150.0, 14_000.0, 2_500.0, 0),
    ("export", -9_000.0, -200.0, 1_500.0, 0),
    ("frequency", 49.9, 50.1, 0.05, 2),
    ("temperature", 12.0, 75.0, 8.0, 1),
    ("outside", -19.0, -3.0, 3.0, 1),
    ("energy", 900.0, 480_000.0, 700.0, 1),
    ("pressure", 0.8, 9.5, 1.0, 2),
    ("flow", 4.0, 900.0, 120.0, 1),
)
_EXPONENTS = {"voltage": -1, "current": -2, "power": 0, "export": 0, "frequency": -2, "temperature": -1, "outside": -1,
              "energy": -1, "pressure": -2, "flow": -1}  # fmt: skip
_LONG = ("ABCD", "CDAB", "BADC", "DCBA")


@dataclass(frozen=True, slots=True)
class Quantity:
    """One value of a device: where it lies, and what the display and the registers showed at each look."""

    name: str
    point: ModbusPoint
    shown: tuple[str, ...]
    real: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A device, and its registers at each look."""

    quantities: tuple[Quantity, ...]
    images: tuple[Mapping[Table, Mapping[int, int]], ...]


def unknown_device(seed: int, looks: int = 2) -> Unknown:
    """A device with 15 to 60 values, the same for each seed."""
    rng = random.Random(seed)
    table = rng.choice(("holding", "input"))
    style = rng.choices(("short", "long", "float", "double", "mixed"), weights=(5, 4, 5, 1, 2))[0]
    order = rng.choices(_LONG, weights=(6, 4, 1, 1))[0]
    at = rng.choice((0, 1, 99, 100, 256, 4096, 0x5B00, 19_000, 40_000))
    has_frequency = False  # of the mains: there is one
    moving = rng.random() < 0.5  # whether values move between the display and the reading
    quantities, words = [], [{} for _ in range(looks)]  # type: list[Quantity], list[dict[int, int]]
    for _ in range(rng.randrange(15, 60)):
        kind = rng.choice([one for one in QUANTITIES if one[0] != "frequency" or not has_frequency])
        has_frequency = has_frequency or kind[0] == "frequency"
        point = _point(rng, style, kind[0], kind[1] < 0 or rng.random() < 0.2, table, at, order)
        quantity = _quantity(rng, kind, point, looks, moving=moving)
        quantities.append(quantity)
        for image, real in zip(words, quantity.real, strict=True):
            raw: Any = real / point.scale
            encoded = encode_value(point, raw if point.data_type.startswith("float") else round(raw))
            image.update(zip(range(at, at + point.count), encoded, strict=True))
        at += point.count
        gap = rng.choice((0, 0, 0, 0, 0, 1, 2, 7))
        for i in range(gap if rng.random() < 0.5 else 0):  # registers that are there and say nothing
            for image in words:
                image[at + i] = rng.choice((0, 0, 0, 0xFFFF))
        at += gap
    return Unknown(tuple(quantities), tuple({Table(table): image} for image in words))


def _point(rng: random.Random, style: str, name: str, signed: bool, table: str, at: int, order: str) -> ModbusPoint:
    if style == "mixed":
        style = rng.choice(("short", "long", "float"))
    if style == "short" and name == "energy":
        style = "long"
    place: dict[str, Any] = {table: at}
    sign = "int" if signed else "uint"
    if style in {"float", "double"}:
        exponent = rng.choice((0, 0, 0, 3)) if name in {"power", "export", "energy"} else 0
        type_ = "float32" if style == "float" else "float64"
    elif style == "long":
        exponent, type_ = _EXPONENTS[name] - (rng.random() < 0.3), f"{sign}32"
    else:
        return ModbusPoint(**place, type=cast("Any", f"{sign}16"), scale=10.0 ** _EXPONENTS[name])
    return ModbusPoint(**place, type=cast("Any", type_), order=cast("Any", order), scale=10.0**exponent)


def _quantity(
    rng: random.Random, kind: tuple[str, float, float, float, int], point: ModbusPoint, looks: int, *, moving: bool
) -> Quantity:
    name, low, high, step, digits = kind
    real = [rng.uniform(low, high)]
    while len(real) < looks:
        moved = real[-1] + rng.choice((-1, 1)) * rng.uniform(0.3, 1) * step
        real.append(min(max(moved, low), high))
    shown = [value + rng.uniform(-1, 1) * min(0.02 * step, 0.004 * abs(value)) * moving for value in real]
    return Quantity(name, point, tuple(f"{value:.{digits}f}" for value in shown), tuple(real))
