"""The document as a whole: it fits its description, says what is wrong, and knows who has made progress."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it comes without types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.clock import mono_us
from edged.health import reference
from edged.health.gather import Gatherer, Heartbeats
from edged.health.restarts import Runs
from edged.uplink.payload import schema


def status(**changed: Any) -> dict[str, Any]:
    return {
        "gateway": "plant-7", "clock": {"trusted": True}, "buffer": {"alarm": "", "detail": ""}, "stalled": [],
        "faults": {}, "connections": {"cloud": {"connected": True, "detail": "MQTT 5"}},
        "buses": [{"bus": "line", "health": "ok", "last_error": "", "devices": [{"health": "down"}]}], **changed,
    }  # fmt: skip


def gatherer(state: Path, root: Path = Path("/")) -> Gatherer:
    runs = Runs(state)
    runs.begin("a", "1", "2026-11-21T12:00:00Z")
    return Gatherer(state, lambda: [("bus line", 7)], runs, root)


def test_it_is_as_it_is_described(tmp_path: Path) -> None:
    one = gatherer(tmp_path)
    one.look(mono_us() / 1e6)
    document = json.loads(json.dumps(one.health(status())))
    jsonschema.validate(document, reference.schema())
    assert (document["ok"], document["problems"], document["down"]["devices"]) == (True, [], 1)
    assert set(document["heartbeats"]) == {"bus line"}
    assert document["restarts"]["by_reason"] == {"first": 1}
    jsonschema.validate(one.brief(), {"$ref": "#/$defs/SystemHealth", "$defs": schema()["$defs"]})


def test_it_is_as_described_where_the_machine_tells_nothing(tmp_path: Path) -> None:
    one = gatherer(tmp_path, tmp_path)
    document = json.loads(json.dumps(one.health(status())))
    jsonschema.validate(document, reference.schema())
    assert document["machine"]["temperature"] is None
    jsonschema.validate(one.brief(), {"$ref": "#/$defs/SystemHealth", "$defs": schema()["$defs"]})


def test_each_thing_that_is_wrong_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("85000")
    (tmp_path / "sys/block/mmcblk0/device").mkdir(parents=True)
    (tmp_path / "sys/block/mmcblk0/device/life_time").write_text("0x0a 0x0a")
    firmware = tmp_path / "sys/devices/platform/soc/soc:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text("1")
    wrong = status(
        clock={"trusted": False}, buffer={"alarm": "full", "detail": "the disk is full"}, stalled=["bus x hangs"],
        faults={"bus y": {"restarts": 2, "time": "now", "detail": "KeyError"}},
        connections={"cloud": {"connected": False, "detail": "no route"}},
        buses=[{"bus": "line", "health": "down", "last_error": "no port", "devices": []}],
    )  # fmt: skip
    document = gatherer(tmp_path, tmp_path).health(wrong)
    assert not document["ok"]
    said = "\n".join(document["problems"])
    for word in ("hangs", "KeyError", "full", "clock", "no route", "no port", "100 %", "85 °C", "under-voltage"):
        assert word in said
    assert len(document["problems"]) == 9
    assert document["down"] == {"buses": 1, "devices": 0, "connections": 1}


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)), max_size=12))
def test_a_heartbeat_is_as_old_as_its_last_change(looks: list[dict[str, int]]) -> None:
    beats = Heartbeats()
    for moment, counters in enumerate(looks):
        beats.look(counters.items(), float(moment))
    now = float(len(looks))
    expected = {}
    for name in looks[-1] if looks else ():
        age = 1
        while age < len(looks) and looks[-age - 1].get(name) == looks[-1][name]:
            age += 1
        expected[name] = float(age)
    assert beats.ages(now) == expected


@pytest.mark.parametrize("outcome", ["good", "rolled-back", "refused", "interrupted"])
def test_an_upgrade_that_was_undone_is_told_until_the_next_one(tmp_path: Path, outcome: str) -> None:
    upgrade = {"outcome": outcome, "old": "1.0-a", "new": "1.1-b", "why": "it ended by itself"}
    said = gatherer(tmp_path, tmp_path).health(status(upgrade=upgrade))["problems"]
    line = f"the upgrade to 1.1-b was {outcome}, 1.0-a goes on: it ended by itself"
    assert said == ([] if outcome == "good" else [line])


def test_the_daemon_does_not_pay_for_the_description() -> None:
    code = "import edged.daemon, sys; print('pydantic' in sys.modules, 'edged.health.reference' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.split() == ["False", "False"]
