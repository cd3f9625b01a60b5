"""Anything else: JSON, or one bare value, on topics that the configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edged.adapter import PermanentError
from edged_mqtt import topics
from edged_mqtt.config import MqttDevice
from edged_mqtt.path import ABSENT, Place
from edged_mqtt.point import MqttPoint

from .base import Message, Outgoing, Preset, misplaced, online, parsed, payload_of


class Plain(Preset):
    """A device with one topic, or points with topics of their own."""

    expect = 3600.0

    def check(self, device: MqttDevice, name: str) -> str:
        """See the base class."""
        if not device.topic and any(not point.topic for point in device.points.values()):
            return "it needs a `topic`, or one at each of its points"
        if not device.codec:
            return misplaced(device, "ports", "downlink_port", "confirmed")
        return "" if device.topic else f"its `codec` needs a `topic` of {name}"

    def filters(self, device: MqttDevice, name: str) -> Sequence[str]:
        """As configured."""
        own = [device.topic, device.availability, *(point.topic for point in device.points.values())]
        return list(dict.fromkeys(one.replace("{id}", name) for one in own if one))

    def read(self, device: MqttDevice, name: str, topic: str, payload: bytes) -> Message | None:
        """JSON, or a bare value. A point's own topic is its part; one with wildcards is one part."""
        if device.availability and topic == device.availability.replace("{id}", name):
            return Message(online=online(payload))
        levels = topic.split("/")
        own = {point.topic for point in device.points.values() if point.topic}
        part = next((one for one in own if topics.matches(one.replace("{id}", name).split("/"), levels)), "")
        if device.codec and not part:
            return Message(frame=payload, port=device.downlink_port or 1)
        found = parsed(payload)
        if found is ABSENT:
            return Message(part, problem="the message is neither JSON nor text")
        time = Place.parse(device.time).find(found) if device.time else None
        return Message(part, values=found, whole=found, time=None if time is ABSENT else time)

    def write(self, device: MqttDevice, name: str, point: str, spec: MqttPoint, value: Any) -> Outgoing:  # noqa: ARG002  # likewise
        """To the point's `write_topic`."""
        if not spec.write_topic:
            raise PermanentError(f"{point} has no `write_topic`", reason="not-writable")
        return Outgoing(spec.write_topic.replace("{id}", name), payload_of(spec, point, value))
