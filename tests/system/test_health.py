"""What the real daemon says of its health: to people, to the receiver, and after ends of several kinds."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it comes without types
import pytest

from edged.backup.pending import Step, begin
from edged.cli import client
from edged.health.reference import schema
from edged.uplink.payload import schema as messages
from tests.support.gateway import Gateway, running
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import subscribed


def config(port: int = 1) -> dict[str, Any]:
    return {
        "gateway": {"id": "plant-7"},
        "buffer": {"flush": "100ms"},
        "buses": {"lab": {"adapter": "sim"}},
        "devices": {"oven": {"bus": "lab", "every": "100ms", "points": {"t": {}}}},
        "connections": {"cloud": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "retry_max": "300ms"}},
    }


async def test_each_end_is_told_at_the_next_start(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, config())
    async with running(gateway):
        document = (await gateway.status())["health"]
        jsonschema.validate(document, schema())
        assert any("cloud" in problem for problem in document["problems"]), "nothing listens at its address"
        await gateway.stop(signal.SIGKILL)
        await gateway.start()
        document = (await gateway.status())["health"]
        assert document["restarts"]["by_reason"] == {"first": 1, "crash": 1}
        assert "ended badly" in gateway.lines()
        gateway.config.write_text(json.dumps(config() | {"control": {"watch": "1s"}, "devices": {}}))
        for line in client.lines(gateway.socket, "/v1/reload?watch=1", method="POST"):
            assert b'"error"' not in line
        assert (await gateway.status())["health"]["restarts"]["reloads"] == 1
        assert await gateway.stop() == 0
        (tmp_path / "state/last-result").write_text("watchdog\n")  # left from long ago: this stop was a clean one
        await gateway.start()
        restarts = (await gateway.status())["health"]["restarts"]
        assert restarts["by_reason"] == {"first": 1, "crash": 1, "clean": 1}
        assert restarts["reloads"] == 1


@pytest.mark.mosquitto
async def test_the_receiver_is_told_in_few_words(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, "edged/+/health") as sub:
        gateway = Gateway(tmp_path / "gateway", config(broker.port))
        async with running(gateway), asyncio.timeout(30):
            while not sub.messages:
                await asyncio.sleep(0.1)
    payload = json.loads(sub.messages[0].payload)
    jsonschema.validate(payload, messages())
    assert payload["system"]["restarts"] == {"first": 1}
    assert payload["system"]["rss"] > 20 * 2**20
    assert len(sub.messages[0].payload) < 700


async def test_a_restore_that_was_interrupted_is_finished_at_the_next_start(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, config())
    state = tmp_path / "state"
    (state / ".restore-x").mkdir(parents=True)
    new = state / ".restore-x/edged.yaml"
    new.write_text(json.dumps(config() | {"gateway": {"id": "plant-9"}}))
    begin(state, [Step(str(gateway.config), str(state / "old/edged.yaml"), str(new))], [state / ".restore-x"])
    async with running(gateway):
        assert (await gateway.status())["gateway"] == "plant-9"
        assert (state / "old/edged.yaml").exists()
        assert not (state / ".restore-x").exists()
