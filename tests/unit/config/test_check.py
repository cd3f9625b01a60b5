"""`edged check` and `edged schema` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edged.cli.check import check, schema
from edged.errors import ConfigError

GOOD = """\
gateway: {id: plant-7}
buses:
  line-a: {adapter: modbus-rtu-over-tcp, host: 192.0.2.20, port: 4001, baudrate: 9600}
devices:
  one: {bus: line-a, unit: 1, every: 1s, points: {a: {holding: 1}, b: {holding: 2, every: 10s}}}
  two: {bus: line-a, unit: 2, every: 2s, points: {a: {holding: 1}}}
"""
WARNED = GOOD + "  three: {bus: line-a, unit: 2, every: 2s, points: {a: {holding: 1}}}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edged.yaml"


def run(path: Path, text: str, *options: str) -> Result:
    path.write_text(text, encoding="utf-8")
    return CliRunner().invoke(check, [str(path), *options])


def test_a_good_configuration_is_summed_up(path: Path) -> None:
    result = run(path, GOOD)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "no problems" in result.stdout
    assert "1 bus, 2 devices, 3 points, 0 connections; 1.6 readings/s in 1.6 polls/s" in result.stdout
    assert "of bus time per round" in result.stdout


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        (GOOD, ["--strict"], 0),
        (WARNED, [], 0),
        (WARNED, ["--strict"], 1),
        (GOOD + "x: 1\n", [], 2),
        ("", ["--strict"], 2),
    ],
)
def test_exit_codes(path: Path, text: str, options: list[str], code: int) -> None:
    assert run(path, text, *options).exit_code == code


def test_json_has_everything(path: Path) -> None:
    record = json.loads(run(path, WARNED + "conections: {}\n", "--json").stdout)
    assert record["ok"] is False
    assert [one["severity"] for one in record["problems"]] == ["warning", "error"]
    assert record["problems"][1] == {
        "severity": "error", "file": str(path), "line": 8, "column": 1, "length": 10, "path": "conections",
        "message": "unknown section `conections`; did you mean `connections`?", "text": "conections: {}",
    }  # fmt: skip


def test_json_has_the_load_of_each_bus(path: Path) -> None:
    record = json.loads(run(path, GOOD, "--json").stdout)
    assert record["ok"] is True
    assert record["totals"]["readings_per_second"] == 1.6
    assert record["buses"]["line-a"]["points"] == 3
    assert 0 < record["buses"]["line-a"]["load"] < 1
    # the round of three polls is longer than the bytes of one request and reply at 9600 baud
    assert record["buses"]["line-a"]["seconds_per_round"] > 3 * 15 * 10 / 9600


def test_json_masks_passwords(path: Path) -> None:
    text = 'connections:\n  c: {connector: mqtt, url: "mqtt://me:hunter3@b", username: u, password: hunter2}\n'
    assert "hunter" not in run(path, GOOD + text, "--json").output
    assert "hunter" not in run(path, GOOD + text).output


def test_the_default_path_comes_from_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(GOOD, encoding="utf-8")
    monkeypatch.setenv("EDGED_CONFIG", str(path))
    assert CliRunner().invoke(check, []).exit_code == 0
    monkeypatch.setenv("EDGED_CONFIG", str(path) + "x")
    result = CliRunner().invoke(check, [])
    assert isinstance(result.exception, ConfigError)  # `main` turns it into a line and exit code 2
    assert "name your configuration on the command line, or in $EDGED_CONFIG" in str(result.exception)


def test_terminals_are_safe_from_what_is_in_the_file(path: Path) -> None:
    said = run(path, 'gateway: {id: "\\e[2J\\n"}\n"\\e[1m": 1\n').stderr
    assert "\x1b" not in said


def test_compile_writes_nothing_when_there_are_errors(path: Path, tmp_path: Path) -> None:
    result = run(path, GOOD + "x: 1\n", "--compile", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "unknown section" in result.stderr
    assert not (tmp_path / "out").exists()


def test_compile_writes_a_file_for_its_owner_only(path: Path, tmp_path: Path) -> None:
    assert run(path, GOOD, "--compile", str(tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_schema_prints_json_or_a_page() -> None:
    assert json.loads(CliRunner().invoke(schema, []).stdout)["title"] == "edged configuration"
    assert CliRunner().invoke(schema, ["--markdown"]).stdout.startswith("# Configuration reference")


def test_a_place_where_nothing_can_be_compiled_to_is_told(path: Path) -> None:
    nowhere = run(path, GOOD, "--compile", str(path / "out"))
    assert isinstance(nowhere.exception, ConfigError), "which the command line tells in one line"
    assert f"{path / 'out'} cannot be written" in str(nowhere.exception)
