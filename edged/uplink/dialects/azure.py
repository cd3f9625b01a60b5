"""Azure IoT Hub and its Device Provisioning Service: topics, tokens, telemetry, twin and methods. Pure.

Source: Microsoft's "Communicate with an IoT hub using the MQTT protocol", "Communicate with DPS using the MQTT
protocol", "Control access to IoT Hub using Shared Access Signatures", "Understand and use device twins in IoT Hub".
"""

from __future__ import annotations

import base64
import binascii
import hmac
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote

import orjson

from edged.buffer.batch import Batch
from edged.downlink.api import Command, CommandResult, Incoming, Refused, Reply, State
from edged.errors import EdgedError, PermanentError, TransientError
from edged.uplink.api import Chunk, Envelope, Message
from edged.uplink.dialects.clouds import command_of
from edged.uplink.dialects.twins import (
    OWN,
    Limits,
    Wish,
    Wishes,
    difference,
    merged,
    moment,
    outcome,
    text_of,
    wishes_in,
)
from edged.uplink.json_commands import JsonCommands
from edged.uplink.laidout import Layout, proof

API, DPS_API = "2021-04-12", "2019-03-31"
MAX_MESSAGE = 256 * 1024
MAX_KEEPALIVE = 1177
"""Seconds: the hub probes for 1.5 times as long, and 29.45 minutes at most."""
WEBSOCKET = "/$iothub/websocket"
LIMITS = Limits(size=30 * 1024, largest=2**52 - 1, longest=4096, dots=False)
"""What the reported properties of a twin can hold; of their 32 KB a little is left for the hub's own."""
_OK = 2
_TOO_MANY, _SERVER = 429, 500


# -- who we are --------------------------------------------------------------------------------------------------------


def key_bytes(text: str) -> bytes:
    """A symmetric key as Azure's pages show it. Raises ValueError, which does not repeat it."""
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            "the key is not as Azure shows it: Base64, usually 44 or 88 characters that end in ="
        ) from None


def derived_key(group_key: str, registration: str) -> str:
    """The key of one device of an enrolment group. Raises ValueError."""
    return base64.b64encode(hmac.digest(key_bytes(group_key), registration.encode(), sha256)).decode()


def token(resource: str, key: str, expiry: int, policy: str = "") -> str:
    """A shared access signature for a resource until a time, seconds since 1970. Raises ValueError."""
    signed = f"{quote(resource, safe='')}\n{expiry}"
    signature = base64.b64encode(hmac.digest(key_bytes(key), signed.encode(), sha256)).decode()
    text = f"SharedAccessSignature sr={quote(resource, safe='')}&sig={quote(signature, safe='')}&se={expiry}"
    return f"{text}&skn={policy}" if policy else text


@dataclass(slots=True)
class Identity:
    """The hub, and what this gateway is called there. DPS may say so only when asked."""

    host: str
    device: str

    @property
    def resource(self) -> str:
        """What a token is for."""
        return f"{self.host}/devices/{self.device}"

    @property
    def username(self) -> str:
        """The user name of the hub."""
        return f"{self.host}/{self.device}/?api-version={API}"

    def events(self, **properties: str) -> str:
        """A topic of telemetry with these properties."""
        return f"devices/{quote(self.device, safe='')}/messages/events/{bag(properties)}"

    @property
    def bound(self) -> str:
        """Where cloud-to-device messages come."""
        return f"devices/{quote(self.device, safe='')}/messages/devicebound/"


def bag(properties: Mapping[str, str]) -> str:
    """Properties of a message as they stand in its topic. Names that begin with `$.` are the hub's own."""
    return "&".join(f"{quote(name, safe='$.')}={quote(text, safe='')}" for name, text in properties.items())


def properties_of(text: str) -> dict[str, str]:
    """The properties in the topic of a message, which may begin with a question mark."""
    return dict(parse_qsl(text.removeprefix("?"), keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Kind:
    """Topics, as a template has them, for what is no reading: the property `type` says what it is."""

    identity: Identity

    def topic(self, kind: str) -> str:
        """Of one kind."""
        system = {"$.ct": "application/json", "$.ce": "utf-8"}
        return self.identity.events(**system, type=kind)

    @property
    def status_topic(self) -> str:
        """Whether the gateway is online."""
        return self.topic("status")

    @property
    def health_topic(self) -> str:
        """What became of all readings."""
        return self.topic("health")

    @property
    def metadata_topic(self) -> str:
        """Devices, points and units."""
        return self.topic("metadata")


# -- up ----------------------------------------------------------------------------------------------------------------


class TelemetryEncoder:
    """Readings as device-to-cloud messages, in the layouts of `mqtt`; where they belong stands in the topic, too."""

    def __init__(self, identity: Identity, layout: Layout, gateway: str, compression: str) -> None:
        self._identity = identity
        self._layout = layout
        self._gateway = gateway
        self._encoding = "utf-8" if compression == "none" else compression

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """See `Layout.split`."""
        return self._layout.split(batch)

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message. Raises PermanentError if it can never be encoded."""
        payload, content_type = self._layout.payload(chunk, envelope)
        if not payload:
            return Message("", b"", skip=True, left_out=chunk.readings)
        system = {
            "$.ct": content_type, "$.ce": self._encoding, "$.mid": f"{envelope.epoch}-{envelope.seq}",
            "$.ctime": text_of(chunk.samples[-1].time), "type": "data",
        }  # fmt: skip
        if envelope.flow:
            system["$.mid"] += f"-{envelope.flow}"
        if self._layout.by_sample:
            system["device"] = chunk.samples[-1].device
        return Message(self._identity.events(**system, **proof(chunk, envelope, self._gateway)), payload, content_type)


# -- the twin ----------------------------------------------------------------------------------------------------------

TWIN_ANSWERS, DESIRED = "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/"
_GET, _PATCH, _ANSWER = "$iothub/twin/GET/?$rid=", "$iothub/twin/PATCH/properties/reported/?$rid=", "$iothub/twin/res/"
METHODS, _METHOD_ANSWER = "$iothub/methods/POST/", "$iothub/methods/res/"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the hub, or DPS, says to a request."""

    status: int
    request: str
    body: bytes
    retry_after: float | None = None

    @property
    def good(self) -> bool:
        """Whether it did what was asked."""
        return self.status // 100 == _OK

    @property
    def passing(self) -> bool:
        """Whether what is wrong may go away by itself."""
        return self.status == _TOO_MANY or self.status >= _SERVER


def answer_of(message: Incoming, prefix: str = _ANSWER) -> Answer | None:
    """An answer, or None if the message is none."""
    if not message.topic.startswith(prefix):
        return None
    status, _, rest = message.topic.removeprefix(prefix).partition("/")
    known = properties_of(rest)
    try:
        after = float(known["retry-after"]) if "retry-after" in known else None
        usable = after if after is not None and math.isfinite(after) else None
        return Answer(int(status), known.get("$rid", ""), message.payload, usable)
    except ValueError:
        return None


class Twin:
    """What is known of the reported side of a device twin, and what to send."""

    def __init__(self) -> None:
        self.known: dict[str, Any] | None = None
        """What it says is reported; None before it was asked for."""

    @staticmethod
    def request(number: str) -> Message:
        """Asks for the twin."""
        return Message(f"{_GET}{number}", b"")

    def update(self, document: Mapping[str, Any], number: str) -> tuple[Message, dict[str, Any]] | None:
        """What makes the reported side say this, and how it is then; None where it does."""
        known = self.known or {}
        own = known.get(OWN)
        kept = {**document.get(OWN, {}), **({"command": own["command"]} if own and "command" in own else {})}
        changes = difference(known, {**document, **({OWN: kept} if kept else {})})
        if not changes:
            return None
        return Message(f"{_PATCH}{number}", orjson.dumps(changes)), merged(known, changes)

    def adopt(self, body: bytes) -> None:
        """The whole twin, as the hub has it. Raises ValueError."""
        try:
            side = orjson.loads(body)["reported"]
            self.known = {key: value for key, value in side.items() if not key.startswith("$")}
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"no device twin: {type(exc).__name__}") from None

    def note(self, result: CommandResult) -> None:
        """The result of a command is reported beside the values."""
        self.known = merged(self.known or {}, {OWN: outcome(result)}) if self.known is not None else None


# -- down --------------------------------------------------------------------------------------------------------------

_BOUND, _TWIN, _METHOD = "c2d", "twin", "method"
"""The reply topics of commands, by the way they came."""
_STATUS = {
    State.EXECUTED: 200, State.VERIFIED: 200, State.REJECTED: 400, State.EXPIRED: 408, State.FAILED: 500,
}  # fmt: skip
_REASONS = {"unknown": 404, "not-writable": 403, "method": 404, "full": 429, "superseded": 409}


class AzureCommands:
    """Implements `edged.downlink.api.Dialect`: direct methods, desired properties and cloud-to-device messages."""

    def __init__(
        self, identity: Identity, gateway: str, connection: str, valid_for: float, *, run: str, twin: Twin | None
    ) -> None:
        """`run`: something that no other process has had: the hub's request numbers begin anew with each session."""
        self._identity = identity
        self._gateway = gateway
        self._connection = connection
        self._valid_for = valid_for
        self._run = run
        self._count = 0
        self._session = 0
        self._twin = twin
        self._wishes = Wishes(valid_for, "Azure device twin", Reply(topic=_TWIN))

    def renew(self) -> None:
        """A new session begins: nobody waits for an answer to methods of the last one."""
        self._session += 1

    def topics(self) -> Sequence[tuple[str, int]]:
        """See the protocol."""
        twin = [(f"{DESIRED}#", 1)] if self._twin is not None else []
        return [(f"{self._identity.bound}#", 1), (f"{METHODS}#", 1), *twin]

    def decode(self, message: Incoming) -> Sequence[Command]:
        """See the protocol."""
        topic = message.topic
        if topic.startswith(METHODS):
            return [self._method(message)]
        if topic.startswith(self._identity.bound):
            return [self._message(message)]
        if self._twin is None:
            return []
        if topic.startswith(DESIRED):
            return self._desired(_object(message.payload), fresh=True)
        answer = answer_of(message)
        if answer is not None and answer.good and answer.body:
            return self._from_twin(_object(answer.body))
        return []

    def _method(self, message: Incoming) -> Command:
        """`write` with `{"point": "chiller/setpoint", "value": 21}`. The hub asks only while there is a session."""
        name, _, rest = message.topic.removeprefix(METHODS).partition("/")
        number = properties_of(rest).get("$rid", "")
        reply = Reply(_METHOD, orjson.dumps([self._run, self._session, number]))
        if name.lower() != "write":
            raise Refused("method", f"there is no method {name[:80]!r}; there is `write`", reply=reply)
        document = _parsed(message.payload)
        if document is None:
            raise Refused("malformed", 'the payload is {"point": "device/point", "value": …}', reply=reply)
        self._count += 1
        ident = f"{self._run}-{self._count}"
        return command_of(document, ident=ident, reply=reply, requester="Azure method", valid_for=self._valid_for)

    def _message(self, message: Incoming) -> Command:
        """A command in the form of `mqtt`. The hub's own id and expiry count where it has none."""
        known = properties_of(message.topic.removeprefix(self._identity.bound))
        ident = known.get("$.mid", "")
        reply = Reply(_BOUND, ident.encode())
        document = _parsed(message.payload)
        if document is None:
            raise Refused("malformed", "it is not a JSON object", id=ident[:80], reply=reply)
        until = moment(known.get("$.exp"))
        if until is not None and "expires" not in document:
            document = {**document, "expires": until}
        return command_of(document, ident=ident, reply=reply, requester="Azure message")

    def _desired(self, document: Mapping[str, Any], *, fresh: bool, metadata: object = None) -> list[Command]:
        version = document.get("$version")
        found = []
        for device, point, given in wishes_in(document, LIMITS):
            since = _since(metadata, LIMITS.key(device), LIMITS.key(point))
            mark = str(version) if fresh else str(since)
            command = self._wishes.command(Wish(device, point, given, mark, since, fresh=fresh and since is None))
            found += [command] if command is not None else []
        return found

    def _from_twin(self, twin: Mapping[str, Any]) -> list[Command]:
        """What was desired before this session, as far as it is not so already."""
        desired, reported = twin.get("desired"), twin.get("reported")
        if not isinstance(desired, Mapping):
            return []
        wanted = difference(reported if isinstance(reported, Mapping) else {}, desired)
        return self._desired(wanted, fresh=False, metadata=desired.get("$metadata"))

    # -- what became of them ---------------------------------------------------------------------------------------

    def encode(self, result: CommandResult) -> Sequence[Message]:
        """See the protocol."""
        if result.reply.topic == _BOUND:
            topic = Kind(self._identity).topic("result")
            if result.reply.correlation:
                topic += "&" + bag({"$.cid": result.reply.correlation.decode("utf-8", "replace")})
            told = JsonCommands(self._gateway, self._connection, command_topic="", result_topic=topic)
            return told.encode(_without_reply(result))
        if not result.state.final:
            return []
        if result.reply.topic == _TWIN and self._twin is not None:
            self._twin.note(result)
            return [Message(f"{_PATCH}result", orjson.dumps({OWN: outcome(result)}))]
        return self._method_answer(result) if result.reply.topic == _METHOD else []

    def _method_answer(self, result: CommandResult) -> list[Message]:
        run, session, number = orjson.loads(result.reply.correlation)
        if (run, session) != (self._run, self._session):
            return []  # it was asked in another session: the hub has given up
        usual = _STATUS[result.state]
        status = _REASONS.get(result.reason, usual) if result.state is State.REJECTED else usual
        said = {"reason": result.reason, "detail": result.detail, "value": result.value}
        body = {"id": result.id, "state": result.state.value, **{k: v for k, v in said.items() if v not in ("", None)}}
        return [Message(f"{_METHOD_ANSWER}{status}/?$rid={quote(number, safe='')}", orjson.dumps(body))]


def _without_reply(result: CommandResult) -> CommandResult:
    return CommandResult(
        id=result.id, device=result.device, point=result.point, state=result.state, reason=result.reason,
        detail=result.detail, value=result.value, time=result.time,
    )  # fmt: skip


def _parsed(payload: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _object(payload: bytes) -> dict[str, Any]:
    return _parsed(payload) or {}


def _since(metadata: object, *keys: str) -> int | None:
    """When a desired property was set, where the twin says so."""
    for key in keys:
        metadata = metadata.get(key) if isinstance(metadata, Mapping) else None
    return moment(metadata.get("$lastUpdated")) if isinstance(metadata, Mapping) else None


# -- provisioning ------------------------------------------------------------------------------------------------------

DPS_ANSWERS = "$dps/registrations/res/"
_DEFAULT_RETRY = 3.0


@dataclass(frozen=True, slots=True)
class Enrolment:
    """As what a gateway registers."""

    scope: str
    registration: str

    @property
    def username(self) -> str:
        """The user name of DPS."""
        return f"{self.scope}/registrations/{self.registration}/api-version={DPS_API}"

    @property
    def resource(self) -> str:
        """What a token is for; its policy is `registration`."""
        return f"{self.scope}/registrations/{self.registration}"

    def register(self, number: str) -> Message:
        """Asks to be assigned to a hub."""
        topic = f"$dps/registrations/PUT/iotdps-register/?$rid={number}"
        return Message(topic, orjson.dumps({"registrationId": self.registration}))

    @staticmethod
    def poll(number: str, operation: str) -> Message:
        """Asks how far that has come."""
        known = f"$rid={number}&operationId={quote(operation, safe='')}"
        return Message(f"$dps/registrations/GET/iotdps-get-operationstatus/?{known}", b"")


@dataclass(frozen=True, slots=True)
class Assigning:
    """It is not decided yet: ask again."""

    operation: str
    after: float
    """Seconds."""


def assignment(answer: Answer) -> Identity | Assigning:
    """What DPS says. Raises EdgedError where it refuses."""
    document = _object(answer.body)
    if not answer.good:
        raise _dps_error(answer, document)
    state = document.get("registrationState")
    known = state if isinstance(state, dict) else {}
    status = str(document.get("status") or known.get("status"))
    host, device = known.get("assignedHub"), known.get("deviceId")
    if status == "assigned" and isinstance(host, str) and isinstance(device, str) and host and device:
        return Identity(host, device)
    operation = document.get("operationId")
    if status in {"assigning", "unassigned"} and isinstance(operation, str) and operation:
        return Assigning(operation, answer.retry_after if answer.retry_after is not None else _DEFAULT_RETRY)
    raise _dps_error(answer, {**document, **known})


def _dps_error(answer: Answer, document: Mapping[str, Any]) -> EdgedError:
    text = str(document.get("errorMessage") or document.get("message") or document.get("status") or "no reason given")
    line = f"the provisioning service did not assign a hub: {answer.status} {text[:200]}"
    return TransientError(line, reason="busy") if answer.passing else PermanentError(line, reason="provisioning")
