"""What dialects of several clouds share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from edged.downlink.api import Command, CommandResult, Dialect, Incoming, Reply
from edged.uplink.api import Message
from edged.uplink.json_commands import parse_command


class Told(Protocol):
    """What says how the gateway is: `edged.uplink.connectors.mqtt.Announcements`, for one."""

    def greeting(self, epoch: str, time: int) -> Iterable[Message]:
        """See `edged.uplink.links.mqtt.Announcer`."""
        ...

    def health(self, epoch: str, time: int) -> Message:
        """Likewise."""
        ...

    def will(self, epoch: str, time: int) -> Message:
        """Likewise."""
        ...

    def farewell(self, epoch: str, time: int) -> Message:
        """Likewise."""
        ...


@dataclass(frozen=True, slots=True)
class Unretained:
    """The same announcements for a cloud that retains nothing, or is not to."""

    told: Told

    def greeting(self, epoch: str, time: int) -> Iterator[Message]:
        """Without those that only delete what is retained."""
        return (replace(one, retain=False) for one in self.told.greeting(epoch, time) if one.payload)

    def health(self, epoch: str, time: int) -> Message:
        """How the counters stand."""
        return replace(self.told.health(epoch, time), retain=False)

    def will(self, epoch: str, time: int) -> Message:
        """What the broker is to say when the session breaks."""
        return replace(self.told.will(epoch, time), retain=False)

    def farewell(self, epoch: str, time: int) -> Message:
        """What to say before the session is closed."""
        return replace(self.told.farewell(epoch, time), retain=False)


class Both:
    """Two dialects over one session. Implements `edged.downlink.api.Dialect`.

    The first is known by the reply topic that it gives to its commands; everything else is the second's.
    """

    def __init__(self, first: Dialect, mark: str, second: Dialect) -> None:
        self._first = first
        self._mark = mark
        self._second = second

    def topics(self) -> Sequence[tuple[str, int]]:
        """See the protocol."""
        return [*self._second.topics(), *self._first.topics()]

    def decode(self, message: Incoming) -> Sequence[Command]:
        """See the protocol."""
        return self._first.decode(message) or self._second.decode(message)

    def encode(self, result: CommandResult) -> Sequence[Message]:
        """See the protocol."""
        dialect = self._first if result.reply.topic == self._mark else self._second
        return dialect.encode(result)


def command_of(
    document: Mapping[str, Any], *, ident: str, reply: Reply, requester: str, valid_for: float | None = None
) -> Command:
    """A command in the form of the connector `mqtt`, of a cloud that brings it in a way of its own. Raises Refused.

    `ident` and `requester` are for one that does not say; `valid_for`: seconds, of what is known not to have waited.
    """
    whole = {"id": ident, "requester": requester, **document}
    return parse_command(Incoming(topic="", payload=orjson.dumps(whole), expiry=valid_for, reply=reply))
