"""The Things Stack v3 (The Things Network, The Things Industries) with its MQTT server.

Sources: thethingsindustries.com/docs, "MQTT Server" and "Data Formats". Its MQTT server speaks 3.1.1 and QoS 0 only:
what comes while the gateway is away is lost.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import orjson

from edged_mqtt.config import MqttDevice
from edged_mqtt.path import ABSENT

from .base import Message, NetworkServer, Outgoing, an_object, lorawan_extra, number, unbase64


class TheThingsStack(NetworkServer):
    """Uplinks as `v3/APPLICATION@TENANT/devices/ID/up`, with the frame and what a payload formatter made of it."""

    protocol: ClassVar[Literal["auto", "3.1.1"]] = "3.1.1"

    def filters(self, device: MqttDevice, name: str) -> Sequence[str]:  # noqa: ARG002  # the same for all
        """Uplinks."""
        return [f"v3/{self.bus.application}/devices/{name}/up"]

    def read(self, device: MqttDevice, name: str, topic: str, payload: bytes) -> Message | None:  # noqa: ARG002  # likewise
        """An ApplicationUp with an uplink message."""
        found = an_object(payload)
        if isinstance(found, str):
            return Message(problem=f"the message {found}")
        self.learn(name, topic)
        uplink = found.get("uplink_message")
        if not isinstance(uplink, Mapping):
            return Message(whole=found, problem="there is no `uplink_message` in it")
        if found.get("simulated") or uplink.get("simulated"):
            return Message(whole=found, note="an uplink that the console simulated is not taken for a reading")
        port, data = number(uplink.get("f_port")), uplink.get("frm_payload")
        frame = unbase64(data) if data else None
        if data and frame is None:
            return Message(whole=found, problem="`frm_payload` is no base64")
        decoded = uplink.get("decoded_payload")
        return Message(
            values=decoded if isinstance(decoded, dict) else ABSENT,
            whole=found,
            extra=lorawan_extra(uplink.get("rx_metadata"), port, uplink.get("f_cnt", 0)),
            time=uplink.get("received_at") or found.get("received_at"),
            frame=frame,
            port=port,
        )

    def downlink(self, device: MqttDevice, name: str, frame: bytes, port: int) -> Outgoing:
        """A downlink for the end of the queue. Raises PermanentError where its topic is not known yet."""
        content = {"f_port": port, "frm_payload": base64.b64encode(frame).decode(), "priority": "NORMAL",
                   "confirmed": device.confirmed}  # fmt: skip
        return Outgoing(f"v3/{self.application(name)}/devices/{name}/down/push", orjson.dumps({"downlinks": [content]}))
