"""Backups of the real daemon at work, and a gateway that was restored, before a real broker and receiver."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.buffer.offline import look
from edged.testing.audit import Audit
from tests.support.checker import check
from tests.support.gateway import Gateway, running
from tests.support.load_server import load_server, points_yaml
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Subscriber, subscribed

pytestmark = pytest.mark.mosquitto
DEVICES = WINDOW = 20
"""Of 50 registers each, once a second: 1,000 readings/s. As many messages may be repeated after an outage."""


def config(ports: list[int], broker: int) -> dict[str, Any]:
    return {
        "gateway": {"id": "plant-7"},
        "buses": {
            f"b{i}": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": port} for i, port in enumerate(ports)
        },
        "devices": {
            f"d{i}": {"bus": f"b{i}", "unit": 1, "every": "1s", "points": points_yaml()} for i in range(len(ports))
        },
        "connections": {"cloud": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{broker}", "retry_max": "300ms"}},
    }


async def edged(gateway: Gateway, *arguments: str) -> tuple[int, str]:
    """(Exit code, what it says) of `edged backup …` on this gateway."""
    place = ["--config", str(gateway.config), "--state", str(gateway.folder / "state")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edged", "backup", *arguments, *(place if arguments[0] != "verify" else []),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def until(subscriber: Subscriber, messages: int) -> None:
    async with asyncio.timeout(20):
        while len(subscriber.messages) < messages:
            await asyncio.sleep(0.05)


async def test_backups_at_a_thousand_readings_a_second_cost_nothing_that_was_read(tmp_path: Path) -> None:
    with (
        load_server(DEVICES) as ports,
        Mosquitto(tmp_path, persistence=True) as broker,
        subscribed(broker.port, "edged/+/data") as sub,
    ):
        gateway = Gateway(tmp_path / "gateway", config(list(ports), broker.port))
        target = tmp_path / "backups"
        target.mkdir()
        async with running(gateway):
            await until(sub, 2)
            broker.stop()  # so that there is something in it
            await asyncio.sleep(1.5)
            code, said = await edged(gateway, "create", str(target), "--socket", str(gateway.socket), "--json")
            assert code == 0, said
            manifest = json.loads(said)
            assert manifest["pending"]["cloud"] >= 1000
            broker.start()
            await until(sub, len(sub.messages) + 4)
            assert await gateway.stop() == 0, gateway.lines()
        await asyncio.sleep(0.5)
    archives = sorted(target.glob("*.tar.gz"))
    code, said = await edged(gateway, "verify", *map(str, archives))
    assert (code, said.count(": whole")) == (0, 1), said
    payloads = [orjson.loads(message.payload) for message in sub.messages]
    report, audit = check(payloads), Audit()
    for payload in payloads:
        audit.take(payload)
    assert (report.wrong, report.missing, report.bad_readings) == (0, 0, 0), gateway.lines()
    assert not audit.missing
    assert "WARNING edged.buffer" not in gateway.lines()


@pytest.mark.timeout(240)
async def test_a_restored_gateway_sends_what_waited_under_a_new_epoch(tmp_path: Path) -> None:
    """Backed up with a backlog, gone on, wiped, restored: the receiver can tell it all from the messages alone."""
    devices = {"oven": {"bus": "lab", "every": "100ms", "points": {"t": {"waveform": "ramp", "period": "1h"}}}}
    with Mosquitto(tmp_path, persistence=True) as broker, subscribed(broker.port, "edged/+/data") as sub:
        plain = config([], broker.port) | {
            "buses": {"lab": {"adapter": "sim"}}, "devices": devices, "buffer": {"flush": "100ms"},
        }  # fmt: skip
        gateway = Gateway(tmp_path / "gateway", plain)
        target = tmp_path / "backups"
        target.mkdir()
        state = gateway.folder / "state"
        async with running(gateway):
            await until(sub, 5)
            broker.stop()
            await asyncio.sleep(1)
            code, said = await edged(gateway, "create", str(target), "--socket", str(gateway.socket))
            assert code == 0, said
            (archive,) = map(str, target.glob("*.tar.gz"))
            code, said = await edged(gateway, "restore", archive, "--force")
            assert code == 2, "not while it runs"
            assert "systemctl stop edged" in said
            broker.start()
            await until(sub, len(sub.messages) + 10)
        shutil.rmtree(state)
        gateway.config.unlink()
        code, said = await edged(gateway, "restore", archive)
        assert code == 0, said
        assert "new epoch" in said
        waited = look(state / "buffer.db", "stats", {})["connections"]["cloud"]["pending"]
        assert waited >= 5
        count = len(sub.messages)
        async with running(gateway):
            await until(sub, count + 8)
            status = await gateway.status()
            assert await gateway.stop() == 0
        await asyncio.sleep(0.3)
    before = [orjson.loads(message.payload) for message in sub.messages[:count]]
    after = [orjson.loads(message.payload) for message in sub.messages[count:]]
    assert len({one["epoch"] for one in before}) == 1
    assert {one["epoch"] for one in after} == {status["buffer"]["epoch"]}
    assert before[0]["epoch"] != after[0]["epoch"]
    audit, restored = Audit(), Audit()
    for payload in [*before, *after]:
        audit.take(payload)
    for payload in after:
        restored.take(payload)
    assert not audit.missing
    assert audit.duplicates <= WINDOW, "when the broker went, what it had not confirmed yet was sent again"
    assert (len(restored.missing), restored.duplicates, restored.out_of_order) == (0, 0, 0)
    sent_again = sum(one["readings"] for one in after if one["seq"] <= status["buffer"]["head"])
    assert sent_again >= waited
    assert status["buffer"]["connections"]["cloud"]["pending"] < status["buffer"]["head"]
