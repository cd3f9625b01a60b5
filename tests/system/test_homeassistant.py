"""Home Assistant's side of the broker, played: discovery, states, its own start, commands, an outage."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import paho.mqtt.publish as paho_publish
import pytest

from edged.testing.audit import Audit
from tests.support.forwarding import WINDOW, gateway, through_an_outage
from tests.support.mosquitto import Mosquitto
from tests.support.plant import plant
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto
BASE = "edged/plant-7/ha"


async def said(port: int, topic: str, payload: str) -> None:
    await asyncio.to_thread(paho_publish.single, topic, payload, qos=1, hostname="127.0.0.1", port=port)


def shown(subscriber: Subscriber, device: str, point: str) -> object:
    """What Home Assistant shows now."""
    value: object = "unknown"
    for message in subscriber.messages:
        if message.topic == f"{BASE}/state/{device}":
            value = orjson.loads(message.payload)["values"].get(point, value)
    return value


def snapshots(subscriber: Subscriber) -> list[dict[str, object]]:
    """What was told of the chiller because Home Assistant, or the gateway, had started."""
    return [orjson.loads(one.payload)["values"] for one in subscriber.messages if b"snapshot" in one.payload]


def configured(subscriber: Subscriber, since: int = 0) -> set[str]:
    """The entities that were announced."""
    return {message.topic for message in subscriber.messages[since:] if message.topic.endswith("/config")}


async def test_points_appear_are_shown_and_can_be_switched(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path / "broker") as broker,
        subscribed(broker.port, "homeassistant/#", f"{BASE}/#") as subscriber,
    ):
        settings = {"connector": "homeassistant", "url": f"mqtt://127.0.0.1:{broker.port}"}
        async with plant(tmp_path / "gateway", **settings):
            await until(lambda: shown(subscriber, "chiller", "setpoint") == 7)
            configs = {
                "homeassistant/binary_sensor/edged_plant-7/connected/config",
                "homeassistant/number/edged_plant-7/chiller_setpoint/config",
                "homeassistant/switch/edged_plant-7/chiller_pump/config",
                "homeassistant/sensor/edged_plant-7/chiller_flow/config",
            }
            await until(lambda: len(configured(subscriber)) >= len(configs))  # readings do not wait for all of them
            assert configured(subscriber) == configs
            await said(broker.port, f"{BASE}/set/chiller/pump", "ON")
            await said(broker.port, f"{BASE}/set/chiller/setpoint", "21")
            await until(lambda: shown(subscriber, "chiller", "pump") is True)
            await until(lambda: shown(subscriber, "chiller", "setpoint") == 21)
            await said(broker.port, f"{BASE}/set/chiller/setpoint", "9999")  # beyond its range
            await said(broker.port, f"{BASE}/set/chiller/flow", "1")  # not writable

            await until(lambda: len(snapshots(subscriber)) == 1)
            before = len(subscriber.messages)
            await said(broker.port, "homeassistant/status", "online")
            await until(lambda: len(snapshots(subscriber)) == 2)
            assert configured(subscriber, before) == configs
            assert snapshots(subscriber)[1] == {"setpoint": 21, "pump": True, "flow": 0.9}
        await until(lambda: subscriber.messages[-1].payload == b"offline")


async def test_an_outage_loses_nothing_and_shows_nothing_old(tmp_path: Path) -> None:
    topics = (f"{BASE}/state/#", f"{BASE}/history/#")
    with Mosquitto(tmp_path / "broker", persistence=True) as broker, subscribed(broker.port, *topics) as subscriber:
        async with gateway(tmp_path / "buffer.db", broker.port, connector="homeassistant") as one:
            await through_an_outage(one, broker, before=2, after=2)
            assert (await one.saved()) == {"delivered": 7000, "pending": 0, "dead": 0}
    await asyncio.sleep(0.2)
    audit = Audit()
    old = []
    for message in subscriber.messages:
        document = orjson.loads(message.payload)
        if audit.take(document) and "history" in message.topic:
            old.append(document["values"]["p0"])
    assert (audit.missing, audit.readings) == ([], 14 * 500)
    assert audit.duplicates <= WINDOW
    assert {value for value in old if 3 <= value <= 12} == {float(poll) for poll in range(3, 13)}
    assert shown(subscriber, "d0", "p0") == 14.0
