"""Every shipped profile decodes the vectors that it brings, whole and in pieces, and takes nothing that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from edged.pipeline import DevicePipeline
from edged_serial import SERIAL
from edged_serial.config import SerialDevice
from edged_serial.device import Device
from edged_serial.profile import decoded, needs
from edged_serial.simulator import Player

FOLDER = SERIAL.profiles()
assert FOLDER is not None
PROFILES = sorted(FOLDER.glob("*.yaml"))


def document(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path)  # type: ignore[no-any-return]  # a profile is a mapping


def vectors() -> Iterator[Any]:
    for path in PROFILES:
        for vector in document(path)["tests"]:
            yield pytest.param(path.stem, vector, id=f"{path.stem}-{vector['name']}")


def settings(profile: str) -> str:
    needed = needs(document(next(path for path in PROFILES if path.stem == profile)))
    return "\n".join([f"profile: {profile}", *(f"{key}: {value}" for key, value in needed.items())])


def test_there_are_a_dozen_device_types() -> None:
    assert len(PROFILES) >= 12


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_names_its_source_and_has_good_and_bad_vectors(path: Path) -> None:
    profile = document(path)
    assert len(profile["source"]) > 20
    assert profile["title"]
    assert any("values" in vector for vector in profile["tests"])
    assert any(vector.get("rejected") for vector in profile["tests"])
    assert all({"values", "bad", "rejected"} & vector.keys() for vector in profile["tests"])
    told = {point for vector in profile["tests"] for point in vector.get("values", {})}
    assert len(told) >= len(profile["points"]) / 2


@pytest.mark.parametrize("cut", [1, 7, 4096])
@pytest.mark.parametrize(("profile", "vector"), list(vectors()))
def test_vectors(profile: str, vector: dict[str, Any], cut: int, device_of: Callable[[str], SerialDevice]) -> None:
    config = device_of(settings(profile))
    pipeline = DevicePipeline(config.points)
    computed = [pipeline.compute(sample) for sample in decoded(config, vector, cut)]
    if vector.get("rejected"):
        assert not computed
        return
    readings = {reading.point: reading for sample in computed for reading in sample.readings()}
    for point, value in vector.get("values", {}).items():
        assert readings[point].quality.status == "good", point
        assert readings[point].value == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value), point
    for point in vector.get("bad", []):
        assert readings[point].quality.status == "bad", point
        assert readings[point].value is None, point


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_can_be_simulated_and_understands_its_simulation(
    path: Path, device_of: Callable[[str], SerialDevice]
) -> None:
    config = device_of(settings(path.stem))
    device = Device.compile("thing", config)
    player = Player("line", device)
    pipeline = DevicePipeline(config.points)
    for kind in device.kinds.values():
        for second in range(0, 60, 7):
            frames = kind.framer().feed(player.frame(kind, float(second)))
            if config.dialogue == "iec62056-21":
                frames = [player.frame(kind, float(second))]
            assert len(frames) == 1
            found, why = device.decode(kind, frames[0])
            assert found is not None, why
            points = [point for point in config.points if config.message_of(point) == kind.name]
            good = [
                reading
                for one in device.columns(points)
                for reading in pipeline.compute(one.sample("thing", found, 0, 0)).readings()
                if reading.quality.status == "good"
            ]
            assert good
