"""Shelly devices of all generations.

Sources: shelly-api-docs.shelly.cloud, "MQTT" of gen1 and of gen2 (which gen3 and gen4 share), "Notifications", and the
components Switch, Light and Cover. Gen2 tells its values in `PREFIX/events/rpc` (RPC status notifications) or in
`PREFIX/status/COMPONENT` (generic status update), gen1 each in a topic of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from edged.adapter import PermanentError
from edged_mqtt.config import MqttDevice
from edged_mqtt.path import ABSENT
from edged_mqtt.point import MqttPoint

from .base import Message, Outgoing, Preset, an_object, online, parsed

_GEN1 = "shellies/"
_STATUS = frozenset({"NotifyStatus", "NotifyFullStatus"})
_METHODS = {
    ("switch", "output"): ("Switch.Set", "on"),
    ("light", "output"): ("Light.Set", "on"),
    ("light", "brightness"): ("Light.Set", "brightness"),
    ("cover", "current_pos"): ("Cover.GoToPosition", "pos"),
}
"""(Component, what is read) → (what sets it, by which parameter)."""


class Shelly(Preset):
    """A component's values are found by its key, such as `switch:0.apower`, whichever way they came."""

    expect = 25 * 3600.0  # devices with a battery wake twice a day

    def filters(self, device: MqttDevice, name: str) -> Sequence[str]:  # noqa: ARG002  # the same for all
        """Both generations: nobody need know which it is."""
        return [f"{name}/online", f"{name}/events/rpc", f"{name}/status/+", f"{_GEN1}{name}/#"]

    def read(self, device: MqttDevice, name: str, topic: str, payload: bytes) -> Message | None:  # noqa: ARG002  # likewise
        """A status, or whether it is there."""
        old = topic.startswith(_GEN1)
        part = topic.removeprefix(_GEN1).removeprefix(f"{name}/")
        if part == "online":
            return Message(online=online(payload))
        if old:
            found = parsed(payload)
            if part.endswith("/command"):
                return None
            return Message(part, problem="the message is no text") if found is ABSENT else Message(part, values=found)
        content = an_object(payload)
        if isinstance(content, str):
            return Message(problem=f"the message {content}")
        if part.startswith("status/"):
            return Message(values={part.removeprefix("status/"): content}, whole=content)
        params = content.get("params")
        if content.get("method") not in _STATUS or not isinstance(params, Mapping):
            return Message(whole=content)  # an event, such as a button: no status
        return Message(values=params, whole=content, time=params.get("ts"))

    def write(self, device: MqttDevice, name: str, point: str, spec: MqttPoint, value: Any) -> Outgoing:  # noqa: ARG002  # likewise
        """An RPC, which the device answers; with gen1 `shellies/NAME/relay/0/command`."""
        if spec.topic:
            payload = ("on" if value else "off") if isinstance(value, bool) else str(value)
            return Outgoing(f"{_GEN1}{name}/{spec.topic}/command", payload.encode())
        where = point if spec.field is None else spec.field
        component, _, key = where.rpartition(".")
        kind, colon, number = component.partition(":")
        if (kind, key) not in _METHODS or not colon or not (number.isascii() and number.isdecimal()):
            known = ", ".join(f"{one}:0.{two}" for one, two in _METHODS)
            raise PermanentError(f"{where} of a Shelly cannot be written; {known} can", reason="not-writable")
        method, parameter = _METHODS[kind, key]
        content = {"method": method, "params": {"id": int(number), parameter: value}}
        return Outgoing(f"{name}/rpc", orjson.dumps(content), answer="rpc")
