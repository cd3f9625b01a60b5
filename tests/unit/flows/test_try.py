"""`edged try`: what a person gives to a flow, right or wrong, and what is shown of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edged.cli import main

CONFIG = {
    "gateway": {"id": "plant-7"},
    "buses": {"lab": {"adapter": "sim"}},
    "devices": {"chiller": {"bus": "lab", "labels": {"room": "plant"}, "points": {"supply": {"unit": "°C"}}}},
    "connections": {"cloud": {"connector": "mqtt", "url": "mqtt://b"}},
    "flows": {
        "hot": {
            "match": [{"labels": {"room": "plant"}}],
            "steps": [{"filter": "supply > 50"}, {"map": {"convert": {"supply": "°F"}}}],
            "connections": {"cloud": {"topic": "plants/hot"}},
            "tests": {
                "warm": {"given": [{"device": "chiller", "values": {"supply": 60.0}}], "expect": [{"supply": 140}]}
            },
        }
    },
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "edged.yaml"
    path.write_text(json.dumps(CONFIG))
    return path


def tried(config: Path, sample: str, *more: str, flow: str = "hot") -> Result:
    result = CliRunner().invoke(main, ["try", "--config", str(config), flow, sample, *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("sample", ["warm", '{"device": "chiller", "values": {"supply": 60.0}}'])
def test_each_step_and_the_exact_bytes_are_shown(config: Path, sample: str) -> None:
    said = tried(config, sample).output
    assert '1. {"filter": "supply > 50"}' in said
    assert "1 readings in, 0 filtered" in said
    assert "plants/hot  (" in said
    assert '"values":[[140.0]]' in said
    assert "no device" not in said
    record = json.loads(tried(config, sample, "--json").output)
    (message,) = record["sent"][0]["messages"]
    assert (message["topic"], len(message["payload"].encode())) == ("plants/hot", message["bytes"])


def test_a_device_that_there_is_not_is_told(config: Path) -> None:
    said = tried(config, '{"device": "chillr", "values": {"supply": 60.0}}').output
    assert "the configuration has no device 'chillr'" in said
    assert "nothing is left" in said
    assert "cloud: no messages" in said


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ('{"device": "chiller", "values": {"supply": 60}, "time": NaN}', "seconds since 1970"),
        ('{"device": "chiller", "values": {"supply": 60}, "time": 1e999}', "seconds since 1970"),
        ('{"device": "chiller", "values": {"supply": 60}, "time": 1e12}', "seconds since 1970"),
        ('{"device": "chiller", "values": {"supply": 60}, "time": true}', "seconds since 1970"),
        ('{"device": "chiller", "values": {"supply": [1]}}', "a value is a number"),
        (f'{{"device": "chiller", "values": {{"supply": {"9" * 400}}}}}', "308 digits"),
        (f'{{"device": "chiller", "values": {{"supply": {"9" * 5000}}}}}', "neither JSON"),
        ("[" * 100_000, "neither JSON"),
        ('{"device": 5, "values": {}}', "a sample is"),
        ("{", "neither JSON, nor a file"),
        ("/nowhere.json", "neither JSON, nor a file"),
    ],
)
def test_what_is_no_sample_is_told_in_one_line(config: Path, sample: str, says: str) -> None:
    result = tried(config, sample)
    assert result.exit_code != 0
    assert says in result.output
    assert result.output.strip().count("\n") == 0


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1e999", "123456789012345678901234567890"])
def test_what_no_receiver_can_take_is_shown_as_it_would_be_sent(config: Path, value: str) -> None:
    said = tried(config, f'{{"device": "chiller", "values": {{"supply": {value}}}}}').output
    assert "Traceback" not in said
    assert value not in said.partition("cloud:")[2]
