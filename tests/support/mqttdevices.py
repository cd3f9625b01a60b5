"""Devices that publish to a broker: played by paho, and a bus of the adapter `mqtt-in` that hears them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edged.adapter import Job, Name
from edged.model import Sample, Value
from edged_mqtt import MQTT_IN
from edged_mqtt.bus import Bus
from edged_mqtt.config import MqttBus, MqttDevice
from edged_mqtt.point import MqttPoint


class Publisher:
    """Somebody who publishes, and says what was published to them."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.answer: Callable[[str, bytes], tuple[str, bytes] | None] = lambda *_: None
        """What a device publishes on hearing something."""
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        self.heard.append((message.topic, bytes(message.payload)))
        if (reply := self.answer(*self.heard[-1])) is not None:
            self.client.publish(*reply, qos=1)

    def say(self, topic: str, content: Any, *, retain: bool = False, qos: int = 1) -> None:
        """Publish bytes, a text, or anything else as JSON, and wait until the broker has it."""
        payload = content if isinstance(content, bytes | str) else json.dumps(content)
        self.client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(10)

    def listen(self, *topics: str) -> None:
        """Hear what is published there."""
        done = []
        self.client.on_subscribe = lambda *_: done.append(1)
        self.client.subscribe([(topic, 1) for topic in topics])
        _wait(lambda: bool(done))

    def told(self, count: int) -> list[tuple[str, bytes]]:
        """What was published there, waiting until it is so many."""
        _wait(lambda: len(self.heard) >= count)
        return self.heard


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


@contextmanager
def publisher(port: int) -> Iterator[Publisher]:
    """A publisher that is connected while its context lasts."""
    made = Publisher(port)
    try:
        yield made
    finally:
        made.client.disconnect()
        made.client.loop_stop()


def device(points: Mapping[str, MqttPoint] | None = None, **settings: Any) -> MqttDevice:
    """A device with these points, or a temperature."""
    made = {Name(name): point for name, point in (points or {"temperature": MqttPoint()}).items()}
    return MqttDevice(bus=Name("broker"), points=made, **settings)


@asynccontextmanager
async def hearing(
    port: int, preset: str, devices: Mapping[str, MqttDevice], **settings: Any
) -> AsyncIterator[tuple[Bus, dict[str, Job]]]:
    """A bus whose session is open, and a job with all points of each device."""
    settings = {"client_id": "edged-test", "url": f"mqtt://127.0.0.1:{port}", **settings}
    config = MqttBus(adapter="mqtt-in", preset=preset, **settings)  # type: ignore[arg-type]  # a preset's name
    bus = MQTT_IN.open("broker", config, devices)
    jobs: dict[str, Job] = {
        name: bus.prepare(name, [str(one) for one in spec.points]) for name, spec in devices.items()
    }
    try:
        for job in jobs.values():
            await bus.poll(job)
        yield bus, jobs
    finally:
        await bus.close()


async def fetch(bus: Bus, job: Job, count: int = 1, seconds: float = 20.0) -> list[Sample]:
    """Poll until there are so many samples."""
    samples: list[Sample] = []
    async with asyncio.timeout(seconds):
        while len(samples) < count:
            samples += (await bus.poll(job)).samples
            await asyncio.sleep(0.02)
    return samples


def values(samples: Sequence[Sample]) -> list[dict[str, Value]]:
    """The values by point."""
    return [{one.point: one.value for one in sample.readings()} for sample in samples]


def qualities(sample: Sample) -> dict[str, str]:
    """The qualities by point."""
    return {one.point: str(one.quality) for one in sample.readings()}
