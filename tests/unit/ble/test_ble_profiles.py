"""Every shipped profile decodes the vectors that it brings, and takes nothing that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from edged.adapter import Name
from edged.config.load import load
from edged.pipeline import DevicePipeline
from edged_ble.config import BleDevice
from edged_ble.decoders import KNOWN
from edged_ble.profile import decoded, needs

PROFILES = sorted((Path(__file__).parents[3] / "adapters/edged_ble/profiles").glob("*.yaml"))
Make = Callable[[Mapping[str, Any]], BleDevice]


def document(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path)  # type: ignore[no-any-return]  # a profile is a mapping


def vectors() -> Iterator[Any]:
    for path in PROFILES:
        for vector in document(path)["tests"]:
            yield pytest.param(path, vector, id=f"{path.stem}-{vector['name']}")


def settings(path: Path) -> dict[str, Any]:
    profile = document(path)
    return {**needs(profile), **profile.get("device", {}), "points": profile["points"]}


def needs_library(device: BleDevice) -> None:
    package = KNOWN[device.decoder].package if device.decoder in KNOWN else ""
    if package and find_spec(package.replace("-", "_")) is None:
        pytest.skip(f"{package} is not installed: pip install 'edged[ble-decoders]'")


def test_there_are_profiles_of_a_dozen_sensors_and_of_the_standard_services() -> None:
    services = [path for path in PROFILES if path.stem.endswith("-service")]
    assert len(services) >= 5
    assert len(PROFILES) - len(services) >= 12


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_names_its_source_and_has_good_and_bad_vectors(path: Path) -> None:
    profile = document(path)
    assert profile["profile"] == path.stem
    assert len(profile["source"]) > 20
    assert profile["title"]
    assert any("values" in vector for vector in profile["tests"])
    assert any(vector.get("rejected") or vector.get("bad") for vector in profile["tests"])
    told = {point for vector in profile["tests"] for point in vector.get("values", {})}
    assert len(told) >= len(profile["points"].keys() - {"rssi", "last_seen"}) / 2


@pytest.mark.parametrize(("path", "vector"), list(vectors()))
def test_vectors(path: Path, vector: dict[str, Any], device_of: Make) -> None:
    device = device_of(settings(path))
    needs_library(device)
    found = decoded(device, vector)
    if vector.get("rejected"):
        assert not found
        return
    (computed,) = map(DevicePipeline(device.points).compute, found)
    readings = {reading.point: reading for reading in computed.readings()}
    for point, value in vector.get("values", {}).items():
        assert readings[point].quality.status != "bad", point
        assert readings[point].value == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value), point
        assert type(readings[point].value) is not bool or isinstance(value, bool)
    for point in vector.get("bad", []):
        assert readings[point].quality.status == "bad", point
        assert readings[point].value is None, point


def test_every_profile_is_found_and_accepted_by_edged_check(tmp_path: Path) -> None:
    config = tmp_path / "edged.yaml"
    devices = "".join(
        f'  {path.stem}: {{bus: radio, address: "C4:64:E3:00:00:{i:02X}", profile: {path.stem}}}\n'
        for i, path in enumerate(PROFILES)
    )
    config.write_text(f"gateway: {{id: test}}\nbuses:\n  radio: {{adapter: ble}}\ndevices:\n{devices}", "utf-8")
    loaded = load(config)
    assert not [str(problem) for problem in loaded.problems if "connections" not in str(problem)]
    assert loaded.config is not None
    assert len(loaded.config.devices) == len(PROFILES)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_point_of_a_profile_has_a_unit_or_needs_none(path: Path, device_of: Make) -> None:
    device = device_of(settings(path))
    assert device.points[Name("rssi")].unit == "dBm"
    for name in ("temperature", "humidity", "pressure", "battery"):
        if name in device.points:
            assert device.points[Name(name)].unit
