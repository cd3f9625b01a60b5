"""ThingsBoard's side of the broker, played: telemetry, RPC through the whole daemon, an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.publish as paho_publish
import pytest

from tests.support.forwarding import POINTS, gateway, through_an_outage
from tests.support.mosquitto import Mosquitto
from tests.support.plant import plant
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto


def telemetry(subscriber: Subscriber) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(device, milliseconds, values) of all that came."""
    for message in subscriber.messages:
        if message.topic == "v1/gateway/telemetry":
            for device, entries in orjson.loads(message.payload).items():
                for entry in entries:
                    yield device, entry["ts"], entry["values"]


def full(subscriber: Subscriber) -> dict[tuple[str, float], int]:
    """The time of each sample that came, by device and the number of the poll, which is its value."""
    return {(device, values["p0"]): ts for device, ts, values in telemetry(subscriber) if len(values) == len(POINTS)}


async def test_a_widget_writes_a_point_and_gets_its_answer(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, "v1/#") as subscriber:
        settings = {"connector": "thingsboard", "url": f"mqtt://127.0.0.1:{broker.port}"}
        async with plant(tmp_path / "gateway", **settings):
            await until(lambda: any(values.get("setpoint") == 7 for *_, values in telemetry(subscriber)))
            assert subscriber.messages[0].topic == "v1/gateway/connect"
            for number, value in ((1, 42), (2, 9999)):
                request = {"device": "chiller", "data": {"id": number, "method": "setpoint", "params": value}}
                await asyncio.to_thread(
                    paho_publish.single, "v1/gateway/rpc", orjson.dumps(request), qos=1, hostname="127.0.0.1",
                    port=broker.port,
                )  # fmt: skip
            await until(lambda: any(values.get("setpoint") == 42 for *_, values in telemetry(subscriber)))

            def answers() -> dict[int, Any]:
                said = [orjson.loads(one.payload) for one in subscriber.messages if one.topic == "v1/gateway/rpc"]
                return {one["id"]: one["data"] for one in said if "id" in one}

            await until(lambda: len(answers()) == 2)
            assert answers()[1] == {"success": True, "state": "verified", "value": 42}
            assert (answers()[2]["success"], answers()[2]["state"]) == (False, "rejected")


async def test_an_outage_loses_nothing_and_times_stay_as_they_were(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker", persistence=True) as broker, subscribed(broker.port, "v1/#") as subscriber:
        async with gateway(tmp_path / "buffer.db", broker.port, connector="thingsboard") as one:
            await through_an_outage(one, broker, before=3, after=3)
            assert (await one.saved()) == {"delivered": 16 * 500, "pending": 0, "dead": 0}
            await until(lambda: len(full(subscriber)) == 160)
    got = full(subscriber)
    assert got.keys() == {(f"d{i}", float(poll)) for i in range(10) for poll in range(1, 17)}
    assert all(3590 < (got["d0", 16.0] - got["d0", float(poll)]) / 1000 < 3660 for poll in range(4, 14))
