"""The profiles that are shipped: each loads, can be planned, and decodes its own test vectors."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

import edged_modbus
from edged_modbus.codec import compile_decoder
from edged_modbus.config import ModbusDevice, ModbusPoint
from edged_modbus.planner import line_costs, network_costs, plan
from edged_modbus.profile import problems

FOLDER = Path(edged_modbus.__file__).parent / "profiles"
FILES = sorted(FOLDER.glob("*.yaml"))
KEYS = {"profile", "title", "vendor", "models", "source", "device", "points", "tests", "fingerprint"}


@functools.cache
def load(path: Path) -> dict[str, Any]:
    profile: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return profile


@functools.cache
def shipped(path: Path) -> ModbusDevice:
    return device_of(load(path))


def device_of(profile: dict[str, Any]) -> ModbusDevice:
    settings = {"bus": "b", **profile.get("device", {}), "points": profile.get("points", {})}
    return TypeAdapter(ModbusDevice).validate_python(settings)


def points_of(device: ModbusDevice) -> dict[str, ModbusPoint]:
    return {str(name): point for name, point in device.points.items()}


def test_the_promised_number_and_kinds_of_devices_are_there() -> None:
    assert len(FILES) >= 70
    names = {path.stem for path in FILES}
    assert {
        "abb-b23", "carlo-gavazzi-em340", "eastron-sdm72-v2", "janitza-umg604", "schneider-iem3155", "siemens-pac2200",
        "huawei-sun2000", "sungrow-sh", "kostal-plenticore", "nibe-s-series", "daikin-homehub", "keba-p30", "pzem-004t",
        "xy-md02", "moxa-iologik-e1210", "waveshare-relay-8ch", "sunspec",
    } <= names  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_profile_says_what_it_is_and_where_it_is_from(path: Path) -> None:
    profile = load(path)
    assert profile["profile"] == path.stem
    assert set(profile) <= KEYS
    assert all(profile[key] for key in ("title", "vendor", "models", "source"))
    assert len(profile["source"]) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_point_of_a_profile_has_a_test_vector_that_comes_out_right(path: Path) -> None:
    profile = load(path)
    assert not list(problems(profile, shipped(path)))
    assert profile["tests"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("costs", [network_costs(), line_costs(9600)], ids=["network", "line"])
def test_a_profile_can_be_read_within_the_limits_it_states(path: Path, costs: Any) -> None:
    device = shipped(path)
    planned = plan({name: point.span for name, point in device.points.items()}, costs, device.limits)
    assert not planned.unreadable
    assert sorted(name for block in planned.blocks for name in block.points) == sorted(device.points)
    for block in planned.blocks:
        assert block.count <= (device.max_coils if block.table.is_bits else device.max_registers)
        assert compile_decoder(block, points_of(device)).points == block.points


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_units_are_the_same_in_all_profiles(path: Path) -> None:
    units = {"voltage": "V", "current": "A", "power": "W", "frequency": "Hz", "energy": "kWh", "apparent": "VA"}
    for name, point in shipped(path).points.items():
        kind = name.split("_")[0]
        if not name.startswith("power_factor"):
            assert point.unit == units.get(kind, point.unit), name


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"points": {"a": {"input": 0, "type": "uint32"}, "b": {"input": 1}}}, ("error", "points.b", "overlaps a")),
        ({"points": {"a": {"input": 0}, "b": {"input": 0}}}, ("warning", "points.b", "the same as a")),
        ({"points": {"a": {"input": 0}, "b": {"input": 1}}}, ("warning", "points.b", "no vector")),
        ({"points": {"a": {"input": 0, "range": (70000, 80000)}}}, ("error", "points.a.range", "impossible")),
        ({"device": {"avoid": ["input 0"]}}, ("error", "points.a", "cannot be read")),
        ({"tests": [{"registers": {"input 0": [1]}, "expect": {"a": 2}}]}, ("error", "tests.0.expect.a", "is 1.0")),
        ({"tests": [{"registers": {"input 0": [1]}, "expect": {"x": 2}}]}, ("error", "tests.0.expect.x", "no such")),
        ({"tests": [{"registers": {"input 1": [1]}, "expect": {"a": 2}}]}, ("error", "tests.0.expect.a", "lacks")),
        ({"tests": [{"expect": {"a": 1}}]}, ("error", "tests.0", "`registers` and `expect`")),
        ({"fingerprint": [{"input": 0, "equals": 7}]}, ("error", "fingerprint", "no vector has")),
        ({"fingerprint": [{"input": 0}]}, ("error", "fingerprint", "exactly one")),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_profile_is_found(changed: dict[str, Any], told: tuple[str, str, str]) -> None:
    sound = {"points": {"a": {"input": 0}}, "tests": [{"registers": {"input 0": [5]}, "expect": {"a": 5}}]}
    assert not list(problems(sound, device_of(sound)))
    profile = sound | changed
    found = [
        (severity, ".".join(map(str, keys)), text) for severity, keys, text in problems(profile, device_of(profile))
    ]
    assert any((one[:2] == told[:2] and told[2] in one[2]) for one in found), found
