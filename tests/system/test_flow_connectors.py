"""Flows to every connector: what is announced is what flows leave, and each flow proves itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.clock import mono_us, wall_us
from edged.config.base import DeviceConfig, PointConfig
from edged.config.flows import AggregateConfig, BindingConfig, FlowConfig, MapConfig, MatchConfig, StepConfig
from edged.config.types import Duration, Name
from edged.model import Sample
from edged.testing.audit import Audit
from edged.testing.receiver import Broker, receive
from edged.uplink.connectors.homeassistant import HomeAssistantConnection
from edged.uplink.connectors.sparkplug import SparkplugConnection
from edged.uplink.connectors.thingsboard import ThingsBoardConnection
from tests.support.flowing import config_of, running
from tests.support.mosquitto import Mosquitto
from tests.support.sparkplug import Host, parsed
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto

POINTS = {Name("supply"): PointConfig(unit="°C", writable=True), Name("ret"): PointConfig(unit="°C")}
DEVICES = {name: DeviceConfig(bus=Name("line"), points=POINTS) for name in ("chiller", "boiler")}
CLOUD = {"cloud": BindingConfig()}
HOT = FlowConfig(
    match=(MatchConfig(key="chiller/*"),),
    steps=(
        StepConfig(filter="supply > 50"),
        StepConfig(map=MapConfig(convert={"supply": "°F"}, rename={"ret": "back"}, add={"spread": "supply - ret"})),
    ),
    connections=CLOUD,
)
MINUTES = FlowConfig(
    steps=(StepConfig(aggregate=AggregateConfig(every=Duration(60), functions=("avg",))),), connections=CLOUD
)
PLAIN = FlowConfig(match=(MatchConfig(key="boiler/supply"),), connections=CLOUD)


async def put(buffer: Any, begin: int, end: int) -> None:
    """So many seconds, each device once in each; `supply` counts them."""
    start = wall_us() // 60_000_000 * 60_000_000 - 600_000_000
    for second in range(begin, end):
        for device in DEVICES:
            buffer.count(read=2)
            time = start + second * 1_000_000
            assert buffer.put(Sample(device, time, mono_us(), ("supply", "ret"), [float(second), 20.0]))
    await buffer.flush()


def heard(subscriber: Subscriber) -> Host:
    host = Host()
    for message in subscriber.messages:
        host.take(message.topic, message.payload)
    return host


async def test_sparkplug_births_what_flows_leave(tmp_path: Path) -> None:
    topics = tuple(f"spBv1.0/edged/{kind}/#" for kind in ("NBIRTH", "NDEATH", "DBIRTH", "DDEATH", "NDATA", "DDATA"))
    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, *topics) as subscriber:
        config = config_of(broker.port, "sparkplug", SparkplugConnection, hot=HOT, minutes=MINUTES)
        async with running(tmp_path / "buffer.db", config, devices=DEVICES) as (buffer, uplink):
            await until(lambda: uplink.state().get("connected"))
            await put(buffer, 0, 130)
            await until(lambda: buffer.stats().connections["cloud/hot"].pending == 0)
            await until(lambda: buffer.stats().connections["cloud/minutes"].delivered == 480)
            await asyncio.sleep(0.2)
            host = heard(subscriber)
    assert host.errors == []
    assert (host.audit.missing, host.audit.duplicates) == ([], 0)
    born = {
        (message.topic.rpartition("/")[2], metric.name): dict(
            zip(metric.properties.keys, (value.string_value for value in metric.properties.values), strict=True)
        ).get("engUnit")
        for message in subscriber.messages
        if "/DBIRTH/" in message.topic
        for metric in parsed(message.payload).metrics
    }
    averages = {f"{point}_{name}" for point in ("supply", "ret") for name in ("avg", "count")}
    assert {name for device, name in born if device == "chiller"} == averages | {"supply", "back", "spread"}
    assert {name for device, name in born if device == "boiler"} == averages
    assert (born["chiller", "supply"], born["chiller", "back"], born["boiler", "supply_avg"]) == ("°F", "°C", "°C")
    assert [value for device, name, _, value, _ in host.readings if (device, name) == ("chiller", "supply")] == [
        pytest.approx(second * 1.8 + 32) for second in range(51, 130)
    ]
    assert [value for device, name, _, value, _ in host.readings if name == "supply_avg"] == [29.5, 29.5, 89.5, 89.5]
    assert {value for _, name, _, value, _ in host.readings if name == "supply_count"} == {60}
    assert len([kind for kind in host.kinds if kind.startswith("DBIRTH")]) <= 4  # `spread` may need another type


async def test_homeassistant_discovers_what_flows_leave(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, "homeassistant/#", "edged/#") as subscriber:
        config = config_of(broker.port, "homeassistant", HomeAssistantConnection, hot=HOT, plain=PLAIN)
        async with running(tmp_path / "buffer.db", config, devices=DEVICES) as (buffer, uplink):
            await until(lambda: uplink.state().get("connected"))
            await put(buffer, 40, 60)
            await until(lambda: all(one.pending == 0 for one in buffer.stats().connections.values()))
            await until(lambda: sum("/config" in message.topic for message in subscriber.messages) == 5)
    found = {
        message.topic.split("/")[3]: orjson.loads(message.payload)
        for message in subscriber.messages
        if message.topic.endswith("/config") and message.payload
    }
    assert set(found) == {"connected", "chiller_supply", "chiller_back", "chiller_spread", "boiler_supply"}
    assert found["chiller_supply"]["unit_of_measurement"] == "°F"
    assert found["boiler_supply"]["unit_of_measurement"] == "°C"
    audit, seen = Audit(), set()
    for message in subscriber.messages:
        if "/state/" in message.topic or "/history/" in message.topic:
            document = orjson.loads(message.payload)
            audit.take(document)
            seen.add((document["flow"], message.topic.rpartition("/")[2], *sorted(document["values"])))
    assert seen == {("hot", "chiller", "back", "spread", "supply"), ("plain", "boiler", "supply")}
    assert (audit.missing, audit.readings) == ([], 9 * 3 + 20)


async def test_thingsboard_gets_what_flows_leave_and_a_receiver_can_prove_it(tmp_path: Path) -> None:
    proofs: list[dict[str, Any]] = []

    async def listen(port: int) -> None:
        async for proof in receive(Broker(f"mqtt://127.0.0.1:{port}"), "v1/gateway/telemetry"):
            proofs.append(proof)  # noqa: PERF401  # the others look at it meanwhile

    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, "v1/gateway/telemetry") as subscriber:
        listener = asyncio.create_task(listen(broker.port))
        config = config_of(broker.port, "thingsboard", ThingsBoardConnection, hot=HOT, minutes=MINUTES, plain=PLAIN)
        async with running(tmp_path / "buffer.db", config, devices=DEVICES) as (buffer, _):
            await asyncio.sleep(0.3)
            await put(buffer, 0, 70)
            await until(lambda: buffer.stats().connections["cloud/hot"].pending == 0)
            await until(lambda: buffer.stats().connections["cloud/plain"].pending == 0)
            await until(lambda: buffer.stats().connections["cloud/minutes"].delivered == 240)
            await until(lambda: {one["flow"] for one in proofs} == {"hot", "minutes", "plain"})
        listener.cancel()
        await asyncio.wait([listener])
    audit = Audit(from_the_beginning=False)
    for one in proofs:
        audit.take(one)
    assert (audit.missing, audit.duplicates) == ([], 0)
    telemetry = [
        (device, entry["values"])
        for message in subscriber.messages
        for device, entries in orjson.loads(message.payload).items()
        for entry in entries
    ]
    assert ("chiller", {"supply_avg": 29.5, "supply_count": 60, "ret_avg": 20.0, "ret_count": 60}) in telemetry
    assert ("chiller", {"supply": 140.0, "back": 20.0, "spread": 120.0}) in telemetry
    assert ("boiler", {"supply": 10.0}) in telemetry
    assert ("boiler", {"supply": 10.0, "ret": 20.0}) not in telemetry
