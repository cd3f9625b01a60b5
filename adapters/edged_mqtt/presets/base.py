"""What every preset says of the messages of a device, and what they share."""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import orjson

from edged.adapter import PermanentError, Value
from edged_mqtt.config import MqttBus, MqttDevice
from edged_mqtt.path import ABSENT, nested
from edged_mqtt.point import MqttPoint


@dataclass(frozen=True, slots=True)
class Message:
    """What one message says of a device."""

    part: str = ""
    """Which of the device's messages it is; a point's `topic` chooses one."""
    values: Any = ABSENT
    """What points are looked for in. ABSENT if it carries none, only the sign that the device is there."""
    whole: Any = ABSENT
    """All of it, for points that begin with `$.`."""
    extra: Mapping[str, Value] = field(default_factory=dict)
    """What the preset knows besides, for points that begin with `@`."""
    time: Any = None
    """When it was measured, as it is written."""
    frame: bytes | None = None
    """The device's own bytes, for a codec."""
    port: int | None = None
    online: bool | None = None
    """Whether the device, or the whole of `bridge`, is there; None if it does not say."""
    bridge: bool = False
    problem: str = ""
    """Why it cannot be read."""
    note: str = ""
    """What a person should know once, though nothing is wrong with it."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish for a write."""

    topic: str
    payload: bytes
    answer: Literal["none", "rpc"] = "none"
    """`rpc`: the device answers on a topic of ours (see `Shelly`)."""


class Preset(ABC):
    """One kind of publisher, on one bus."""

    expect: ClassVar[float]
    """Seconds that a device may usually be silent."""
    protocol: ClassVar[Literal["auto", "3.1.1"]] = "auto"
    lorawan: ClassVar[bool] = False
    """Whether devices send frames through a network server."""

    def __init__(self, bus: MqttBus) -> None:
        self.bus = bus

    @abstractmethod
    def filters(self, device: MqttDevice, name: str) -> Sequence[str]:
        """What to subscribe to for a device; `name` is what it is called there."""

    @abstractmethod
    def read(self, device: MqttDevice, name: str, topic: str, payload: bytes) -> Message | None:
        """What a message of one of these topics says; None if nothing."""

    def check(self, device: MqttDevice, name: str) -> str:  # noqa: ARG002  # for those that look at it
        """What is wrong with a device of this preset; empty if nothing is."""
        return misplaced(device, "topic", "availability", "time") or (
            "" if self.lorawan else misplaced(device, "ports", "downlink_port", "confirmed", "codec")
        )

    def usual(self, part: str) -> bool:
        """Whether a point without `topic` is looked for in this message."""
        return not part

    def downlink(self, device: MqttDevice, name: str, frame: bytes, port: int) -> Outgoing:  # noqa: ARG002  # for those that can
        """The message that queues a frame for a LoRaWAN device. Raises PermanentError."""
        raise PermanentError(f"{name} is no LoRaWAN device", reason="not-writable")

    def write(self, device: MqttDevice, name: str, point: str, spec: MqttPoint, value: Any) -> Outgoing:  # noqa: ARG002  # likewise
        """The message that sets a point. Raises PermanentError."""
        raise PermanentError(f"{point} cannot be written with this preset", reason="not-writable")


class NetworkServer(Preset):
    """One that hands on the frames of LoRaWAN devices."""

    expect = 3 * 3600.0
    lorawan = True

    def __init__(self, bus: MqttBus) -> None:
        super().__init__(bus)
        self._applications: dict[str, str] = {}
        """Device → the application it is in, for downlinks."""

    def read(self, device: MqttDevice, name: str, topic: str, payload: bytes) -> Message | None:  # noqa: ARG002  # as announced
        """An uplink. The application is the second level of its topic."""
        found = an_object(payload)
        if isinstance(found, str):
            return Message(problem=f"the message {found}")
        self._applications[name] = topic.split("/")[1]
        return self.uplink(found)

    @abstractmethod
    def uplink(self, found: Mapping[str, Any]) -> Message:
        """What an uplink says."""

    def application(self, name: str) -> str:
        """That of a device. Raises PermanentError where it is not known yet."""
        known = self._applications.get(name) if self.bus.application == "+" else self.bus.application
        if not known:
            raise PermanentError(
                f"the application of {name} is not known before its first message: set `application` of the bus",
                reason="unknown",
            )
        return known


def misplaced(device: MqttDevice, *settings: str) -> str:
    """A setting that has no meaning here."""
    given = [key for key in settings if getattr(device, key) not in {"", (), None, False}]
    return f"`{given[0]}` has no meaning with this preset" if given else ""


def parsed(payload: bytes) -> Any:
    """A payload: what it is as JSON, else its text; ABSENT if it is neither."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        pass
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError:
        return ABSENT


def an_object(payload: bytes) -> dict[str, Any] | str:
    """A payload that has to be a JSON object, or what is wrong with it."""
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError as exc:
        return f"is no JSON: {exc}" if payload else "is empty"
    return found if isinstance(found, dict) else "is no JSON object"


_ONLINE = {"online": True, "offline": False, "true": True, "false": False, "1": True, "0": False}


def online(payload: bytes) -> bool | None:
    """What an availability topic says, in any of the usual forms; None if it is none of them."""
    found = parsed(payload)
    if isinstance(found, dict):
        found = found.get("state")
    return _ONLINE.get(str(found).strip().casefold())


def frame_of(found: Mapping[str, Any], key: str) -> tuple[bytes | None, str]:
    """(The bytes of an uplink, what is wrong with them); an uplink may have none."""
    data = found.get(key)
    frame = unbase64(data) if data else None
    return frame, f"`{key}` is no base64" if data and frame is None else ""


def unbase64(text: Any) -> bytes | None:
    """Bytes as JSON carries them; None if it is no base64."""
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def number(found: Any) -> int | None:
    """A whole number, or None."""
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def lorawan_extra(received: Any, port: int | None, count: Any) -> dict[str, Value]:
    """`@rssi` and `@snr` of the gateway that heard best, and what else every LoRaWAN message has."""
    found: dict[str, Value] = {}
    gateways = [one for one in received if isinstance(one, dict)] if isinstance(received, list) else []
    heard = [one for one in gateways if isinstance(one.get("rssi"), int | float)]
    if heard:
        best = max(heard, key=lambda one: one["rssi"])
        found["rssi"] = best["rssi"]
        if isinstance(best.get("snr"), int | float):
            found["snr"] = best["snr"]
    if gateways:
        found["gateways"] = len(gateways)
    if port is not None:
        found["fport"] = port
    if number(count) is not None:
        found["fcnt"] = count
    return found


def payload_of(spec: MqttPoint, point: str, value: Any) -> bytes:
    """A value where it belongs in an object, or bare."""
    where = spec.write_field if spec.write_field is not None else (point if spec.field is None else spec.field)
    if not where:
        return value.encode() if isinstance(value, str) else orjson.dumps(value)
    return orjson.dumps(nested(where.removeprefix("$.").split("."), value))
