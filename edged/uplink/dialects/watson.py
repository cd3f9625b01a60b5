"""The topic scheme of IBM's Watson IoT Platform, for a gateway with devices behind it, or for a device alone. Pure.

Source: IBM's "MQTT connectivity for gateways" and "… for devices"; event payloads have their values under `d` and their
time under `ts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from edged.buffer.batch import Batch
from edged.downlink.api import Command, CommandResult, Incoming, Refused, Reply
from edged.errors import PermanentError
from edged.uplink.api import Chunk, Envelope, Lane, Message
from edged.uplink.dialects.clouds import command_of
from edged.uplink.encoders import presentable
from edged.uplink.incoming import loaded
from edged.uplink.json_commands import JsonCommands
from edged.uplink.moments import text_of
from edged.uplink.payload import VERSION
from edged.uplink.topics import escape, unescape

MAX_MESSAGE = 131_072
USER = "use-token-auth"


@dataclass(frozen=True, slots=True)
class Names:
    """What a gateway and its devices are called. Also the topics of what is no reading, as templates have them."""

    organisation: str
    type: str
    id: str
    device_type: str = ""
    """That of the devices behind it; empty: the whole gateway is one device."""

    @property
    def client_id(self) -> str:
        """As which to connect."""
        return f"{'g' if self.device_type else 'd'}:{self.organisation}:{self.type}:{self.id}"

    def event(self, event: str, device: str = "") -> str:
        """The topic of an event of a device, or of the gateway itself."""
        if not self.device_type:
            return f"iot-2/evt/{event}/fmt/json"
        kind, name = (self.device_type, escape(device)) if device else (self.type, self.id)
        return f"iot-2/type/{kind}/id/{name}/evt/{event}/fmt/json"

    @property
    def commands(self) -> list[str]:
        """Where commands come."""
        if not self.device_type:
            return ["iot-2/cmd/+/fmt/+"]
        return [f"iot-2/type/{self.type}/id/{self.id}/cmd/+/fmt/+", f"iot-2/type/{self.device_type}/id/+/cmd/+/fmt/+"]

    @property
    def status_topic(self) -> str:
        """Whether the gateway is online."""
        return self.event("status")

    @property
    def health_topic(self) -> str:
        """What became of all readings."""
        return self.event("health")

    @property
    def metadata_topic(self) -> str:
        """Devices, points and units."""
        return self.event("metadata")


class EventEncoder:
    """Readings as events: one for each sample, `{"d": {"supply": 21.5}, "ts": "…", "edged": {…}}`.

    Under `edged` stands what `OneSample` of the connector `mqtt` says besides the values.
    """

    def __init__(self, gateway: str, names: Names, event: str) -> None:
        self._gateway = gateway
        self._names = names
        self._event = event

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """One message for each sample. Those that thinning has emptied go with the next."""
        begin = 0
        for i, sample in enumerate(batch.samples):
            if sample.points or i + 1 == len(batch.samples):
                some = batch.samples[begin : i + 1]
                yield Chunk(batch.first + begin, some, len(sample.points), batch.boot, batch.replay)
                begin = i + 1

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message. Raises PermanentError if the sample can never be encoded."""
        if any(sample.points for sample in chunk.samples[:-1]):  # the forwarder divides it
            raise PermanentError("an event has one sample, and these are several", reason="samples")
        sample = presentable(chunk.samples[-1])
        lane = Lane.HISTORICAL if chunk.replay else envelope.lane
        about: dict[str, Any] = {
            "v": VERSION, "gateway": self._gateway, "epoch": envelope.epoch, "lane": lane, "first": chunk.first,
            "seq": envelope.seq, "prev": envelope.prev, "device": sample.device, "time": sample.time,
        }  # fmt: skip
        odd = {str(sample.points[i]): str(one) for i, one in sample.quality.items() if one.status != "good"}
        more = {"quality": odd, "replay": chunk.replay, "flow": envelope.flow}
        about |= {key: value for key, value in more.items() if value}
        values = dict(zip(map(str, sample.points), sample.values, strict=True))
        document = {"d": values, "ts": text_of(sample.time), "edged": about}
        return Message(self._names.event(self._event, sample.device), orjson.dumps(document))


class WatsonCommands:
    """Implements `edged.downlink.api.Dialect`.

    The command `write` with `{"point": "setpoint", "value": 21}`, or the point's name as the command and
    `{"value": 21}`; either may stand under `d`. A device on its own says `device/point`.
    """

    def __init__(self, names: Names, gateway: str, connection: str, *, valid_for: float, run: str) -> None:
        """`run`: something that no other process has had: the platform gives commands no id."""
        self._names = names
        self._gateway = gateway
        self._connection = connection
        self._valid_for = valid_for
        self._run = run
        self._count = 0

    def topics(self) -> Sequence[tuple[str, int]]:
        """See the protocol. Sessions begin anew, so nothing old waits there."""
        return [(topic, 1) for topic in self._names.commands]

    def decode(self, message: Incoming) -> Sequence[Command]:
        """See the protocol."""
        levels = message.topic.split("/")
        if levels[-4:-3] != ["cmd"] or levels[-2] != "fmt":
            return []
        device = unescape(levels[4]) if self._names.device_type and levels[2] == self._names.device_type else ""
        reply = Reply(topic=self._names.event("result", device))
        if message.retained:
            raise Refused("retained", "a command must not be retained", reply=reply)
        try:
            document = loaded(message.payload)
        except orjson.JSONDecodeError as exc:
            raise Refused("malformed", f"it is not JSON: {exc}", reply=reply) from None
        inner = document.get("d", document) if isinstance(document, dict) else None
        if not isinstance(inner, dict):
            raise Refused("malformed", 'a command is {"point": …, "value": …}', reply=reply)
        self._count += 1
        whole = {**inner, "point": self._address(device, unescape(levels[-3]), inner.get("point"))}
        return [
            command_of(
                whole,
                ident=f"{self._run}-{self._count}",
                reply=reply,
                requester="Watson IoT",
                valid_for=self._valid_for,
            )
        ]

    def _address(self, device: str, command: str, point: object) -> object:
        """`device/point`, as far as the topic says it."""
        if command != "write":
            point = command
        if device and isinstance(point, str) and not point.startswith(f"{device}/"):
            return f"{device}/{point}"
        return point if point is not None else ""

    def encode(self, result: CommandResult) -> Sequence[Message]:
        """See the protocol: an event `result` of the device that the command was for."""
        topic = self._names.event("result")
        return JsonCommands(self._gateway, self._connection, command_topic="", result_topic=topic).encode(result)
