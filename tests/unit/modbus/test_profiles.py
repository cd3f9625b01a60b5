"""The profiles that are shipped: each loads, can be planned, and decodes its own test vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

import edged_modbus
from edged_modbus import fingerprint
from edged_modbus.codec import compile_decoder
from edged_modbus.config import ModbusDevice, ModbusPoint
from edged_modbus.planner import Block, Span, line_costs, network_costs, plan

FOLDER = Path(edged_modbus.__file__).parent / "profiles"
FILES = sorted(FOLDER.glob("*.yaml"))


def load(path: Path) -> dict[str, Any]:
    profile: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return profile


def device_of(profile: dict[str, Any]) -> ModbusDevice:
    settings = {"bus": "b", **profile.get("device", {}), "points": profile["points"]}
    return TypeAdapter(ModbusDevice).validate_python(settings)


def points_of(device: ModbusDevice) -> dict[str, ModbusPoint]:
    return {str(name): point for name, point in device.points.items()}


def memory_of(vector: dict[str, Any]) -> dict[tuple[str, int], Any]:
    memory: dict[tuple[str, int], Any] = {}
    for where, words in vector["registers"].items():
        start = Span.parse(where)
        memory |= {(start.table, start.start + i): word for i, word in enumerate(words)}
    return memory


def value_of(point: ModbusPoint, memory: dict[tuple[str, int], Any]) -> Any:
    """The value in engineering units."""
    decoder = compile_decoder(Block(point.table, point.start, point.count, ("p",)), {"p": point})
    words = [memory[point.table, point.start + i] for i in range(point.count)]
    ((value,), _) = decoder.decode_bits(words) if point.table.is_bits else decoder.decode_registers(words)
    if value is None or isinstance(value, bool | str):
        return value
    return value * point.scale + point.offset


def test_the_promised_devices_are_there() -> None:
    names = {path.stem for path in FILES}
    assert {
        "abb-b23",
        "carlo-gavazzi-em24",
        "eastron-sdm120",
        "eastron-sdm630",
        "janitza-umg96rm",
        "schneider-iem3155",
    } <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_profile_says_what_it_is_and_where_it_is_from(path: Path) -> None:
    profile = load(path)
    assert profile["profile"] == path.stem
    assert set(profile) <= {
        "profile",
        "title",
        "vendor",
        "models",
        "source",
        "device",
        "points",
        "tests",
        "fingerprint",
    }
    assert all(profile[key] for key in ("title", "vendor", "models", "source"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_point_of_a_profile_has_a_test_vector_that_comes_out_right(path: Path) -> None:
    profile = load(path)
    points = points_of(device_of(profile))
    tested = set()
    for vector in profile["tests"]:
        memory = memory_of(vector)
        for name, expected in vector["expect"].items():
            got = value_of(points[name], memory)
            assert type(got) is type(expected), name
            assert got == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected), name
            tested.add(name)
    assert tested == set(points)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("costs", [network_costs(), line_costs(9600)], ids=["network", "line"])
def test_a_profile_can_be_read_within_the_limits_it_states(path: Path, costs: Any) -> None:
    device = device_of(load(path))
    planned = plan({name: point.span for name, point in device.points.items()}, costs, device.limits)
    assert not planned.unreadable
    assert sorted(name for block in planned.blocks for name in block.points) == sorted(device.points)
    for block in planned.blocks:
        assert block.count <= (device.max_coils if block.table.is_bits else device.max_registers)
        assert compile_decoder(block, points_of(device)).points == block.points


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_units_are_the_same_in_all_profiles(path: Path) -> None:
    units = {"voltage": "V", "current": "A", "power": "W", "frequency": "Hz", "energy": "kWh", "apparent": "VA"}
    for name, point in device_of(load(path)).points.items():
        kind = name.split("_")[0]
        if not name.startswith("power_factor"):
            assert point.unit == units.get(kind, point.unit), name


@pytest.mark.parametrize("path", [path for path in FILES if "fingerprint" in load(path)], ids=lambda path: path.stem)
def test_the_fingerprint_of_a_profile_fits_the_device_its_own_vectors_describe(path: Path) -> None:
    profile = load(path)
    clauses = fingerprint.parse(profile["fingerprint"], profile.get("device", {}).get("order")).clauses
    memories = [memory_of(vector) for vector in profile["tests"]]
    for clause in clauses:
        cells = [(clause.point.table, clause.point.start + i) for i in range(clause.point.count)]
        told = [[memory[cell] for cell in cells] for memory in memories if all(cell in memory for cell in cells)]
        assert told, f"no vector has {clause.span}: give one with what such a device has there"
        assert any(clause.holds(words) for words in told), clause
