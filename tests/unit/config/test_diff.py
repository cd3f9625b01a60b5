"""What differs between two configurations, in words, and whom it concerns."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config.diff import compare
from edged.config.load import load
from edged.config.model import Config

BASE = """\
gateway: {id: plant-7}
buses:
  plc: {adapter: modbus-tcp, host: 192.0.2.10}
  lab: {adapter: sim}
devices:
  meter: {bus: plc, unit: 1, points: {power: {holding: 1, unit: W}}}
  oven: {bus: lab, points: {t: {high: 180}}}
connections:
  cloud: {connector: mqtt, url: "mqtt://b", username: me, password: !secret mqtt}
"""


def config(folder: Path, text: str) -> Config:
    path = folder / "edged.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = load(path)
    assert loaded.config is not None, loaded.problems
    return loaded.config


@pytest.mark.parametrize(
    ("old", "new", "lines", "touched"),
    [
        ("", "", [], ""),
        ("192.0.2.10", "192.0.2.11", ["bus plc: host 192.0.2.10 → 192.0.2.11"], "plc"),
        ("unit: W", "unit: kW", ["point meter/power: unit W → kW"], "plc meter"),
        ("{high: 180}}", "{high: 180}, u: {}}", ["point oven/u: added"], "lab oven"),
        ("bus: lab", "bus: lab, enabled: false", ["device oven: enabled true → false"], "lab oven"),
        ("bus: lab", "bus: lab, labels: {room: a}", ["device oven: labels.room unset → a"], "lab oven"),
        ("!secret mqtt", "!secret other", ["connection cloud: password !secret mqtt → !secret other"], "cloud"),
        ("!secret mqtt", "hunter2", ["connection cloud: password !secret mqtt → (a secret in the clear)"], "cloud"),
        ("plant-7", "plant-8", ["gateway: id plant-7 → plant-8"], "cloud"),
        ("  lab:", "  other: {adapter: sim}\n  lab:", ["bus other: added"], "other"),
        ("gateway:", "control: {watch: 5s}\ngateway:", ["control: watch 1m → 5s"], ""),
        ("gateway:", "buffer: {flush: 5s}\ngateway:", ["buffer: flush 1s → 5s"], "!buffer.flush"),
        ("gateway:", "control: {socket: /x}\ngateway:", ["control: socket unset → /x"], "!control.socket"),
    ],
)
def test_in_words(old: str, new: str, lines: list[str], touched: str, tmp_path: Path) -> None:
    found = compare(config(tmp_path, BASE), config(tmp_path, BASE.replace(old, new, 1)))
    assert found.lines() == lines
    one = found.touched
    named = {*one.buses, *one.devices, *one.connections, *(f"!{setting}" for setting in one.restart)}
    assert named == set(touched.split())


def test_the_points_of_a_connection_are_settings_like_others(tmp_path: Path) -> None:
    served = BASE + '  plc: {connector: modbus-server, listen: "127.0.0.1:1502", points: {meter/power: {input: 0}}}\n'
    moved = compare(config(tmp_path, served), config(tmp_path, served.replace("input: 0", "input: 4")))
    assert moved.lines() == ["connection plc: points.meter/power {'input': 0} → {'input': 4}"]
    assert moved.touched.connections == {"plc"}
    more = served.replace("{meter/power: {input: 0}}", "{meter/power: {input: 0}, oven/t: {input: 2}}")
    assert compare(config(tmp_path, served), config(tmp_path, more)).touched.connections == {"plc"}


def test_the_way_back_is_the_same_way(tmp_path: Path) -> None:
    before = config(tmp_path, BASE)
    after = config(tmp_path, BASE.replace("  oven: {bus: lab", "  kiln: {bus: lab"))
    there, back = compare(before, after), compare(after, before)
    assert there.lines() == ["device oven: removed", "device kiln: added"]
    assert back.lines() == ["device kiln: removed", "device oven: added"]
    assert there.touched == back.touched


def test_a_device_that_moves_concerns_both_buses(tmp_path: Path) -> None:
    text = BASE.replace("  lab: {adapter: sim}", "  lab: {adapter: sim}\n  lab2: {adapter: sim}")
    found = compare(config(tmp_path, text), config(tmp_path, text.replace("bus: lab,", "bus: lab2,")))
    assert found.touched.buses == {"lab", "lab2"}


FLOWS = """
  spark: {connector: sparkplug, url: "mqtt://b", client_id: s}
flows:
  hot: {steps: [{filter: power > 1}], connections: {cloud: {}, spark: {}}}
  raw: {match: [{key: oven/*}], connections: {cloud: {topic: "x/{gateway}"}}, tests: {}}
"""


@pytest.mark.parametrize(
    ("old", "new", "flows", "connections"),
    [
        ("", "", "", ""),
        ("power > 1", "power > 2", "cloud/hot", "spark"),
        ("x/{gateway}", "y/{gateway}", "cloud/raw", ""),
        ("  raw:", "  new: {match: [{point: t}], connections: {cloud: {}}}\n  raw:", "cloud/new", ""),
        ("  raw: {", "  raw: {enabled: false, ", "cloud/raw", ""),
        ("tests: {}", "description: words", "", ""),
        ("cloud: {}, spark: {}", "cloud: {}", "", "spark"),
        (FLOWS[FLOWS.index("flows:") :], "", "", "cloud spark"),
        ('url: "mqtt://b", username: me', 'url: "mqtt://c", username: me', "", "cloud"),
    ],
)  # fmt: skip
def test_a_flow_touches_itself_only(old: str, new: str, flows: str, connections: str, tmp_path: Path) -> None:
    text = BASE.rstrip("\n") + FLOWS
    touched = compare(config(tmp_path, text), config(tmp_path, text.replace(old, new, 1))).touched
    assert touched.flows == set(flows.split())
    assert touched.connections == set(connections.split())


def test_a_connection_whose_flows_are_off_begins_when_they_are_gone(tmp_path: Path) -> None:
    off = BASE + "flows: {hot: {enabled: false, connections: {cloud: {}}}}\n"
    assert compare(config(tmp_path, off), config(tmp_path, BASE)).touched.connections == {"cloud"}


def test_a_secret_in_a_setting_that_is_none_is_not_told(tmp_path: Path) -> None:
    links = """\
  api: {connector: http, url: "https://h/x?site=b&code=abcd", headers: {X-Api-Key: abcd, X-Site: b}}
  board: {connector: thingsboard, url: "mqtts://h", username: abcd}
"""
    before = config(tmp_path, BASE + links)
    after = config(tmp_path, BASE + links.replace("abcd", "efghi").replace("site=b", "site=c"))
    assert [str(one) for one in compare(before, after).changes] == [
        "connection api: url https://h/x?site=b&code=**** → https://h/x?site=c&code=*****, headers.X-Api-Key *** → ***",
        "connection board: username *** → ***",
    ]
