"""One bad flow, connector or connection never affects another, and says so once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.cli.live import render_status
from edged.testing.audit import Audit
from tests.support.checker import rows
from tests.support.gateway import Gateway, running
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import subscribed

pytestmark = pytest.mark.mosquitto

FOREIGN = '''
"""Connectors of somebody else, which fail."""
from dataclasses import dataclass
import asyncio

from edged.config.base import ConnectionConfig
from edged.uplink.api import Message, Outcome, Pacing, Verdict
from edged.uplink.connectors.mqtt import JsonEncoder, MqttConnection


@dataclass(frozen=True, kw_only=True)
class Config(ConnectionConfig):
    file: str = ""
    topic: str = ""


class Encoder(JsonEncoder):
    def __init__(self, config, context):
        super().__init__(MqttConnection(connector="mqtt", url="mqtt://b", topic=config.topic or "x"), context)
        self.bad = config.topic == "bad"

    def encode(self, chunk, envelope):
        if self.bad:
            raise RuntimeError("a bug in an encoder")
        return super().encode(chunk, envelope)


class Link:
    window, pacing = 4, Pacing(retry_max=0.5)

    def __init__(self, file):
        self.file = file

    async def connect(self, epoch):
        self.over = asyncio.Event()
        return "here"

    def fits(self, message):
        return True

    async def send(self, message):
        with open(self.file, "ab") as file:
            file.write(message.payload + b"\\n")
        return Outcome(Verdict.DELIVERED)

    async def announce(self): ...

    async def report(self): ...

    async def lost(self):
        await self.over.wait()
        return "over"

    async def close(self):
        self.over.set()


class Crashing:
    connection_config = Config

    def encoder(self, config, context):
        return Encoder(config, context)

    def link(self, config, context):
        return Link(config.file)


class Broken(Crashing):
    def link(self, config, context):
        raise RuntimeError("a bug in a constructor")


CRASHING, BROKEN = Crashing(), Broken()
'''


def installed(folder: Path) -> Path:
    """A folder with the packages of somebody else."""
    info = folder / "foreign-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "foreign.py").write_text(FOREIGN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edged.connectors]\ncrashing = foreign:CRASHING\nbroken = foreign:BROKEN\n")
    return folder


def adds(expression: str) -> dict[str, Any]:
    return {"steps": [{"map": {"add": {"made": expression}}}], "connections": {"cloud": {}}}


LARGE = "str(2 ** 2000)"
FLOWS: dict[str, dict[str, Any]] = {
    "good": {"connections": {"cloud": {}}},
    "raises": adds("low / (low - low)"),
    "infinite": adds("low * 0 + 1e308 * 10"),
    "endless": adds(" + ".join([LARGE] * 8) + " + " + LARGE),
    "slow": adds(" + ".join(["(2 ** 2000) % 7"] * 15)),
    "fine": {"connections": {"foreign": {"topic": "fine"}}},
    "crashes": {"connections": {"foreign": {"topic": "bad"}}},
    "off": {"enabled": False, "connections": {"cloud": {}}},
}


def config_of(folder: Path, port: int) -> dict[str, Any]:
    cloud = {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{port}"}
    return {
        "gateway": {"id": "plant-7"},
        "buffer": {"flush": "100ms"},
        "buses": {"lab": {"adapter": "sim"}},
        "devices": {"oven": {"bus": "lab", "every": "50ms", "points": {"low": {}, "high": {}}}},
        "connections": {
            "cloud": cloud,
            "uncertified": {
                **cloud, "url": f"mqtts://127.0.0.1:{port}", "client_id": "x", "ca": str(folder / "nowhere.pem"),
            },
            "foreign": {"connector": "crashing", "file": str(folder / "sent.jsonl")},
            "broken": {"connector": "broken"},
            "spare": {**cloud, "client_id": "y", "enabled": False},
        },
        "flows": FLOWS,
    }  # fmt: skip


async def test_what_is_bad_stays_alone_and_says_so_once(tmp_path: Path) -> None:
    site = installed(tmp_path / "site")
    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, "edged/plant-7/data") as subscriber:
        config = config_of(tmp_path, broker.port)
        gateway = Gateway(tmp_path / "gateway", config, prefix=("env", f"PYTHONPATH={site}"))
        async with running(gateway):
            await gateway.until(
                lambda status: all(
                    status["faults"].get(name, {}).get("restarts", 0) >= 2
                    for name in ("flow crashes to foreign", "connection broken")
                ),
                40,
            )
            await asyncio.sleep(0.5)
            status = await gateway.status()
    assert set(status["faults"]) <= {"flow crashes to foreign", "connection broken", "connection uncertified"}
    assert status["faults"]["flow crashes to foreign"]["detail"] == "RuntimeError: a bug in an encoder"
    flows = {name: one["connections"] for name, one in status["flows"].items()}
    assert flows["good"]["cloud"]["sent"] > 100
    for name in ("good", "raises", "infinite", "endless", "slow"):
        assert flows[name]["cloud"]["queued"] < 100
        assert flows[name]["cloud"]["in"] == flows["good"]["cloud"]["in"]
    assert flows["fine"]["foreign"]["queued"] < 100
    assert (flows["crashes"]["foreign"]["sent"], flows["fine"]["foreign"]["sent"] > 100) == (0, True)

    shown = render_status(status)
    assert "  flow good: stored" in shown
    assert shown.count("values could not be worked out, the last:") == 3
    assert "  flow off: deactivated (`enabled: false`)" in shown
    assert "connection spare: deactivated (`enabled: false`)" in shown
    assert "deactivated (all its flows" not in shown
    idle = render_status({**status, "connections": {}, "flows": {"off": status["flows"]["off"]}})
    assert "connection cloud: deactivated (all its flows have `enabled: false`), " in idle
    assert "readings wait" in idle
    assert "flow crashes to foreign was started again" in shown

    audit = Audit()
    made: dict[str, set[Any]] = {}
    for message in subscriber.messages:
        payload = orjson.loads(message.payload)
        audit.take(payload)
        for _, _, values in rows(payload):
            made.setdefault(payload["flow"], set()).add(values.get("made"))
    assert (audit.missing, audit.duplicates, audit.out_of_order) == ([], 0, 0)
    assert made["raises"] == made["infinite"] == made["endless"] == {None}
    assert made["slow"] == {15 * (2**2000 % 7)}
    sent = [orjson.loads(line) for line in (tmp_path / "sent.jsonl").read_bytes().splitlines()]
    assert {one["flow"] for one in sent} == {"fine"}

    log = gateway.lines()
    assert log.count("cannot be worked out") == 3
    for flow in ("raises", "infinite", "endless"):
        assert log.count(f"flow {flow} to cloud: what cannot be worked out") == 1
    assert log.count("flow crashes to foreign failed; this is a bug") == 1
    assert log.count("connection broken failed; this is a bug") == 1
    assert log.count("nowhere.pem") == 1
    assert log.count("cloud: connected after") == 1
