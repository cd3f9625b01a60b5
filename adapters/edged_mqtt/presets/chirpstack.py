"""ChirpStack v4 with its MQTT integration and the JSON encoding.

Sources: chirpstack.io/docs, "Event types" and "MQTT integration"; the messages are those of
`api/proto/integration/integration.proto`, as protobuf's JSON mapping writes them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from edged_mqtt.config import MqttDevice
from edged_mqtt.path import ABSENT

from .base import Message, NetworkServer, Outgoing, frame_of, lorawan_extra, number

_EUI = 16
"""Digits."""


class ChirpStack(NetworkServer):
    """Uplinks as `application/ID/device/DEVEUI/event/up`, with the frame and what ChirpStack's own codec made of it."""

    def check(self, device: MqttDevice, name: str) -> str:
        """See the base class."""
        if len(name) != _EUI or not set(name.casefold()) <= set("0123456789abcdef"):
            return f"its `id` must be the DevEUI, 16 hexadecimal digits, such as 24e124136b502217, and not {name!r}"
        return super().check(device, name)

    def filters(self, device: MqttDevice, name: str) -> Sequence[str]:  # noqa: ARG002  # the same for all
        """Uplinks; whether it joined, and how its battery is, is not asked for."""
        return [f"application/{self.bus.application}/device/{name.casefold()}/event/up"]

    def uplink(self, found: Mapping[str, Any]) -> Message:
        """An UplinkEvent."""
        port, decoded = number(found.get("fPort")), found.get("object")
        frame, problem = frame_of(found, "data")
        return Message(
            values=decoded if isinstance(decoded, dict) else ABSENT,
            whole=found,
            extra=lorawan_extra(found.get("rxInfo"), port, found.get("fCnt", 0)),
            time=found.get("time"),
            frame=frame,
            port=port,
            problem=problem,
        )

    def downlink(self, device: MqttDevice, name: str, frame: bytes, port: int) -> Outgoing:
        """A DownlinkCommand. Raises PermanentError where its topic is not known yet."""
        content = {"devEui": name.casefold(), "confirmed": device.confirmed, "fPort": port,
                   "data": base64.b64encode(frame).decode()}  # fmt: skip
        return Outgoing(
            f"application/{self.application(name)}/device/{name.casefold()}/command/down", orjson.dumps(content)
        )
