"""What `edged check` predicts and finds on this machine: flash, uplink, ports, files, and devices with --online."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edged.cli.check import check
from edged.config.budget import BusLoad
from edged.config.cost import DAY, flash
from edged.config.load import load
from edged.config.machine import may, who
from edged.config.problems import Report
from tests.support.gateway import Gateway, running

ROOT = Path(__file__).parents[3]
PLANT = """\
gateway: {id: plant-7}
buses: {lab: {adapter: sim}}
devices:
  oven: {bus: lab, every: 1s, points: {low: {}, high: {}}}
  kiln: {bus: lab, every: 10s, points: {t: {}}}
connections:
  cloud: {connector: mqtt, url: "mqtt://b"}
  packed: {connector: mqtt, url: "mqtt://b", compression: zlib, client_id: two}
  single: {connector: mqtt, url: "mqtt://b", layout: samples, client_id: three}
"""


def checked(folder: Path, text: str, *options: str) -> tuple[int, dict[str, Any]]:
    path = folder / "edged.yaml"
    path.write_text(text, encoding="utf-8")
    result = CliRunner().invoke(check, [str(path), "--json", *options])
    return result.exit_code, json.loads(result.stdout)


def warnings(record: dict[str, Any]) -> list[str]:
    return [problem["message"] for problem in record["problems"]]


def bus(readings: float, polls: float) -> BusLoad:
    return BusLoad("b", 1, 1, readings, polls, polls, 0.0, 0.0, (1.0,))


@pytest.mark.parametrize(("rate", "polls"), [(10, 10), (1000, 20)])
def test_the_flash_is_reckoned_as_it_was_measured(rate: int, polls: int, tmp_path: Path) -> None:
    page = (ROOT / "docs/explanation/performance.md").read_text("utf-8")
    found = re.search(rf"written per reading at {rate:,} readings/s, (?:`[^`]*`, )?bytes \| [^|]*\| ([\d.,]+)", page)
    assert found
    measured = float(found[1].replace(",", ""))
    (tmp_path / "edged.yaml").write_text(PLANT)
    config = load(tmp_path / "edged.yaml").config
    assert config is not None
    predicted = flash(config, [bus(rate, polls)], {}, Report()).written / DAY / rate
    assert 0.5 < predicted / measured < 2  # a newer measurement may differ somewhat


def test_the_uplink_is_sized_by_encoding(tmp_path: Path) -> None:
    code, record = checked(tmp_path, PLANT)
    assert code == 0
    up = record["uplink"]
    # a flush a second with one sample each; kiln's sample shares a message, or is one of its own
    assert up["cloud"]["messages_per_day"] == pytest.approx(86_400, rel=0.02)
    assert up["single"]["messages_per_day"] == pytest.approx(86_400 * 1.1, rel=0.02)
    assert up["cloud"]["bytes_per_day"] == up["cloud"]["bytes_per_day_uncompressed"]
    assert up["packed"]["bytes_per_day"] == up["packed"]["bytes_per_day_compressed"]
    assert up["packed"]["bytes_per_day"] == up["cloud"]["bytes_per_day_compressed"]
    each = up["cloud"]["bytes_per_day"] / up["cloud"]["messages_per_day"]
    envelope = '{"v":1,"gateway":"plant-7","epoch":"0123456789abcdef","lane":"live","first":1,"seq":1,"prev":1}'
    assert len(envelope) < each < 4 * len(envelope)
    assert record["flash"]["commits_per_day"] == 86_400  # one a second


def test_a_port_that_is_here_and_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "port").touch()
    (tmp_path / "cert.pem").touch()
    key = tmp_path / "key.pem"
    key.touch(mode=0o644)
    key.chmod(0o644)
    text = f"""\
gateway: {{id: plant-7}}
buses:
  line: {{adapter: modbus-rtu, port: {tmp_path}/port}}
  away: {{adapter: modbus-rtu, port: /dev/ttyS99}}
devices:
  m: {{bus: line, unit: 1, points: {{x: {{holding: 1}}}}}}
  n: {{bus: away, unit: 1, points: {{x: {{holding: 1}}}}}}
connections:
  cloud: {{connector: mqtt, url: "mqtts://b", ca: {tmp_path}/nowhere.pem, certificate: {tmp_path}/cert.pem, key: {key}}}
"""
    said = warnings(checked(tmp_path, text)[1])
    assert f"{tmp_path}/port is no serial port" in said
    assert f"there is no {tmp_path}/nowhere.pem, though its folder is here" in said
    assert any("is a private key that every user of this machine can read" in one for one in said)
    assert not any("ttyS99" in one or "cert.pem" in one for one in said)


@pytest.fixture
def serial_port() -> Iterator[str]:
    """A character device as a port; its mode as of a port that the user is not allowed."""
    master, slave = os.openpty()
    try:
        yield os.ttyname(slave)
    finally:
        os.close(slave)
        os.close(master)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_port_without_permission(serial_port: str, tmp_path: Path) -> None:
    Path(serial_port).chmod(stat.S_IWGRP)
    text = PLANT.replace("sim}", f"modbus-rtu, port: {serial_port}}}").replace(
        "{low: {}, high: {}}", "{t: {holding: 1}}"
    )
    said = warnings(checked(tmp_path, text.replace("{t: {}}", "{t: {holding: 1}}"))[1])
    assert any("may not be opened by" in one and "usermod -aG" in one for one in said)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_user_that_the_machine_does_not_know_can_check(serial_port: str) -> None:
    os.setresuid(54_321, 54_321, 0)
    try:
        assert not may(Path(serial_port), stat.S_IRUSR)
        assert "54321" in who() or "edged" in who()
    finally:
        os.setresuid(0, 0, 0)


def test_online_polls_each_device_from_here(tmp_path: Path) -> None:
    text = PLANT + "buses: {lab: {adapter: sim}}\n"
    text = PLANT.replace(
        "{lab: {adapter: sim}}", "{lab: {adapter: sim}, plc: {adapter: modbus-tcp, host: 127.0.0.1, port: 1}}"
    )
    text = text.replace("devices:\n", "devices:\n  m: {bus: plc, timeout: 200ms, points: {x: {holding: 1}}}\n")
    code, record = checked(tmp_path, text, "--online", "--socket", str(tmp_path / "none.sock"))
    assert code == 1
    assert [(one["device"], one["ok"], one["points"]) for one in record["online"]] == [
        ("oven", True, 2), ("kiln", True, 1), ("m", False, 0),
    ]  # fmt: skip
    assert record["online"][2]["error"]
    result = CliRunner().invoke(check, [str(tmp_path / "edged.yaml"), "--online", "--socket", str(tmp_path / "none")])
    assert "polled from here; no gateway runs:" in result.stdout
    assert re.search(r"oven +lab +ok +[\d.]+ +2", result.stdout)
    assert re.search(r"m +plc +silent +- +", result.stdout)


async def test_online_asks_the_gateway_that_runs(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, {})
    gateway.config.write_text(PLANT)
    async with running(gateway):
        await gateway.status()
        text = PLANT.replace("  kiln:", "  new: {bus: lab, points: {t: {}}}\n  kiln:")
        options = ("--online", "--socket", str(gateway.socket))
        (tmp_path / "next").mkdir()
        code, record = await asyncio.to_thread(checked, tmp_path / "next", text, *options)
    assert code == 1
    answers = {one["device"]: one for one in record["online"]}
    assert (answers["oven"]["ok"], answers["kiln"]["ok"]) == (True, True)
    assert "there is no device 'new'" in answers["new"]["error"]


FLOWS = """\
flows:
  low: {match: [{point: low}], connections: {cloud: {}}}
  never: {steps: [{filter: low > 9999999}], connections: {cloud: {}}}
  minutes: {steps: [{aggregate: {every: 1m, functions: [avg]}}], connections: {cloud: {}, packed: {}}}
"""


def test_a_flow_costs_what_it_sends(tmp_path: Path) -> None:
    _, record = checked(tmp_path, PLANT + FLOWS)
    uplink = record["uplink"]
    assert set(uplink) == {"cloud/low", "cloud/never", "cloud/minutes", "packed/minutes", "single"}
    assert uplink["cloud/never"]["messages_per_day"] == 0
    assert uplink["cloud/minutes"]["messages_per_day"] == 1440
    _, whole = checked(tmp_path, PLANT)
    assert uplink["cloud/low"]["bytes_per_day"] < whole["uplink"]["cloud"]["bytes_per_day"]
    assert uplink["cloud/minutes"]["bytes_per_day"] < whole["uplink"]["cloud"]["bytes_per_day"] / 10
    shown = CliRunner().invoke(check, [str(tmp_path / "edged.yaml")])
    assert "cloud: up to" in shown.stdout


def test_flows_are_named_in_words(tmp_path: Path) -> None:
    (tmp_path / "edged.yaml").write_text(PLANT + FLOWS)
    shown = CliRunner().invoke(check, [str(tmp_path / "edged.yaml")])
    assert "  flow low to cloud: up to" in shown.stdout
