"""What a connector implements, and what passes between it and the forwarder.

A connector is one file: its configuration class, a pure `Encoder`, and a `Link` that carries messages (usually the
shared MQTT or HTTP link). The forwarder owns order, lanes, window, retries and the cursor; a connector owns none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from edged.buffer.batch import Batch
from edged.config.base import ConnectionConfig, DeviceConfig
from edged.config.model import GatewayConfig
from edged.downlink.api import Commands, Twin
from edged.model import Sample
from edged.uplink.together import Together


class Lane(StrEnum):
    """The ways up, side by side. Each keeps its own order and proves its own completeness."""

    PRIORITY = "priority"
    """Readings of points with `priority: high`, ahead of all others."""
    LIVE = "live"
    """Fresh readings; with strict order, all of them."""
    HISTORICAL = "historical"
    """What an outage left behind, oldest first."""
    REPLAY = "replay"
    """What a person had sent once more. The messages call it historical, and a replay."""


class Verdict(StrEnum):
    """What became of a message."""

    DELIVERED = "delivered"
    """The receiver took responsibility for it (PUBACK with success, HTTP 2xx)."""
    RETRY = "retry"
    """Not now: try again, on this link or the next."""
    REJECTED = "rejected"
    """It will never be taken (too large, refused, cannot be encoded): to the dead letters."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict and, unless delivered, why: a short word for counters and one line for people."""

    verdict: Verdict
    reason: str = ""
    detail: str = ""


DELIVERED = Outcome(Verdict.DELIVERED)
CLOSED = "closed"
"""The reason of a RETRY where the receiver ended the session while the message was under way: perhaps because of it."""
SILENT = "silent"
"""The reason of a RETRY where the session was given up because nothing came any more."""
OFFLINE = "offline"
"""The reason of a RETRY where there was no session, or we closed it."""
ENDED = frozenset({CLOSED, SILENT, OFFLINE})
"""These reasons mean that the session is over; any other RETRY is the receiver's answer within it."""
TOO_LARGE = "too_large"
"""The reason of a REJECTED message that a smaller one may escape."""
NO_SUBSCRIBER = "no_subscriber"
"""The reason given with DELIVERED when the receiver said that nobody listens."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """How hard a connection may be driven."""

    historical_share: float = 0.5
    """The largest share of the window that the historical lane may use; the live lane has the rest."""
    retry_max: float = 30.0
    """The longest pause before the next attempt to connect, seconds."""
    retry_steps: tuple[tuple[float, float], ...] = ()
    """(pause, until): seconds between attempts while the outage is younger than `until`. Empty: up to `retry_max`."""
    strict: bool = False
    """Everything on one lane, in the order in which it was read."""
    report_every: float = 60.0
    """Seconds between two reports."""

    def step(self, outage: float) -> float | None:
        """The pause that `retry_steps` want when the outage has lasted so many seconds."""
        return next((pause for pause, until in self.retry_steps if outage < until), None)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one batch that becomes one message.

    Where a batch is cut depends on nothing but the batch and the connection's configuration, so that a chunk that is
    sent again after a crash is the same chunk: `(epoch, last)` names its content for ever.
    """

    first: int
    samples: Sequence[Sample]
    readings: int
    boot: str = ""
    """That of the batch. The forwarder sees to it."""
    replay: bool = False
    """Whether a person had it sent once more: the message says so, and that it is historical."""
    priority: bool = False
    """Whether its points have priority. The forwarder sees to it."""
    since: int = 0
    """On the priority lane: from here on to `first` all others are settled or on their way. Otherwise 0."""
    together: Together | None = None
    """What must be settled with it, where it is worked out of more than its own samples."""

    @property
    def last(self) -> int:
        """The seq of its last sample: the message's `seq`."""
        return self.first + len(self.samples) - 1


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a message says about itself besides its samples."""

    epoch: str
    seq: int
    prev: int
    """The seq of the message that precedes this one on this connection and lane; 0 if there is none."""
    lane: Lane
    flow: str = ""
    """The flow that it is of, which has a chain of its own; empty without one."""


@dataclass(frozen=True, slots=True)
class Message:
    """An encoded message, ready for a link."""

    topic: str
    payload: bytes
    content_type: str = "application/json"
    retain: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    """User properties (MQTT 5) or headers (HTTP)."""
    correlation: bytes = b""
    """MQTT 5's correlation data, in an answer to a request."""
    left_out: int = 0
    """Readings of the chunk that a flow left out."""
    skip: bool = False
    """Nothing is left: the chunk is settled, and nothing is sent."""


class Encoder(Protocol):
    """The pure part of a connector."""

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """Cut a batch into the chunks that become messages, in order. Deterministic."""
        ...

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message. Raises PermanentError if the chunk can never be encoded."""
        ...


class Link(Protocol):
    """The I/O part of a connector: one session after the other with one upstream."""

    @property
    def window(self) -> int:
        """How many messages may be in flight in this session (after CONNACK, what the broker allows)."""
        ...

    @property
    def pacing(self) -> Pacing:
        """How the forwarder is to drive it."""
        ...

    async def connect(self, epoch: str) -> str:
        """Open a session; returns one line for people, e.g. `MQTT 5, session resumed`.

        `epoch` is the buffer's, for a message that announces the gateway.

        Raises TransientError (try again later) or PermanentError/ConfigError (a person must act; it is still retried,
        slowly, because brokers get repaired too).
        """
        ...

    def fits(self, message: Message) -> bool:
        """Whether the session takes a message of this size, as far as is known before sending it."""
        ...

    async def send(self, message: Message) -> Outcome:
        """Hand one message over and wait for the receiver's word. Concurrent calls up to `window`; started in order.

        Ends at once with RETRY when the session ends. Never raises for anything the network or the receiver did.
        """
        ...

    async def announce(self) -> None:
        """Say again how the gateway is, because that has changed, or its devices have (`follows_devices`).

        Takes one place in the window; raises nothing.
        """
        ...

    async def report(self) -> None:
        """Tell the receiver how the counters stand. Takes one place in the window; raises nothing."""
        ...

    async def lost(self) -> str:
        """Wait until the session has ended; returns why."""
        ...

    async def close(self) -> None:
        """End the session properly (offline status, DISCONNECT) within its own time limit. Idempotent."""
        ...


@runtime_checkable
class Serves(Protocol):
    """What a link may do besides: bring commands down and tell what becomes of them, as long as a session lasts."""

    async def serve(self, slot: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Work until cancelled. `slot` is a place in the window, to be held while a message is in flight."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """What a connector is told about the gateway when it is built."""

    name: str
    gateway: GatewayConfig
    devices: Mapping[str, DeviceConfig]
    """As they are at the moment of asking: a reload changes them (see `ConnectionConfig.follows_devices`)."""
    secret: Callable[[Any], str]
    """Turns a `Secret` into its text. Raises ConfigError if it cannot be found."""
    clock_trusted: Callable[[], bool] = lambda: True
    """Whether the gateway's wall clock can be believed now."""
    counters: Callable[[], Mapping[str, int]] = dict
    """What became of the readings: those of the gateway, and those of this connection."""
    commands: Commands | None = None
    """The way down; None unless the connection says `commands: true` (see `edged.config.base.CommandingConfig`)."""
    twin: Twin | None = None
    """The last reported and the desired value of every point."""
    state: Path | None = None
    """A folder of this connection's own for what it must remember over restarts; it may not exist yet."""
    status: Callable[[], Mapping[str, Any]] = dict
    """How the gateway is, as `edged status --json` shows it."""
    brief: Callable[[], Mapping[str, Any]] = dict
    """How the process and the machine do, in few words."""
    shared: dict[str, Any] = field(default_factory=dict)
    """For what the encoder and the link of this connection must agree on, by the connector's own names."""


@runtime_checkable
class Connector(Protocol):
    """One dialect, as the core sees it: the object `CONNECTOR` of a module in `edged.uplink.connectors`."""

    connection_config: type[ConnectionConfig]

    def encoder(self, config: Any, context: ConnectionContext) -> Encoder:
        """The encoder of one connection; `config` is an instance of `connection_config`. Raises ConfigError."""
        ...

    def link(self, config: Any, context: ConnectionContext) -> Link:
        """The link of one connection. Opens nothing yet. Raises ConfigError."""
        ...


@dataclass(frozen=True, slots=True)
class ServerState:
    """How a server that others ask is doing."""

    listening: str = ""
    """`host:port`; empty while it does not listen."""
    clients: int = 0
    """How many are connected."""
    requests: int = 0
    refused: int = 0
    """Requests that were answered with an error."""
    detail: str = ""
    """One line for people while it does not listen: why."""


class Server(Protocol):
    """What a connector has in place of an encoder and a link where nothing is sent, but others come and ask."""

    async def run(self) -> None:
        """Listen and answer until cancelled. Raises TransientError or ConfigError when it cannot listen."""
        ...

    def state(self) -> ServerState:
        """How it is doing."""
        ...


@runtime_checkable
class ServerConnector(Protocol):
    """A dialect of those who ask. Its `connection_config` says `keeps = False`: nothing waits in the buffer for it."""

    connection_config: type[ConnectionConfig]

    def server(self, config: Any, context: ConnectionContext) -> Server:
        """The server of one connection. Opens nothing yet. Raises ConfigError."""
        ...
