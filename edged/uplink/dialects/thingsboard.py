"""ThingsBoard's gateway API over MQTT: devices, telemetry, attributes and RPC of everything behind this gateway. Pure.

Source: thingsboard.io/docs/reference/gateway-mqtt-api.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from edged import __version__
from edged.buffer.batch import Batch
from edged.config.base import DeviceConfig
from edged.config.model import GatewayConfig
from edged.downlink.api import Command, CommandResult, Incoming, Refused, Reply, State
from edged.errors import PermanentError
from edged.model import GOOD, Sample, Value
from edged.uplink.api import Chunk, Envelope, Lane, Message
from edged.uplink.dialects.cutting import cut
from edged.uplink.dialects.twins import moment
from edged.uplink.incoming import loaded

TELEMETRY, CONNECT, DISCONNECT = "v1/gateway/telemetry", "v1/gateway/connect", "v1/gateway/disconnect"
ATTRIBUTES, RPC = "v1/gateway/attributes", "v1/gateway/rpc"
OWN_TELEMETRY, OWN_ATTRIBUTES = "v1/devices/me/telemetry", "v1/devices/me/attributes"
_METHODS = frozenset({"write", "set"})
_PARAMETERS = frozenset({"point", "value", "expires"})


class TelemetryEncoder:
    """Readings as telemetry: `{"device": [{"ts": 1700000000123, "values": {"supply": 21.5}}]}`.

    ThingsBoard knows no quality and no null: a value that is not good is left out, and its quality is a value of its
    own, `supply.quality`. The gateway's own `edged` telemetry says where the message belongs.
    """

    def __init__(self, gateway: str, max_readings: int, device_name: Callable[[str], str]) -> None:
        self._gateway = gateway
        self._max_readings = max_readings
        self._device_name = device_name
        self._failing: set[tuple[str, str]] = set()

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """Up to `max_readings` readings, of any devices."""
        return cut(batch, self._max_readings, one_device=False)

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message. Raises PermanentError if it can never be encoded."""
        devices: dict[str, list[dict[str, Any]]] = {}
        for sample in chunk.samples:
            values = dict(self._values(sample))
            if values:
                entry = {"ts": sample.time // 1000, "values": values}
                devices.setdefault(self._device_name(sample.device), []).append(entry)
        lane = Lane.HISTORICAL if chunk.replay else envelope.lane
        properties = {
            "gateway": self._gateway, "epoch": envelope.epoch, "lane": str(lane), "first": str(chunk.first),
            "seq": str(envelope.seq), "prev": str(envelope.prev), "readings": str(chunk.readings),
            **({"flow": envelope.flow} if envelope.flow else {}),
        }  # fmt: skip
        try:
            payload = orjson.dumps(devices, option=orjson.OPT_NON_STR_KEYS)
        except TypeError as exc:
            raise PermanentError(f"not representable in JSON: {exc}", reason="unencodable") from exc
        return Message(TELEMETRY, payload, properties=properties)

    def _values(self, sample: Sample) -> Iterator[tuple[str, Value]]:
        for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True)):
            quality, key = sample.quality.get(i, GOOD), (sample.device, str(point))
            bad = quality.status == "bad" or value is None or (isinstance(value, float) and not math.isfinite(value))
            if not bad:
                yield str(point), value
            if bad or quality.status != "good":
                self._failing.add(key)
                yield f"{point}.quality", str(quality) if quality.status != "good" else "bad(decode)"
            elif key in self._failing:
                self._failing.discard(key)
                yield f"{point}.quality", "good"


@dataclass(slots=True)
class Announcements:
    """The devices there are, and what is known of them."""

    gateway: GatewayConfig
    devices: Mapping[str, DeviceConfig]
    counters: Callable[[], Mapping[str, int]]
    device_name: Callable[[str], str]
    _told: set[str] = field(default_factory=set)

    def greeting(self, epoch: str, time: int) -> Sequence[Message]:  # noqa: ARG002  # ThingsBoard takes its own time
        """The devices that are there, and those that are gone."""
        there = {self.device_name(str(name)): one for name, one in self.devices.items() if one.enabled}
        gone = sorted(self._told - there.keys())
        self._told = set(there)
        attributes = {name: _attributes(one) for name, one in there.items()}
        about = {"edged": __version__, "gateway": str(self.gateway.id), "epoch": epoch}
        return [
            *(_json(CONNECT, {"device": name, "type": one.profile or "edged"}) for name, one in there.items()),
            *(_json(DISCONNECT, {"device": name}) for name in gone),
            *([_json(ATTRIBUTES, attributes)] if attributes else []),
            _json(OWN_ATTRIBUTES, about),
        ]

    def health(self, epoch: str, time: int) -> Message:  # noqa: ARG002  # as above
        """What became of the readings, as telemetry of the gateway itself."""
        return _json(OWN_TELEMETRY, {f"readings_{name}": count for name, count in self.counters().items()})

    def will(self, epoch: str, time: int) -> Message:  # noqa: ARG002  # as above
        """ThingsBoard itself notices that a session has ended; this only says so in the gateway's attributes."""
        return _json(OWN_ATTRIBUTES, {"status": "lost"})

    def farewell(self, epoch: str, time: int) -> Message:  # noqa: ARG002  # as above
        """What to say before the session is closed."""
        return _json(OWN_ATTRIBUTES, {"status": "stopped"})


def _attributes(device: DeviceConfig) -> dict[str, Any]:
    points = {
        str(name): {"unit": one.unit, "description": one.description, "writable": one.writable}
        for name, one in device.points.items()
    }
    return {**{f"label_{key}": value for key, value in device.labels.items()}, "points": points}


def _json(topic: str, document: Mapping[str, Any]) -> Message:
    return Message(topic, orjson.dumps(document))


class RpcCommands:
    """Implements `edged.downlink.api.Dialect`: server-side RPC to a device behind the gateway.

    Two forms: method `write` (or `set`) with parameters `{"point": …, "value": …}` and perhaps `expires`; and, as
    ThingsBoard's widgets send it, the name of the point as the method and the bare value as the parameter.
    """

    def __init__(
        self, devices: Mapping[str, DeviceConfig], device_name: Callable[[str], str], valid_for: float, run: str
    ) -> None:
        """`run`: something that no other process has had: ThingsBoard's numbers begin anew with each session."""
        self._run = run
        self._count = 0
        self._devices = devices
        self._device_name = device_name
        self._valid_for = valid_for

    def topics(self) -> Sequence[tuple[str, int]]:
        """See the protocol. Sessions begin anew, so nothing old waits there."""
        return [(RPC, 1)]

    def decode(self, message: Incoming) -> Sequence[Command]:
        """See the protocol."""
        if message.topic != RPC:
            return []
        try:
            document = loaded(message.payload)
            known = document["device"]
            number, method, params = document["data"]["id"], document["data"]["method"], document["data"].get("params")
        except orjson.JSONDecodeError as exc:
            raise Refused("malformed", f"it is not JSON: {exc}") from None
        except (KeyError, TypeError, AttributeError) as exc:
            raise Refused("malformed", f"no RPC of ThingsBoard's gateway API: {exc!r}") from None
        if not (isinstance(known, str) and isinstance(number, int | str) and isinstance(method, str)):
            raise Refused("malformed", "no RPC of ThingsBoard's gateway API: device, id or method is of another type")
        reply = Reply(correlation=orjson.dumps([known, number]))
        if message.retained:
            raise Refused("retained", "a command must not be retained", reply=reply)
        device = next((str(name) for name in self._devices if self._device_name(str(name)) == known), "")
        if not device:
            raise Refused("unknown-point", f"there is no device {known!r}", reply=reply)
        point: object = method
        value, expires = params, None
        if method in _METHODS and isinstance(params, dict):
            point, value, expires = params.get("point"), params.get("value"), moment(params.get("expires"))
            if params.keys() - _PARAMETERS or (expires is None and "expires" in params):
                raise Refused("malformed", 'the parameters are {"point": …, "value": …, "expires": …}', reply=reply)
        if not isinstance(point, str) or point not in [str(name) for name in self._devices[device].points]:
            raise Refused("unknown-point", f"{device} has no point {point!r}", reply=reply)
        if not isinstance(value, bool | int | float | str):
            raise Refused("malformed", "the value is a number, a text, true or false", reply=reply)
        self._count += 1
        return [
            Command(
                id=f"{self._run}-{self._count}", device=device, point=point, value=value, expires=expires,
                valid_for=self._valid_for, requester="ThingsBoard", reply=reply,
            )
        ]  # fmt: skip

    def encode(self, result: CommandResult) -> Sequence[Message]:
        """See the protocol. ThingsBoard takes one answer to a request: the final one."""
        if not result.state.final or not result.reply.correlation:
            return []
        device, number = orjson.loads(result.reply.correlation)
        data: dict[str, Any] = {"success": result.state in {State.EXECUTED, State.VERIFIED}, "state": result.state}
        said = {"reason": result.reason, "error": result.detail, "value": result.value}
        data |= {key: value for key, value in said.items() if value not in {"", None}}
        return [_json(RPC, {"device": device, "id": number, "data": data})]
