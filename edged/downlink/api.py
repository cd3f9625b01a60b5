"""What passes between whoever brings a command and the one path that carries it out. Pure.

A connector decodes what its cloud sends into a `Command`, hands it to `Commands.submit`, and acknowledges it upstream
when that returns: by then it is on the disk. What becomes of it comes back through `Commands.results`, also after a
restart, until the connector has said `told`. The rules (who may write what, expiry, once only, newest wins) are applied
behind `submit`, for all entrances alike.

A connector over MQTT needs only a `Dialect`: the shared link does the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from edged.model import GOOD, Quality, Value

if TYPE_CHECKING:
    from edged.uplink.api import Message


class State(StrEnum):
    """How far a command has come. `rejected` and `expired` are certain: nothing was sent to the device."""

    ACCEPTED = "accepted"
    """It is stored and waits for its turn, or for its device."""
    EXECUTED = "executed"
    """The device confirmed the write; reading back was not asked for, or is not possible."""
    VERIFIED = "verified"
    """The point reads as it was told to be."""
    FAILED = "failed"
    """It was tried. `reason` says whether the device refused, or nobody knows."""
    EXPIRED = "expired"
    """Its time had run out before it could be tried."""
    REJECTED = "rejected"
    """It is not allowed, not possible, or a newer one took its place."""

    @property
    def final(self) -> bool:
        """Whether nothing more will come."""
        return self is not State.ACCEPTED


@dataclass(frozen=True, slots=True)
class Reply:
    """Where a sender wants the result, in the connector's own words; kept with the command over restarts."""

    topic: str = ""
    """MQTT 5's response topic, or what a connector has in its place. Empty: the usual place."""
    correlation: bytes = b""
    """What the sender recognises its request by: MQTT 5's correlation data, a request number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A value, or a raw payload, for a point.

    It must say until when it may be carried out: `expires`, `valid_for`, or both. A connector whose cloud does not
    tell how old a command is must see to it that none waits there: then `valid_for` is the truth.
    """

    id: str
    """Two commands of one entrance with the same id are the same command."""
    device: str
    point: str
    value: Value = None
    """As the point shows it: scaled, the word of an enum."""
    raw: bytes | None = None
    """Instead of a value: the bytes as they go over the wire."""
    expires: int | None = None
    """Microseconds since the Unix epoch, by the sender's clock. Needs a gateway whose clock is trusted."""
    valid_for: float | None = None
    """Seconds from the moment of `submit`, by the monotonic clock: for what is known not to have waited."""
    confirm: bool = True
    """Whether to read the point back."""
    requester: str = ""
    """Who wants it, as far as is known, for the audit log."""
    reply: Reply = field(default_factory=Reply)

    @property
    def address(self) -> str:
        """`device/point`."""
        return f"{self.device}/{self.point}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What is known of a command at a moment."""

    id: str
    device: str
    point: str
    state: State
    reason: str = ""
    """With `failed` and `rejected`: one word, such as `not-writable`, `range`, `clock`, `timeout`, `exception`."""
    detail: str = ""
    """One line for people."""
    value: Value = None
    """What the point read as afterwards, if it was read back."""
    time: int = 0
    """When it came to this: microseconds since the Unix epoch, by the gateway's clock."""
    reply: Reply = field(default_factory=Reply)

    def __str__(self) -> str:
        return f"{self.state.value}({self.reason})" if self.reason else self.state.value


class Refused(Exception):  # noqa: N818  # it is an answer, no failure
    """A message that is no command. The sender is told; nothing is stored."""

    def __init__(self, reason: str, detail: str, *, id: str = "", reply: Reply | None = None) -> None:  # noqa: A002  # as in Command
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.id = id
        self.reply = reply or Reply()


class Commands(Protocol):
    """The way down, as one connection has it; in `ConnectionContext.commands` where it says `commands: true`."""

    async def submit(self, command: Command) -> CommandResult:
        """Check, store and queue a command; when this returns it is durable, so acknowledge it now.

        Returns `accepted`, `rejected` or `expired`; for an id that is known, what has become of it. Never raises.
        """
        ...

    def results(self) -> AsyncIterator[CommandResult]:
        """What this connection is still to tell, oldest first, then what comes. Never ends.

        Each command is told `accepted` (unless it goes too fast), then its final state. One reader at a time: whoever
        begins anew gets again what has not been `told`.
        """
        ...

    def told(self, result: CommandResult) -> None:
        """The receiver has taken this result (PUBACK, HTTP 2xx)."""
        ...


@dataclass(frozen=True, slots=True)
class TwinValue:
    """A value and since when it is known."""

    value: Value
    time: int
    """Microseconds since the Unix epoch."""
    quality: Quality = GOOD
    """Of a reported value: how it is now. Where it is bad, `value` and `time` are those of the last that was not."""


@dataclass(frozen=True, slots=True)
class TwinPoint:
    """What is known of one point."""

    reported: TwinValue | None = None
    desired: TwinValue | None = None
    """What it was last told to be: by a command that was executed or verified."""


@dataclass(frozen=True, slots=True)
class Change:
    """A point with `monitor: true` has a new value or quality."""

    device: str
    point: str
    now: TwinValue


class Twin(Protocol):
    """The last reported and the desired value of every point, kept over restarts; in `ConnectionContext.twin`."""

    async def device(self, name: str) -> Mapping[str, TwinPoint]:
        """What is known of the points of a device; those of which nothing is known are missing."""
        ...

    def changes(self) -> AsyncIterator[Change]:
        """Changes of the points with `monitor: true` from now on. Never ends.

        Of a point that changes faster than they are taken, only the newest comes.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A message that came by MQTT."""

    topic: str
    payload: bytes
    qos: int = 1
    retained: bool = False
    expiry: float | None = None
    """MQTT 5's message expiry: the seconds that remain of it. The broker has taken off how long it kept the message."""
    reply: Reply = field(default_factory=Reply)
    """MQTT 5's response topic and correlation data."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """User properties."""


class Dialect(Protocol):
    """How one cloud writes commands and results in MQTT messages. Pure."""

    def topics(self) -> Sequence[tuple[str, int]]:
        """(topic filter, QoS) to subscribe to in each session. QoS 1 brings what was sent while we were away."""
        ...

    def decode(self, message: Incoming) -> Sequence[Command]:
        """The commands in a message; none where it is for somebody else. Raises Refused for what is none."""
        ...

    def encode(self, result: CommandResult) -> Sequence[Message]:
        """The messages that tell a result; none where the cloud does not want to know."""
        ...
