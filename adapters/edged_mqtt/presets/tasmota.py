"""Tasmota with its usual topics, `%prefix%/%topic%/`.

Source: tasmota.github.io/docs, "MQTT", "Commands". The `Time` of its messages is local time without a zone, so that of
arrival counts, unless the device adds the zone (`SetOption52 1`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edged.adapter import PermanentError
from edged_mqtt.config import MqttDevice
from edged_mqtt.path import ABSENT
from edged_mqtt.point import MqttPoint

from .base import Message, Outgoing, Preset, online, parsed

_OBJECTS = frozenset({"SENSOR", "STATE", "RESULT"})


class Tasmota(Preset):
    """`tele/TOPIC/SENSOR` and `STATE` every five minutes, `stat/TOPIC/RESULT` and others at once, `LWT`."""

    expect = 660.0

    def filters(self, device: MqttDevice, name: str) -> Sequence[str]:  # noqa: ARG002  # the same for all
        """Everything that it tells."""
        return [f"tele/{name}/+", f"stat/{name}/+"]

    def usual(self, part: str) -> bool:
        """Sensors, the state and the results of commands are objects, whose keys do not collide."""
        return part in _OBJECTS

    def read(self, device: MqttDevice, name: str, topic: str, payload: bytes) -> Message | None:  # noqa: ARG002  # likewise
        """One of its messages; the last level of the topic is the part."""
        part = topic.rpartition("/")[2]
        if part == "LWT":
            return Message(online=online(payload))
        found = parsed(payload)
        if part in _OBJECTS and not isinstance(found, dict):
            return Message(part, problem="the message is no JSON object")
        if found is ABSENT:
            return Message(part, problem="the message is no text")
        time = found.get("Time") if isinstance(found, dict) else None
        return Message(part, values=found, whole=found, time=time if isinstance(time, str) else None)

    def write(self, device: MqttDevice, name: str, point: str, spec: MqttPoint, value: Any) -> Outgoing:  # noqa: ARG002  # likewise
        """`cmnd/TOPIC/COMMAND` with the bare value; the command is the last key of the point."""
        command = spec.write_field or (point if spec.field is None else spec.field) or spec.topic
        command = command.rpartition(".")[2]
        if not command.isascii() or not command.isalnum():
            raise PermanentError(f"{command!r} is no command of Tasmota", reason="not-writable")
        if isinstance(value, bool):
            value = "ON" if value else "OFF"
        return Outgoing(f"cmnd/{name}/{command}", str(value).encode())
