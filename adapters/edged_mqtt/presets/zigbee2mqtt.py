"""Zigbee2MQTT with its usual JSON output.

Source: zigbee2mqtt.io, "MQTT topics and messages", "Device availability".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edged_mqtt.config import MqttDevice
from edged_mqtt.path import ABSENT
from edged_mqtt.point import MqttPoint

from .base import Message, Outgoing, Preset, an_object, online, payload_of


class Zigbee2Mqtt(Preset):
    """The state of a device as `zigbee2mqtt/NAME`; whether it is there as `zigbee2mqtt/NAME/availability`."""

    expect = 25 * 3600.0  # after so long Zigbee2MQTT itself takes a battery device for gone

    @property
    def _base(self) -> str:
        return self.bus.base or "zigbee2mqtt"

    def filters(self, device: MqttDevice, name: str) -> Sequence[str]:  # noqa: ARG002  # the same for all
        """Its state, its availability, and that of Zigbee2MQTT itself."""
        base = self._base
        return [f"{base}/{name}", f"{base}/{name}/availability", f"{base}/bridge/state"]

    def read(self, device: MqttDevice, name: str, topic: str, payload: bytes) -> Message | None:  # noqa: ARG002  # likewise
        """A state, or whether somebody is there."""
        what = topic.removeprefix(f"{self._base}/")
        if what == "bridge/state":
            return Message(online=online(payload), bridge=True)
        if what == f"{name}/availability":
            return Message(online=online(payload))
        if what != name:
            return None
        found = an_object(payload)
        if isinstance(found, str):
            return Message(problem=f"the message {found}" if payload else "", values=ABSENT)
        return Message(values=found, whole=found, time=found.get("last_seen"))

    def write(self, device: MqttDevice, name: str, point: str, spec: MqttPoint, value: Any) -> Outgoing:  # noqa: ARG002  # likewise
        """`zigbee2mqtt/NAME/set`."""
        return Outgoing(f"{self._base}/{name}/set", payload_of(spec, point, value))
