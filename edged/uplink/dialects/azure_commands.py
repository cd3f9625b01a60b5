"""Azure IoT Hub: direct methods, desired properties and cloud-to-device messages as commands. Pure.

Source: as for `edged.uplink.dialects.azure`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from edged.downlink.api import Command, CommandResult, Incoming, Refused, Reply, State
from edged.uplink.api import Message
from edged.uplink.dialects.azure import (
    DESIRED,
    LIMITS,
    REPORTED,
    Identity,
    Kind,
    Twin,
    answer_of,
    bag,
    object_of,
    parsed,
    properties_of,
)
from edged.uplink.dialects.clouds import command_of
from edged.uplink.dialects.twins import OWN, Wish, Wishes, difference, moment, outcome, wishes_in
from edged.uplink.json_commands import JsonCommands

METHODS, _METHOD_ANSWER = "$iothub/methods/POST/", "$iothub/methods/res/"
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
            return self._desired(object_of(message.payload), fresh=True)
        answer = answer_of(message)
        if answer is not None and answer.good and answer.body:
            return self._from_twin(object_of(answer.body))
        return []

    def _method(self, message: Incoming) -> Command:
        """`write` with `{"point": "chiller/setpoint", "value": 21}`. The hub asks only while there is a session."""
        name, _, rest = message.topic.removeprefix(METHODS).partition("/")
        number = properties_of(rest).get("$rid", "")
        reply = Reply(_METHOD, orjson.dumps([self._run, self._session, number]))
        if name.lower() != "write":
            raise Refused("method", f"there is no method {name[:80]!r}; there is `write`", reply=reply)
        document = parsed(message.payload)
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
        document = parsed(message.payload)
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
            return [Message(f"{REPORTED}result", orjson.dumps({OWN: outcome(result)}))]
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


def _since(metadata: object, *keys: str) -> int | None:
    """When a desired property was set, where the twin says so."""
    for key in keys:
        metadata = metadata.get(key) if isinstance(metadata, Mapping) else None
    return moment(metadata.get("$lastUpdated")) if isinstance(metadata, Mapping) else None
