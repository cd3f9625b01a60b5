"""Commands, their results and monitored changes as the connector `mqtt` writes them: JSON. Pure.

The messages are described in docs/reference/mqtt.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import orjson

from edged.config.types import Duration
from edged.downlink.api import Change, Command, CommandResult, Incoming, Refused
from edged.uplink.api import Message
from edged.uplink.incoming import loaded
from edged.uplink.payload import VERSION, CommandMessage
from edged.uplink.topics import fill

_KEYS = frozenset(one.name for one in fields(CommandMessage))
_LONGEST = 1e12
"""Seconds of a `ttl` beyond which nobody means what he says."""
_EARLIEST = 10**15
"""Microseconds: September 2001. A smaller number is seconds or milliseconds."""


def parse_command(message: Incoming) -> Command:
    """The command in a message. Raises Refused."""
    try:
        document = loaded(message.payload)
    except orjson.JSONDecodeError as exc:
        raise Refused("malformed", f"it is not JSON: {exc}", reply=message.reply) from exc
    if not isinstance(document, dict):
        raise Refused("malformed", "it is not a JSON object", reply=message.reply)
    given = document.get("id")
    known = given if isinstance(given, str) else ""
    if message.retained:
        why = "a command must not be retained: the broker would send it again whenever the gateway connects"
        raise Refused("retained", why, id=known, reply=message.reply)
    try:
        return _command(document, message)
    except ValueError as exc:
        raise Refused("malformed", str(exc), id=known, reply=message.reply) from exc


def _command(document: dict[str, Any], message: Incoming) -> Command:
    if unknown := sorted(document.keys() - _KEYS):
        raise ValueError(f"there is no {unknown[0]!r} in a command; it has {', '.join(sorted(_KEYS))}")
    raw = document.get("raw")
    device, slash, point = _text(document, "point").partition("/")
    if not (device and slash and point):
        raise ValueError("`point` is written device/point")
    expires, valid_for = _expiry(document, message)
    return Command(
        id=_text(document, "id", message.reply.correlation.hex()),
        device=device,
        point=point,
        value=_value(document.get("value")),
        raw=None if raw is None else _bytes(raw),
        expires=expires,
        valid_for=valid_for,
        confirm=_flag(document.get("confirm", True)),
        requester=_text(document, "requester") if document.get("requester", "") != "" else "",
        reply=message.reply,
    )


def _text(document: dict[str, Any], key: str, default: str = "") -> str:
    value = document.get(key, default)
    if not isinstance(value, str) or not value:
        raise ValueError(f"`{key}` is missing" if key not in document else f"`{key}` is not a text")
    return value


def _value(value: object) -> bool | int | float | str | None:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError("`value` is a number, a text, true or false")


def _bytes(raw: object) -> bytes:
    try:
        return bytes.fromhex(str(raw))
    except ValueError:
        raise ValueError("`raw` is written in hexadecimal, such as 00FF") from None


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("`confirm` is true or false")


def _expiry(document: dict[str, Any], message: Incoming) -> tuple[int | None, float | None]:
    """Until when, by the sender's clock, and for how many seconds from now."""
    moments = [_moment(document["expires"], "expires")] if "expires" in document else []
    spans = [message.expiry] if message.expiry is not None else []
    if "ttl" in document:
        ttl = _span(document["ttl"])
        if "time" in document:
            moments.append(_moment(document["time"], "time") + round(ttl * 1e6))
        elif message.expiry is None:
            raise ValueError("`ttl` needs `time`, when the command was sent: nobody knows how long it was on its way")
        spans.append(ttl)
    return min(moments, default=None), min(spans, default=None)


def _moment(value: object, key: str) -> int:
    """Microseconds since 1970 of a number of them, or of a text such as 2026-11-21T12:00:00Z."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < _EARLIEST:
            raise ValueError(f"`{key}` is in microseconds since 1970, which {value} cannot be")
        return value
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"`{key}` is microseconds since 1970, or a text with its zone such as 2026-11-21T12:00:00Z")
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)


def _span(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LONGEST:
        return float(value)
    if isinstance(value, str):
        return float(Duration.parse(value))
    raise ValueError("`ttl` is a number of seconds, or a text such as 5m")


class JsonCommands:
    """Implements `edged.downlink.api.Dialect`."""

    def __init__(self, gateway: str, connection: str, *, command_topic: str, result_topic: str) -> None:
        self._gateway = gateway
        self._connection = connection
        self._topic = command_topic
        self._result_topic = result_topic

    def topics(self) -> Sequence[tuple[str, int]]:
        """See `edged.downlink.api.Dialect`."""
        return [(self._topic, 1)]

    def decode(self, message: Incoming) -> Sequence[Command]:
        """See `edged.downlink.api.Dialect`."""
        if message.topic != self._topic:
            return ()
        if message.retained and not message.payload:
            return ()  # somebody deletes what was retained
        return [parse_command(message)]

    def encode(self, result: CommandResult) -> Sequence[Message]:
        """See `edged.downlink.api.Dialect`."""
        document = {
            "v": VERSION,
            "gateway": self._gateway,
            "connection": self._connection,
            "id": result.id,
            "point": f"{result.device}/{result.point}" if result.point else "",
            "state": result.state.value,
            "time": result.time,
        }
        more = {"reason": result.reason, "detail": result.detail, "value": result.value}
        document |= {key: value for key, value in more.items() if value not in ("", None)}
        topic = result.reply.topic or self._result_topic
        return [Message(topic, orjson.dumps(document), correlation=result.reply.correlation)]


def change_message(gateway: str, template: str, names: Mapping[str, str], change: Change) -> Message:
    """A change of a monitored point. Raises ValueError if its topic cannot be made."""
    document = {
        "v": VERSION,
        "gateway": gateway,
        "point": f"{change.device}/{change.point}",
        "value": change.now.value,
        "time": change.now.time,
    }
    if change.now.quality.status != "good":
        document["quality"] = str(change.now.quality)
    topic = fill(template, {**names, "device": change.device, "point": change.point})
    return Message(topic, orjson.dumps(document))
