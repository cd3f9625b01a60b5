"""From YAML to the configuration the daemon uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edged.config.base import LinearMap
from edged.config.load import Loaded, load
from edged.config.types import Duration, Name, Secret

HEAD = "gateway: {id: plant-7}\nbuses:\n  lab: {adapter: sim}\n  plc: {adapter: modbus-tcp, host: 192.0.2.10}\n"


def loaded(folder: Path, text: str, **environ: str) -> Loaded:
    path = folder / "edged.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ=environ)


def device(folder: Path, settings: str) -> Any:
    """The one device, validated; fails with what was said about it."""
    result = loaded(folder, f"{HEAD}devices:\n  d: {settings}\n")
    assert result.config is not None, [str(problem) for problem in result.problems]
    return result.config.devices["d"]


def errors(folder: Path, settings: str) -> list[str]:
    result = loaded(folder, f"{HEAD}devices:\n  d: {settings}\n")
    assert result.config is None
    return [f"{problem.path}: {problem.message}" for problem in result.problems if problem.severity == "error"]


def test_a_whole_configuration(tmp_path: Path) -> None:
    result = loaded(
        tmp_path,
        HEAD + "buffer: {flush: 500ms, max_bytes: 64MB}\n"
        "devices:\n  chiller: {bus: plc, every: 500ms, labels: {room: plant}, points: {\n"
        "    supply: {holding: 100, type: float32, order: CDAB, unit: °C, range: [-40, 120], deadband: 1%},\n"
        "    level: {input: 0x10, map: {raw: [4, 20], to: [0, 10]}, every: 1m}}}\n"
        "connections:\n  cloud: {connector: mqtt, url: mqtts://b, username: u, password: !secret mqtt}\n",
    )
    config = result.config
    assert config is not None, result.problems
    assert (config.gateway.id, config.buffer.flush, config.buffer.max_bytes) == ("plant-7", 0.5, 64_000_000)
    chiller: Any = config.devices["chiller"]
    assert (chiller.every, chiller.labels, type(chiller.bus)) == (Duration(0.5), {"room": "plant"}, Name)
    assert (chiller.points["supply"].range, chiller.points["supply"].deadband) == ((-40.0, 120.0), "1%")
    assert (chiller.points["level"].input, chiller.points["level"].every) == (16, Duration(60))
    assert chiller.points["level"].map == LinearMap(raw=(4, 20), to=(0, 10))
    connection: Any = config.connections["cloud"]
    assert connection.password == Secret(name="mqtt")
    assert result.files == [tmp_path / "edged.yaml"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('scale: "2"', 'must be a number, not "2": write 2 without quotes'),
        ("scale: true", "must be a number, not `true`"),
        ("decimals: 1.0", "must be a whole number, not `1.0`: write 1"),
        ("decimals: true", "must be a whole number, not `true`"),
        ("writable: 1", "must be `true` or `false`, not `1`: write true without quotes"),
        ('writable: "true"', 'must be `true` or `false`, not "true": write true without quotes'),
        ("writable: yes", "must be `true` or `false`, not `yes`: write true without quotes"),
        ("unit: 5", 'must be text, not `5`: write "5" with quotes'),
        ("unit: true", 'must be text, not `true`: write "true" with quotes'),
        ("every: 5", "a duration needs a unit: write 5s or 5ms"),
        ("range: 5", "must be a list such as [a, b], not `5`"),
        ("range: [1, 2, 3]", "must have at most 2 values, and has 3"),
        ("range: {a: 1}", "must be a list such as [a, b], not a mapping"),
        ("map: [1, 2]", "must be a mapping of `key: value` lines, not a list"),
        ("scale: 1,5", "is it meant as part of a number"),
        ("unit: !secret x", "a secret cannot be used here"),
        ("description: ", "has no value"),
        ("scale: 2, map: {raw: [0, 1], to: [0, 1]}", "use either `map` or `scale` and `offset`, not both"),
    ],
)  # fmt: skip
def test_nothing_is_guessed(tmp_path: Path, setting: str, said: str) -> None:
    found = errors(tmp_path, f"{{bus: lab, points: {{p: {{{setting}}}}}}}")
    assert any(said in one for one in found), found


def test_a_whole_number_will_do_for_a_number(tmp_path: Path) -> None:
    assert device(tmp_path, "{bus: lab, points: {p: {scale: 2, range: [0, 1]}}}").points["p"].range == (0.0, 1.0)


def test_words_for_numbers_have_whole_numbers_as_keys(tmp_path: Path) -> None:
    found = device(
        tmp_path, "{bus: plc, points: {p: {holding: 1, flags: {0x01: a, 3: b}}, q: {holding: 2, enum: {0: off}}}}"
    )
    assert found.points["p"].flags == {1: "a", 3: "b"}
    assert found.points["q"].enum == {0: "off"}


def test_problems_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    result = loaded(tmp_path, "conections: {}\nbuses: {a: {adapter: x}}\ngateway: {id: 5}\n")
    assert [problem.mark.line for problem in result.problems] == [1, 2, 3]


def test_after_a_syntax_error_nothing_is_said_about_what_is_missing(tmp_path: Path) -> None:
    result = loaded(tmp_path, "gateway: {id: a}\nbuses: {\n")
    assert len(result.problems) == 1


def test_without_a_near_word_all_there_are_is_listed(tmp_path: Path) -> None:
    result = loaded(
        tmp_path,
        f"{HEAD}  x: {{host: a}}\n  y: {{adapter: canopener}}\ndevices:\n  d: {{bus: plc, profile: nothing-like-it}}\n",
    )
    found = {problem.path: problem.message for problem in result.problems if problem.severity == "error"}
    assert found["buses.x"].startswith("`adapter` is missing; there are: ")
    assert "modbus-rtu-over-tcp, modbus-tcp, " in found["buses.x"]
    assert found["buses.y.adapter"].startswith("there is no adapter `canopener`; there are: ")
    assert "abb-b21, abb-b23, " in found["devices.d.profile"]


# -- profiles --------------------------------------------------------------------------------------------------------

PROFILE = """\
profile: mine
title: Mine
device: {every: 5s, labels: {maker: acme, room: none}, retries: 3}
points:
  a: {holding: 1, unit: V, deadband: 1}
  b: {holding: 2}
"""


def profile(folder: Path, text: str = PROFILE, name: str = "mine") -> None:
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "profiles" / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_a_profile_brings_settings_and_points(tmp_path: Path) -> None:
    profile(tmp_path)
    found = device(tmp_path, "{bus: plc, profile: mine}")
    assert (found.every, found.retries, list(found.points)) == (5.0, 3, ["a", "b"])


def test_what_the_device_says_comes_first(tmp_path: Path) -> None:
    profile(tmp_path)
    found = device(
        tmp_path,
        "{bus: plc, profile: mine, every: 1s, labels: {room: x}, points: {a: {unit: mV}, b: null, c: {coil: 3}}}",
    )
    assert (found.every, found.retries, found.labels) == (1.0, 3, {"maker": "acme", "room": "x"})
    assert list(found.points) == ["a", "c"]
    assert (found.points["a"].holding, found.points["a"].unit, found.points["a"].deadband) == (1, "mV", 1.0)


def test_empty_points_leave_those_of_the_profile(tmp_path: Path) -> None:
    profile(tmp_path)
    assert list(device(tmp_path, "{bus: plc, profile: mine, points: }").points) == ["a", "b"]


def test_points_of_a_wrong_kind_are_not_taken_for_none(tmp_path: Path) -> None:
    profile(tmp_path)
    assert "mapping" in errors(tmp_path, "{bus: plc, profile: mine, points: [a]}")[0]


def test_the_own_folder_comes_before_the_adapters(tmp_path: Path) -> None:
    profile(tmp_path, PROFILE.replace("mine", "eastron-sdm120"), "eastron-sdm120")
    assert list(device(tmp_path, "{bus: plc, profile: eastron-sdm120}").points) == ["a", "b"]


def test_a_mistake_in_a_profile_is_said_once_and_there(tmp_path: Path) -> None:
    profile(tmp_path, PROFILE.replace("holding: 2", "holdng: 2"))
    result = loaded(
        tmp_path,
        f"{HEAD}devices:\n  d: {{bus: plc, unit: 1, profile: mine}}\n  e: {{bus: plc, unit: 2, profile: mine}}\n",
    )
    found = [str(problem.mark).rpartition("/")[2] for problem in result.problems if problem.severity == "error"]
    assert found == ["mine.yaml:6:7"]


def test_a_broken_profile_does_not_hide_other_mistakes(tmp_path: Path) -> None:
    profile(tmp_path, "points: [\n")
    result = loaded(
        tmp_path, f"{HEAD}devices:\n  d: {{bus: plc, profile: mine}}\n  e: {{bus: plc, evry: 1s, points: {{}}}}\n"
    )
    assert len({problem.mark.file.name for problem in result.problems}) == 2


def test_devices_that_take_a_profile_as_it_is_share_its_points(tmp_path: Path) -> None:
    profile(tmp_path)
    devices = (
        "  a: {bus: plc, unit: 1, profile: mine}\n  b: {bus: plc, unit: 2, profile: mine, every: 2s}\n"
        "  c: {bus: plc, unit: 3, profile: mine, points: {a: {unit: mV}}}\n"
    )
    config = loaded(tmp_path, f"{HEAD}devices:\n{devices}").config
    assert config is not None
    assert config.devices["a"].points is config.devices["b"].points
    assert config.devices["c"].points is not config.devices["a"].points
    assert config.devices["b"].every == Duration(2)
