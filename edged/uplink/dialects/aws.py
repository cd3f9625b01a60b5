"""AWS IoT Core: topics, device shadows and fleet provisioning. Pure.

Source: AWS IoT Core developer guide (Device Shadow MQTT topics, Device Shadow service documents, Device provisioning
MQTT API) and the quotas of AWS IoT Core in the AWS General Reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from edged.downlink.api import Command, CommandResult, Incoming, Reply
from edged.errors import EdgedError, PermanentError, TransientError
from edged.uplink.api import Message
from edged.uplink.dialects.twins import OWN, Limits, Wish, Wishes, changes_to, merged, outcome, wishes_in
from edged.uplink.incoming import loaded

MAX_TOPIC, MAX_SLASHES = 256, 7
MAX_IN_FLIGHT = 100
"""Messages of QoS 1 that a client may have unacknowledged."""
MAX_MESSAGE = 128 * 1024
THING = r"[a-zA-Z0-9:_-]{1,128}"
"""The names that things may have."""
OWN_TOPICS = ("$aws/things/",)
"""The beginnings of reserved topics that this module makes in a session."""
_BASIC_INGEST = "$aws/rules/"
_CONFLICT, _NOT_FOUND, _TOO_MANY = 409, 404, 429
_SERVER = 500


def check_topic(topic: str) -> None:
    """Raises ValueError where the service would refuse the topic, or close the connection because of it."""
    rest = topic
    if topic.startswith("$"):
        if not topic.startswith(_BASIC_INGEST) or topic.count("/") < 3:  # noqa: PLR2004  # $aws, rules, the rule's name
            raise ValueError(f"the topic {topic[:80]!r} begins with `$`: AWS reserves those, but for $aws/rules/RULE/…")
        rest = topic.split("/", 3)[3]
    if (size := len(rest.encode())) > MAX_TOPIC:
        raise ValueError(f"the topic {topic[:80]!r} has {size} bytes; AWS takes {MAX_TOPIC}")
    if (slashes := rest.count("/")) > MAX_SLASHES:
        raise ValueError(f"the topic {topic[:80]!r} has {slashes} slashes; AWS takes {MAX_SLASHES}")


# -- shadows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShadowTopics:
    """The topics of one shadow."""

    prefix: str

    @classmethod
    def of(cls, thing: str, name: str) -> ShadowTopics:
        """Those of a named shadow, or with an empty name of the classic one."""
        return cls(f"$aws/things/{thing}/shadow" + (f"/name/{name}" if name else ""))

    @property
    def update(self) -> str:
        """Where a change is sent."""
        return f"{self.prefix}/update"

    @property
    def get(self) -> str:
        """Where the document is asked for."""
        return f"{self.prefix}/get"

    @property
    def delta(self) -> str:
        """Where it comes what is desired and not reported."""
        return f"{self.prefix}/update/delta"

    @property
    def found(self) -> str:
        """Where the document comes."""
        return f"{self.prefix}/get/accepted"

    @property
    def answers(self) -> list[str]:
        """Where it is said what became of a request."""
        return [
            f"{self.prefix}/{what}" for what in ("update/accepted", "update/rejected", "get/accepted", "get/rejected")
        ]


class ShadowRefusedError(Exception):
    """The service did not take a request."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code

    @property
    def conflict(self) -> bool:
        """Whether somebody else has changed the shadow meanwhile."""
        return self.code == _CONFLICT

    @property
    def missing(self) -> bool:
        """Whether there is no such shadow yet."""
        return self.code == _NOT_FOUND

    @property
    def passing(self) -> bool:
        """Whether it may go away by itself."""
        return self.code == _TOO_MANY or self.code >= _SERVER


class Shadow:
    """What is known of the reported side of a shadow, and what to send."""

    def __init__(self, name: str, limits: Limits) -> None:
        """`name`: empty for the classic one."""
        self._name = name
        self.limits = limits
        self.topics = ShadowTopics.of("", name)
        self.version: int | None = None
        """The shadow's, as far as is known; None before it was asked for."""
        self.known: dict[str, Any] = {}
        """What it says is reported."""

    def belong_to(self, thing: str) -> None:
        """The thing is known now."""
        self.topics = ShadowTopics.of(thing, self._name)

    def request(self, token: str) -> Message:
        """Asks for the document."""
        return Message(self.topics.get, orjson.dumps({"clientToken": token}))

    def update(self, document: Mapping[str, Any], token: str) -> Message | None:
        """What makes the reported side say this; None where it does. Fails (409) if it has been changed meanwhile."""
        changes = changes_to(document, self.known)
        if not changes:
            return None
        body: dict[str, Any] = {"state": {"reported": changes}, "clientToken": token}
        if self.version:  # one that does not exist yet has none
            body["version"] = self.version
        return Message(self.topics.update, orjson.dumps(body))

    def take(self, message: Incoming) -> tuple[str, ShadowRefusedError | None] | None:
        """An answer: its token and, where it is a refusal, that. None where it is no answer."""
        if message.topic not in self.topics.answers:
            return None
        try:
            document = loaded(message.payload)
            token = str(document.get("clientToken", ""))
        except (orjson.JSONDecodeError, AttributeError):
            return None
        if message.topic.endswith("/rejected"):
            code = document.get("code")
            text = str(document.get("message", ""))[:200]
            return token, ShadowRefusedError(code if isinstance(code, int) else 0, text)
        self._adopt(document, whole=message.topic == self.topics.found)
        return token, None

    def _adopt(self, document: Mapping[str, Any], *, whole: bool) -> None:
        """A document, or a change, of whomever it was. What is older than what is known says nothing."""
        version, state = document.get("version"), document.get("state")
        side = state.get("reported") if isinstance(state, Mapping) else None
        if not isinstance(version, int):
            return
        if whole:
            self.known = dict(side) if isinstance(side, Mapping) else {}
            self.version = version
        elif self.version is None or version > self.version:
            self.known = merged(self.known, side) if isinstance(side, Mapping) else self.known
            self.version = version

    def forget(self) -> None:
        """There is no such shadow, or nothing is known of it."""
        self.known, self.version = {}, 0


class ShadowCommands:
    """Implements `edged.downlink.api.Dialect`: what is desired and not reported are commands.

    A wish is as old as the shadow's metadata say. While the gateway's clock is not set nobody can tell how old that
    is; the shadow keeps it, and it is asked for again when the clock is.
    """

    def __init__(self, shadow: Shadow, valid_for: float, clock_trusted: Callable[[], bool]) -> None:
        self._shadow = shadow
        self._clock_trusted = clock_trusted
        self._version = 0
        self._wishes = Wishes(valid_for, "AWS shadow", Reply(topic=SHADOW))

    def topics(self) -> Sequence[tuple[str, int]]:
        """See the protocol. What answers bring is heard by the link anyhow."""
        return [(self._shadow.topics.delta, 1)]

    def decode(self, message: Incoming) -> Sequence[Command]:
        """See the protocol."""
        whole = message.topic == self._shadow.topics.found
        if not (whole or message.topic == self._shadow.topics.delta) or not self._clock_trusted():
            return []
        try:
            document = loaded(message.payload)
            version = int(document["version"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return []
        if version < self._version and not whole:
            return []  # it was overtaken by a newer one
        self._version = version
        state, metadata = document.get("state"), document.get("metadata")
        if whole:
            state = state.get("delta") if isinstance(state, Mapping) else None
            metadata = metadata.get("desired") if isinstance(metadata, Mapping) else None
        found = []
        for device, point, given in wishes_in(state, self._shadow.limits):
            since = _stamp(metadata, self._shadow.limits.key(device), self._shadow.limits.key(point))
            mark = str(since)
            command = self._wishes.command(
                Wish(device, point, given, mark, None if since is None else since * 1_000_000)
            )
            found += [command] if command is not None else []
        return found

    def encode(self, result: CommandResult) -> Sequence[Message]:
        """See the protocol. The value itself is reported when it has been read, like any other."""
        if not result.state.final:
            return []
        body = {"state": {"reported": {OWN: outcome(result)}}, "clientToken": "result"}
        return [Message(self._shadow.topics.update, orjson.dumps(body))]


SHADOW = "shadow"
"""The reply topic of commands that came by a shadow."""


def _stamp(metadata: object, *keys: str) -> int | None:
    """The seconds at which a value was set: the newest time stamp that is found below these keys."""
    for key in keys:
        metadata = metadata.get(key) if isinstance(metadata, Mapping) else None
    return _newest(metadata)


def _newest(metadata: object) -> int | None:
    if not isinstance(metadata, Mapping):
        return None
    stamp = metadata.get("timestamp")
    if isinstance(stamp, int):
        return stamp
    return max((found for one in metadata.values() if (found := _newest(one)) is not None), default=None)


# -- fleet provisioning by claim ---------------------------------------------------------------------------------------

CREATE = "$aws/certificates/create/json"


def register_topic(template: str) -> str:
    """Where a thing is registered with a provisioning template."""
    return f"$aws/provisioning-templates/{template}/provision/json"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the service gave to this gateway. `token` until a thing is registered with it, `thing` afterwards."""

    certificate_id: str
    certificate: str
    private_key: str
    token: str = ""
    thing: str = ""

    def __repr__(self) -> str:
        return f"Credentials(certificate_id={self.certificate_id!r}, thing={self.thing!r})"

    def dump(self) -> bytes:
        """For the disk."""
        return orjson.dumps(
            {
                "certificateId": self.certificate_id, "certificatePem": self.certificate,
                "privateKey": self.private_key, "certificateOwnershipToken": self.token, "thingName": self.thing,
            }
        )  # fmt: skip

    @classmethod
    def load(cls, data: bytes) -> Credentials:
        """Of the disk, or of the service's answer to `CREATE`. Raises ValueError."""
        try:
            found = orjson.loads(data)
            one = cls(
                found["certificateId"], found["certificatePem"], found["privateKey"],
                found["certificateOwnershipToken"], found.get("thingName", ""),
            )  # fmt: skip
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"these are no credentials of AWS: {type(exc).__name__}") from None
        texts = (one.certificate_id, one.certificate, one.private_key, one.token, one.thing)
        if not all(isinstance(text, str) for text in texts) or not (one.token or one.thing):
            raise ValueError("these are no whole credentials of AWS")
        return one


def registration(credentials: Credentials, template: str, parameters: Mapping[str, str]) -> Message:
    """Registers a thing with the certificate that was created."""
    body = {"certificateOwnershipToken": credentials.token, "parameters": dict(parameters)}
    return Message(register_topic(template), orjson.dumps(body))


def thing_of(data: bytes) -> str:
    """The name of the thing that was registered. Raises ValueError."""
    try:
        name = orjson.loads(data)["thingName"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise ValueError(f"no thing was named: {type(exc).__name__}") from None
    if not isinstance(name, str) or not re.fullmatch(THING, name):
        raise ValueError("the name of the thing is none that AWS allows")
    return name


def refusal(step: str, data: bytes) -> EdgedError:
    """The service's refusal to provision, in words; `reason` is `token` where the ownership token is of no use."""
    try:
        found = orjson.loads(data)
        code, word, text = int(found["statusCode"]), str(found["errorCode"]), str(found["errorMessage"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return TransientError(f"AWS refused to {step} without a reason that can be read", reason="provisioning")
    line = f"AWS refused to {step}: {word} ({text[:200]})"
    if code == _TOO_MANY or code >= _SERVER:
        return TransientError(line, reason="provisioning")
    return PermanentError(line, reason="token" if "OwnershipToken" in word else "provisioning")
