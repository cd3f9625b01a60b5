"""The Things Stack v3 (The Things Network, The Things Industries) with its MQTT server.

Sources: thethingsindustries.com/docs, "MQTT Server" and "Data Formats". Its MQTT server speaks 3.1.1 and QoS 0 only:
what comes while the gateway is away is lost.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import orjson

from edged_mqtt.config import MqttDevice
from edged_mqtt.path import ABSENT

from .base import Message, NetworkServer, Outgoing, frame_of, lorawan_extra, number


class TheThingsStack(NetworkServer):
    """Uplinks as `v3/APPLICATION@TENANT/devices/ID/up`, with the frame and what a payload formatter made of it."""

    protocol: ClassVar[Literal["auto", "3.1.1"]] = "3.1.1"

    def filters(self, device: MqttDevice, name: str) -> Sequence[str]:  # noqa: ARG002  # the same for all
        """Uplinks."""
        return [f"v3/{self.bus.application}/devices/{name}/up"]

    def uplink(self, found: Mapping[str, Any]) -> Message:
        """An ApplicationUp with an uplink message."""
        uplink = found.get("uplink_message")
        if not isinstance(uplink, Mapping):
            return Message(whole=found, problem="there is no `uplink_message` in it")
        if found.get("simulated") or uplink.get("simulated"):
            return Message(whole=found, note="an uplink that the console simulated is not taken for a reading")
        port, decoded = number(uplink.get("f_port")), uplink.get("decoded_payload")
        frame, problem = frame_of(uplink, "frm_payload")
        return Message(
            values=decoded if isinstance(decoded, dict) else ABSENT,
            whole=found,
            extra=lorawan_extra(uplink.get("rx_metadata"), port, uplink.get("f_cnt", 0)),
            time=uplink.get("received_at") or found.get("received_at"),
            frame=frame,
            port=port,
            problem=problem,
        )

    def downlink(self, device: MqttDevice, name: str, frame: bytes, port: int) -> Outgoing:
        """A downlink for the end of the queue. Raises PermanentError where its topic is not known yet."""
        content = {"f_port": port, "frm_payload": base64.b64encode(frame).decode(), "priority": "NORMAL",
                   "confirmed": device.confirmed}  # fmt: skip
        return Outgoing(f"v3/{self.application(name)}/devices/{name}/down/push", orjson.dumps({"downlinks": [content]}))
