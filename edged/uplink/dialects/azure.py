"""Azure IoT Hub: tokens, topics, telemetry and the device twin. Pure.

Source: Microsoft's "Communicate with an IoT hub using the MQTT protocol", "Communicate with DPS using the MQTT
protocol", "Control access to IoT Hub using Shared Access Signatures", "Understand and use device twins in IoT Hub".
"""

from __future__ import annotations

import base64
import binascii
import hmac
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote

import orjson

from edged.buffer.batch import Batch
from edged.downlink.api import CommandResult, Incoming
from edged.uplink.api import Chunk, Envelope, Message
from edged.uplink.dialects.twins import (
    OWN,
    Limits,
    changes_to,
    merged,
    outcome,
)
from edged.uplink.incoming import loaded
from edged.uplink.laidout import Layout, proof
from edged.uplink.moments import text_of

_API = "2021-04-12"
MAX_MESSAGE = 256 * 1024
MAX_KEEPALIVE = 1177
"""Seconds: the hub probes for 1.5 times as long, and 29.45 minutes at most."""
WEBSOCKET = "/$iothub/websocket"
LIMITS = Limits(size=30 * 1024, largest=2**52 - 1, longest=4096, dots=False)
"""What the reported properties of a twin can hold; of their 32 KB a little is left for the hub's own."""
_OK = 2
_IN_STRING = "SharedAccessKey="
_TOO_MANY, _SERVER = 429, 500


# -- who we are --------------------------------------------------------------------------------------------------------


def key_bytes(text: str) -> bytes:
    """A symmetric key as Azure's pages show it, alone or in a connection string. Raises ValueError without it."""
    if _IN_STRING in text:
        text = text.partition(_IN_STRING)[2].partition(";")[0]
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
        return f"{self.host}/{self.device}/?api-version={_API}"

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
_GET, REPORTED, _ANSWER = (
    "$iothub/twin/GET/?$rid=",
    "$iothub/twin/PATCH/properties/reported/?$rid=",
    "$iothub/twin/res/",
)


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
        changes = changes_to(document, known)
        if not changes:
            return None
        return Message(f"{REPORTED}{number}", orjson.dumps(changes)), merged(known, changes)

    def adopt(self, body: bytes) -> None:
        """The whole twin, as the hub has it. Raises ValueError."""
        try:
            side = loaded(body)["reported"]
            self.known = {key: value for key, value in side.items() if not key.startswith("$")}
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"no device twin: {type(exc).__name__}") from None

    def note(self, result: CommandResult) -> None:
        """The result of a command is reported beside the values."""
        self.known = merged(self.known or {}, {OWN: outcome(result)}) if self.known is not None else None


def parsed(payload: bytes) -> dict[str, Any] | None:
    """The JSON object in a payload; None where there is none."""
    try:
        document = loaded(payload)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def object_of(payload: bytes) -> dict[str, Any]:
    """The same, empty where there is none."""
    return parsed(payload) or {}
