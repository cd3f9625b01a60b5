"""`edged profiles` as a technician uses it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no types
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from edged.cli import main
from edged.config.library import families, library
from edged.config.load import load

BROKEN = """\
profile: mine
title: Mine
points:
  a: {input: 0, type: uint32, unit: V}
  b: {input: 1, unit: volts}
tests:
  - registers: {input 0: [0, 1]}
    expect: {a: 2.0}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a configuration."""
    (tmp_path / "edged.yaml").write_text("gateway: {id: g}\n")
    return tmp_path


def edged(site: Path, *arguments: str) -> Result:
    command, *rest = arguments
    return CliRunner().invoke(main, ["profiles", command, *rest, "--config", str(site / "edged.yaml")])


def local(site: Path, name: str, text: str) -> Path:
    (site / "profiles").mkdir(exist_ok=True)
    file = site / "profiles" / f"{name}.yaml"
    file.write_text(text, "utf-8")
    return file


def test_profiles_of_all_adapters_are_listed(site: Path) -> None:
    local(site, "mine", BROKEN)
    rows = json.loads(edged(site, "list", "--json").stdout)
    assert {(row["adapter"], row["where"]) for row in rows} == {
        ("", "local"), ("modbus", "shipped"), ("serial", "shipped"), ("ble", "shipped"), ("mqtt", "shipped"),
    }  # fmt: skip
    assert rows[0]["profile"] == "mine"
    assert all(row["title"] for row in rows)
    assert len([row for row in rows if row["adapter"] == "modbus"]) >= 70


def test_the_list_can_be_filtered_by_words(site: Path) -> None:
    result = edged(site, "list", "EASTRON", "sdm72")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["eastron-sdm72", "eastron-sdm72-v2"]
    assert "modbus" in result.stdout
    nothing = edged(site, "list", "eastron", "zeppelin")
    assert nothing.exit_code == 1
    assert "No profile has eastron and zeppelin" in nothing.stderr


def test_a_profile_is_shown_as_a_table(site: Path) -> None:
    result = edged(site, "show", "xy-md02")
    assert "title: XY-MD02 temperature and humidity sensor (SHT20)" in result.stdout
    assert "temperature  input: 1, type: int16, scale: 0.1, range: [-40, 80]  °C  Temperature" in result.stdout
    shown = json.loads(edged(site, "show", "xy-md02", "--json").stdout)
    assert shown["points"]["humidity"]["unit"] == "%"
    assert Path(shown["file"]).name == "xy-md02.yaml"


@pytest.mark.parametrize("name", ["ruuvitag", "sml-meter", "sunspec"])
def test_profiles_without_registers_are_shown_too(site: Path, name: str) -> None:
    result = edged(site, "show", name)
    assert result.exit_code == 0
    assert f"profile: {name}" in result.stdout


def test_a_misspelt_name_is_helped(site: Path) -> None:
    result = edged(site, "show", "eastron-smd120")
    assert result.exit_code == 2
    assert "did you mean `eastron-sdm120`?" in result.stderr


@pytest.mark.timeout(240)
def test_all_shipped_profiles_pass_their_tests_without_a_warning(site: Path) -> None:
    result = edged(site, "test", "--strict")
    assert result.stdout == f"{len(library(None))} profiles: no errors\n"
    assert result.exit_code == 0


def test_what_is_wrong_is_told_by_file_line_and_column(site: Path) -> None:
    file = local(site, "mine", BROKEN)
    for result in (edged(site, "test", "mine"), edged(site, "test", str(file))):
        assert result.exit_code == 1
        lines = [line for line in result.stdout.splitlines() if line.startswith(str(file))]
        assert [line.removeprefix(str(file)) for line in lines] == [
            ":1:1: source: a profile needs a `source`: the document its registers are from, for whoever doubts a value",
            ":5:23: warning: points.b: 'volts' is no unit that other profiles use",
            ":8:17: tests.0.expect.a: is 1.0, and the vector expects 2.0",
            ":5:6: warning: points.b: no vector tests it",
            ":5:6: points.b: input 1 overlaps a (input 0-1): is a type too wide, or an address wrong?",
        ]
    found = json.loads(edged(site, "test", "mine", "--json").stdout)
    assert [problem["line"] for problem in found[0]["problems"]] == [1, 5, 8, 5, 5]


def test_a_profile_that_does_not_even_load_is_an_error(site: Path) -> None:
    local(site, "mine", BROKEN.replace("uint32", "uint33").replace("title", "source: here\ntitle"))
    result = edged(site, "test", "mine")
    assert result.exit_code == 1
    assert ":5:" in result.stdout
    assert "uint33" in result.stdout
    local(site, "mine", "profile: [")
    assert edged(site, "test", "mine").exit_code == 1


def test_a_new_profile_passes_and_can_be_used_at_once(site: Path) -> None:
    result = edged(site, "new", "my-meter")
    assert (site / "profiles/my-meter.yaml").exists(), result.output
    assert edged(site, "test", "my-meter", "--strict").exit_code == 0
    (site / "edged.yaml").write_text(
        "gateway: {id: g}\nbuses: {b: {adapter: modbus-tcp, host: 192.0.2.1}}\n"
        "devices: {m: {bus: b, profile: my-meter}}\n"
    )
    loaded = load(site / "edged.yaml")
    assert loaded.config is not None
    assert list(loaded.config.devices[next(iter(loaded.config.devices))].points) == [
        "voltage", "energy", "state", "alarm", "relay",
    ]  # fmt: skip


@pytest.mark.parametrize("adapter", ["modbus", "serial", "ble"])
def test_a_profile_can_be_begun_for_every_protocol_and_passes(site: Path, adapter: str) -> None:
    assert edged(site, "new", "begun", "--adapter", adapter).exit_code == 0
    result = edged(site, "test", "begun", "--strict")
    assert result.stdout == "1 profile: no errors\n"


def test_a_protocol_without_profiles_is_named(site: Path) -> None:
    result = edged(site, "new", "begun", "--adapter", "can")
    assert result.exit_code == 2
    assert "ble, modbus, mqtt, serial" in result.stderr


@pytest.mark.parametrize(
    ("adapter", "right", "wrong", "said"),
    [
        ("serial", "weight: 12.34", "weight: 12.35", "tests.0.values.weight: is 12.34, and the vector expects 12.35"),
        ("serial", "bad: [weight]", "bad: [stable]", "tests.1.bad.0: stable is moving, and not bad"),
        ("serial", "rejected: true", "values: {weight: 1}", "tests.2: nothing comes of these bytes"),
        ("serial", "{name: stable, text:", "{name: stable, txt:", "tests.0: unknown key `txt`"),
        ("serial", "rejected: true", "reject: true", "tests.2: a vector has `values`, `bad` or `rejected`"),
        ("serial", "values: {weight: 12.34, stable: stable}", "values: [12]", "tests.0: `values` is a mapping"),
        ("serial", "bad: [weight]", "bad: 7", "tests.1: `values` is a mapping such as"),
        ("modbus", "tests:\n  - registers:", "tests:\n    registers:", "tests: must be a list of vectors"),
        ("ble", "humidity: 55", "humidity: 56", "tests.0.values.humidity: is 55, and the vector expects 56"),
        ("ble", "hex: 02 9808", "hex: 01 9808", "tests.1.rejected: it is taken, and gives temperature 22"),
        ("ble", "hex: 02 9808", "hex: 0z 9808", "tests.1: non-hexadecimal number"),
    ],
)
def test_vectors_of_bytes_are_run(site: Path, adapter: str, right: str, wrong: str, said: str) -> None:
    text = edged(site, "new", "begun", "--adapter", adapter, "--output", "-").stdout
    assert right in text
    file = local(site, "begun", text.replace(right, wrong))
    result = edged(site, "test", "begun")
    assert result.exit_code == 1
    assert re.search(rf"^{re.escape(str(file))}:\d+:\d+: {re.escape(said)}", result.stdout, re.MULTILINE), result.stdout


def test_a_new_profile_overwrites_nothing(site: Path) -> None:
    file = local(site, "mine", BROKEN)
    assert edged(site, "new", "mine").exit_code == 2
    assert file.read_text() == BROKEN
    assert edged(site, "new", "mine", "--output", "-").stdout.startswith("profile: mine\n")
    assert edged(site, "new", "../mine").exit_code == 2


def test_the_schema_takes_every_shipped_profile_and_refuses_a_typo() -> None:
    schema: dict[str, Any] = json.loads(CliRunner().invoke(main, ["profiles", "schema"]).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    yaml = YAML(typ="safe", pure=True)
    for family in families():
        for file in family.folder.glob("*.yaml"):
            profile = json.loads(json.dumps(yaml.load(file)))
            assert not [error.message for error in validator.iter_errors(profile)], file
    good = {"profile": "p", "title": "t", "source": "s", "points": {"a": {"input": 0, "type": "uint16"}}}
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, "points": {"a": {"input": 0, "typ": "uint16"}}})
    assert not validator.is_valid({**good, "device": {"bus": "b"}})
