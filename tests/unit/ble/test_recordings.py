"""A recording is a test vector: `edged scan ble --replay` says what is in it and what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edged.cli import main

ROOT = Path(__file__).parents[3]
DF5 = "0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F"


def replay(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["scan", "ble", "--replay", *arguments])
    return result.exit_code, result.output


def vector(path: Path, **settings: Any) -> str:
    fields = {"t": 0, "address": "CB:B8:33:4C:88:4F", "manufacturer_data": {"0x0499": DF5}, "decoder": "ruuvi"}
    path.write_text(json.dumps(fields | settings) + "\n", "utf-8")
    return str(path)


def test_the_shipped_recording_is_shown_with_its_sensors() -> None:
    code, text = replay(str(ROOT / "config/demo-ble.jsonl"))
    assert code == 0
    for address in ("CB:B8:33:4C:88:4F", "A4:C1:38:56:53:84", "A4:C1:38:6D:1A:20"):
        assert re.search(rf"^{address} +-\d\d dBm", text, re.MULTILINE)
    assert "decoder: atc" in text


def test_the_vectors_of_the_documentation_are_right(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/ble-recording.md").read_text("utf-8")
    (block,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "vectors").write_text(block, "utf-8")
    code, text = replay(str(tmp_path / "vectors"))
    assert code == 0, text


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"values": {"temperature": 24.31}}, "line 1: temperature is 24.3, not 24.31"),
        ({"values": {"co2": 400}}, "line 1: co2 is missing, not 400"),
        ({"values": {}}, "line 1: decoder ruuvi should refuse it"),
        (
            {"values": {"temperature": 1}, "decoder": "rubi"},
            "no decoder 'rubi'; there are atc, bthome",
        ),
        ({"values": {"temperature": 24.3}, "address": "CB:B8:33:4C:88:50"}, "temperature is missing, not 24.3"),
        ({"t": "soon"}, "line 1: this is no line of a recording"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    code, text = replay(vector(tmp_path / "r", **settings), "--all")
    assert code == 1
    assert problem in text


def test_programs_get_the_same(tmp_path: Path) -> None:
    code, text = replay(vector(tmp_path / "r", values={"temperature": 24.3}), "--json")
    assert code == 0
    (sender,) = json.loads(text)
    assert (sender["decoder"], sender["values"]["temperature"]) == ("ruuvi", 24.3)
