"""A gateway that takes commands over MQTT, a Modbus device to be written, and a sender that hears the results."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.gateway import Gateway
from tests.support.subscriber import Subscriber

COMMANDS, RESULTS = "edged/g/command", "edged/g/command/result"


def config(port: int, broker: int, **connection: Any) -> dict[str, Any]:
    """One Modbus TCP device `plc` on `port` with writable points, sent to the broker."""
    points = {
        "setpoint": {"holding": 10, "type": "int16", "scale": 0.1, "range": [5, 30], "decimals": 1, "writable": True},
        "mode": {"holding": 11, "enum": {0: "off", 1: "heat"}, "writable": True},
        "relay": {"coil": 3, "writable": True, "monitor": True},
        "missing": {"holding": 60_000, "writable": True, "every": "1h"},
        "fixed": {"holding": 12},
    }
    return {
        "gateway": {"id": "g"},
        "buses": {"plc": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": port, "retry_max": "1s"}},
        "devices": {"plc": {"bus": "plc", "unit": 1, "every": "200ms", "timeout": "1s", "points": points}},
        "connections": {
            "cloud": {
                "connector": "mqtt", "url": f"mqtt://127.0.0.1:{broker}", "commands": True, "retry_max": "500ms",
                **connection,
            },
        },
    }  # fmt: skip


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class Sender:
    """Sends commands with MQTT 5."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(
        self, payload: bytes | None = None, *, retain: bool = False, reply: tuple[str, bytes] | None = None,
        message_expiry: int | None = None, topic: str = COMMANDS, **document: Any,
    ) -> None:  # fmt: skip
        """Publish a command, by default one that may wait ten seconds, and wait for the broker's word."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
        if reply is not None:
            properties.ResponseTopic, properties.CorrelationData = reply
        if message_expiry is not None:
            properties.MessageExpiryInterval = message_expiry
        elif "expires" not in document and "time" not in document:
            document = {"time": now(), "ttl": 10, **document}
        content = payload if payload is not None else json.dumps(document).encode()
        self._client.publish(topic, content, qos=1, retain=retain, properties=properties).wait_for_publish(10)

    def post(self, document: dict[str, Any]) -> None:
        """Publish a command without waiting for anybody's word."""
        self._client.publish(COMMANDS, json.dumps(document), qos=1)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def results(subscriber: Subscriber, ident: str | None = None) -> list[dict[str, Any]]:
    """What was told of a command, in order."""
    told = [json.loads(one.payload) for one in subscriber.messages if one.topic == RESULTS]
    return [one for one in told if ident is None or one["id"] == ident]


async def ending(subscriber: Subscriber, ident: str, *, seconds: float = 20) -> dict[str, Any]:
    """The last word on a command."""
    async with asyncio.timeout(seconds):
        while not (final := [one for one in results(subscriber, ident) if one["state"] != "accepted"]):
            await asyncio.sleep(0.01)
    return final[-1]


async def healthy(gateway: Gateway, device: str = "plc", *, connected: bool = True) -> None:
    """Wait until the device answers and the connection is up."""
    async with asyncio.timeout(30):
        while True:
            status = await gateway.status()
            devices = {one["device"]: one["health"] for bus in status["buses"] for one in bus["devices"]}
            up = status["connections"].get("cloud", {}).get("connected", False)
            if devices.get(device) == "ok" and (up or not connected):
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def sending(port: int) -> AsyncIterator[Sender]:
    """A sender while the block lasts."""
    sender = Sender(port)
    try:
        yield sender
    finally:
        sender.close()


def gateway_in(folder: Path, port: int, broker: int, **settings: Any) -> Gateway:
    """The daemon with `config`."""
    return Gateway(folder, config(port, broker, **settings))
