"""The JSON messages that edged publishes, described. Pure.

The dataclasses are the published description: `schema()` makes the JSON Schema of them and `edged.uplink.asyncapi` the
AsyncAPI document. `edged.uplink.encoders` builds the same shapes in a faster way; tests hold what it writes against the
schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

VERSION = 1
"""The `v` of every message. A receiver ignores keys that it does not know; a change it could not ignore raises this."""

_DOCUMENTED: dict[str, Any] = {"use_attribute_docstrings": True}
LaneName = Literal["live", "historical", "priority"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Samples of the same shape: one row for each sample, one column for each point."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    points: list[str]
    """The names of the columns."""
    devices: list[str]
    """The device of each row."""
    times: list[int]
    """When each row was read: microseconds since 1970-01-01 UTC."""
    values: list[list[bool | int | float | str | None]]
    """The rows. A value that is null is bad: `quality` says why."""
    quality: list[tuple[int, int, str]] = field(default_factory=list)
    """[row, column, quality] of each value that is not good; absent when all are. A quality is `good`,
    `uncertain(reason)` or `bad(reason)`."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Many samples in one message (`layout: columns`)."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    v: Literal[1]
    """The version of this format."""
    gateway: str
    """The id of the gateway."""
    epoch: str
    """Within one epoch of a gateway the sequence numbers never repeat. A new buffer file begins a new one."""
    lane: LaneName
    """`live`: fresh readings. `historical`: what an outage left behind, oldest first. `priority`: readings of points
    with `priority: high`, ahead of the others. With `lanes: strict` all are `live`."""
    first: int
    """The sequence number of the first sample in this message."""
    seq: int
    """The sequence number of the last sample in this message: together with `epoch` the identity of the message."""
    prev: int
    """The `seq` of the message that precedes this one on the same lane; 0 if there is none."""
    readings: int
    """How many values the tables hold together."""
    tables: list[Table]
    """The samples, those with the same points together."""
    replay: bool = False
    """`true`: a person had these sent once more; the values may have come before. Absent otherwise."""
    flow: str = ""
    """The flow that it is of: `seq` and `prev` are those of a flow. Absent where the connection has none."""


@dataclass(frozen=True, kw_only=True)
class OneSample:
    """One sample in one message (`layout: samples`)."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    v: Literal[1]
    """The version of this format."""
    gateway: str
    """The id of the gateway."""
    epoch: str
    """Within one epoch of a gateway the sequence numbers never repeat. A new buffer file begins a new one."""
    lane: LaneName
    """`live`: fresh readings. `historical`: what an outage left behind, oldest first. `priority`: readings of points
    with `priority: high`, ahead of the others. With `lanes: strict` all are `live`."""
    seq: int
    """The sequence number of the sample: together with `epoch` the identity of the message."""
    prev: int
    """The `seq` of the message that precedes this one on the same lane; 0 if there is none."""
    device: str
    """The device that was read."""
    time: int
    """When it was read: microseconds since 1970-01-01 UTC."""
    values: dict[str, bool | int | float | str | None]
    """Point → value. A value that is null is bad: `quality` says why."""
    quality: dict[str, str] = field(default_factory=dict)
    """Point → quality of each value that is not good; absent when all are. A quality is `good`, `uncertain(reason)` or
    `bad(reason)`."""
    replay: bool = False
    """`true`: a person had it sent once more; the values may have come before. Absent otherwise."""
    flow: str = ""
    """The flow that it is of: `seq` and `prev` are those of a flow. Absent where the connection has none."""


@dataclass(frozen=True, kw_only=True)
class GatewayStatus:
    """Whether the gateway is connected (retained)."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    v: Literal[1]
    """The version of this format."""
    gateway: str
    """The id of the gateway."""
    connection: str
    """The name of the connection in the gateway's configuration."""
    status: Literal["online", "offline"]
    """`online` from the moment a session is open until it ends."""
    reason: Literal["connected", "stopped", "lost"]
    """`connected`; `stopped`: the gateway closed the session; `lost`: the broker noticed that it broke."""
    epoch: str
    """The epoch of the messages of this session."""
    version: str
    """The version of edged."""
    time: int
    """Microseconds since 1970-01-01 UTC by the gateway's clock. With `lost`: when the session that broke began."""
    clock: Literal["trusted", "untrusted"] = "trusted"
    """Whether that clock could be believed. While it is `untrusted`, readings are held back or `uncertain(clock)`."""


@dataclass(frozen=True, kw_only=True)
class SystemHealth:
    """How the process and the machine do. A value that the machine does not tell is null."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    version: str
    """The version of edged."""
    uptime: int
    """Seconds since the gateway was started."""
    restarts: dict[str, int]
    """How often it was started by reason: `first`, `clean`, `upgrade`, `crash`, `watchdog`, `memory`, `power`."""
    cpu: float | None
    """Share of one core lately: 0.02 is 2 %."""
    rss: int | None
    """Memory in use, bytes."""
    written: int | None
    """Bytes that the gateway has had written to the disk since it was started."""
    disk_free: int | None
    """Bytes left on the disk of its state."""
    life_used: int | None
    """How much of its life an eMMC has used, per cent."""
    memory_free: int | None
    """Bytes of memory that could be had."""
    temperature: float | None
    """The hottest sensor, °C."""
    throttled: list[str] | None
    """What a Raspberry Pi suffers, or has suffered since its start (`…-before`): `under-voltage`, `capped`,
    `throttled`, `hot`."""
    upgrade: str | None = None
    """What became of the last upgrade: `good`, `rolled-back`, `refused` or `interrupted`; null if there was none."""


@dataclass(frozen=True, kw_only=True)
class GatewayHealth:
    """What became of all readings, once a minute (retained). The counters are durable, and add up: see mqtt.md."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    v: Literal[1]
    """The version of this format."""
    gateway: str
    """The id of the gateway."""
    connection: str
    """The name of the connection in the gateway's configuration."""
    epoch: str
    """The epoch of the messages of this session."""
    time: int
    """When it was said: microseconds since 1970-01-01 UTC by the gateway's clock."""
    read: int
    """Readings that came from the devices."""
    stored: int
    """Those in the buffer, delivered ones included."""
    suppressed: int
    """Those that a deadband held back."""
    rejected: int
    """Those that could not be stored."""
    waiting: int
    """Those in memory that are not on the disk yet."""
    stored_for: int
    """Readings stored since this connection began; what was sent once more counts again."""
    delivered: int
    """Those that the receiver confirmed."""
    pending: int
    """Those that wait for it."""
    expired: int
    """Those that became too old."""
    evicted: int
    """Those given up for want of room, or lost by the disk."""
    dead: int
    """Those that the receiver refused for good."""
    filtered: int = 0
    """The part of `delivered` that flows left out: settled without being sent. Absent where there are no flows. With
    flows a reading counts once for each flow."""
    system: SystemHealth | None = None
    """How the process and the machine do."""


@dataclass(frozen=True, kw_only=True)
class PointMetadata:
    """What is known of a point. A key is absent where nothing is."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    unit: str = ""
    """The engineering unit."""
    type: str = ""
    """The type of the value on the device, in the words of its protocol."""
    description: str = ""
    """What the value is, for people."""
    writable: bool = False
    """Whether commands may write it."""


@dataclass(frozen=True, kw_only=True)
class DeviceMetadata:
    """What is known of a device."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    labels: dict[str, str]
    """Its labels, such as room: plant."""
    points: dict[str, PointMetadata]
    """Its points by name."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the gateway stands. A key is empty where nothing was configured."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    tenant: str
    """Whose gateway it is."""
    building: str
    """The building."""
    location: str
    """Where in it."""
    timezone: str
    """The zone of local times."""


@dataclass(frozen=True, kw_only=True)
class GatewayMetadata:
    """What the readings mean: published once for each session and retained, so that no reading needs to carry it."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    v: Literal[1]
    """The version of this format."""
    gateway: str
    """The id of the gateway."""
    site: Site
    """Where it stands."""
    devices: dict[str, DeviceMetadata]
    """The devices by name."""


@dataclass(frozen=True, kw_only=True)
class CommandMessage:
    """A command: what a point is to be.

    It must say until when it may be carried out: by `expires`, by `time` and `ttl`, or by MQTT 5's message expiry.
    Other keys are refused.
    """

    __pydantic_config__: ClassVar = _DOCUMENTED

    point: str
    """The point, as device/point."""
    id: str = ""
    """Names the command: what comes again with the same id is not carried out again. Up to 128 characters. Without it:
    MQTT 5's correlation data."""
    value: bool | int | float | str | None = None
    """What the point is to be, as it shows it: scaled, the word of an enum. Either this or `raw`."""
    raw: str | None = None
    """The bytes to write as they go over the wire, in hexadecimal: for Modbus, registers with the high byte first."""
    expires: int | str = 0
    """When it expires, by the sender's clock: microseconds since 1970-01-01 UTC, or a text with its zone such as
    2026-11-21T12:00:00Z."""
    time: int | str = 0
    """When it was sent, by the sender's clock, likewise."""
    ttl: float | str = 0
    """For how long it may be carried out: seconds, or a text such as 5m."""
    confirm: bool = True
    """Whether to read the point back."""
    requester: str = ""
    """Who wants it, for the gateway's log."""


@dataclass(frozen=True, kw_only=True)
class CommandResultMessage:
    """What became of a command. It goes to MQTT 5's response topic, with the correlation data, where there is one."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    v: Literal[1]
    """The version of this format."""
    gateway: str
    """The id of the gateway."""
    connection: str
    """The name of the connection in the gateway's configuration."""
    id: str
    """That of the command; empty if it had none that could be read."""
    point: str
    """The point, as device/point; empty if the message was no command."""
    state: Literal["accepted", "executed", "verified", "failed", "expired", "rejected"]
    """How far it has come. Only after `accepted` more will follow. After `rejected` and `expired` it is certain that
    nothing was sent to the device."""
    time: int
    """When it came to this: microseconds since 1970-01-01 UTC, by the gateway's clock."""
    reason: str = ""
    """One word for why it was rejected or failed."""
    detail: str = ""
    """The same in one line for people."""
    value: bool | int | float | str | None = None
    """What the point read as afterwards, if it was read back."""


@dataclass(frozen=True, kw_only=True)
class ChangeMessage:
    """A new value or quality of a point that has `monitor: true`."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    v: Literal[1]
    """The version of this format."""
    gateway: str
    """The id of the gateway."""
    point: str
    """The point, as device/point."""
    value: bool | int | float | str | None
    """The value; null if it is bad."""
    time: int
    """When it was read: microseconds since 1970-01-01 UTC."""
    quality: str = "good"
    """Absent while it is good."""


MESSAGES: dict[str, type] = {
    "columns": Columns,
    "samples": OneSample,
    "status": GatewayStatus,
    "health": GatewayHealth,
    "metadata": GatewayMetadata,
    "command": CommandMessage,
    "result": CommandResultMessage,
    "change": ChangeMessage,
}
"""Every message by the name it has in the published documents."""


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of all messages, each under `$defs`. Needs pydantic; the daemon never calls it."""
    from pydantic import TypeAdapter  # noqa: PLC0415  # only documents are made with it

    inputs: list[Any] = [(name, "validation", TypeAdapter(model)) for name, model in MESSAGES.items()]
    _, document = TypeAdapter.json_schemas(
        inputs, title="Messages of edged", description="Every message is one of these.", ref_template="#/$defs/{model}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "anyOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in MESSAGES.values()],
    }
