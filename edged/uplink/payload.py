"""The JSON messages that edged publishes: what they look like, and the fast encoders of readings. Pure.

The dataclasses are the published description: `schema()` makes the JSON Schema of them and `edged.uplink.asyncapi` the
AsyncAPI document. The encoders build the same shapes column by column, without an object per reading; tests hold what
they write against the schema.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal

import orjson

from edged.errors import PermanentError
from edged.model import GOOD, Quality, Reason, Sample, bad
from edged.uplink.api import Chunk, Envelope

VERSION = 1
"""The `v` of every message. A receiver ignores keys that it does not know; a change it could not ignore raises this."""

_DOCUMENTED: dict[str, Any] = {"use_attribute_docstrings": True}
_INT64, _UINT64 = -(2**63), 2**64 - 1

LaneName = Literal["live", "historical"]


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
    """`live`: fresh readings. `historical`: what an outage left behind, oldest first."""
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
    """`live`: fresh readings. `historical`: what an outage left behind, oldest first."""
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


MESSAGES: dict[str, type] = {
    "columns": Columns,
    "samples": OneSample,
    "status": GatewayStatus,
    "metadata": GatewayMetadata,
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


# -- encoders --------------------------------------------------------------------------------------------------------


def encode_columns(chunk: Chunk, envelope: Envelope, gateway: str) -> bytes:
    """A chunk as a `Columns` message. Raises PermanentError if it cannot be encoded."""
    return _checked(_columns, chunk, envelope, gateway)


def encode_sample(chunk: Chunk, envelope: Envelope, gateway: str) -> bytes:
    """A chunk of one sample as a `OneSample` message. Raises PermanentError if it cannot be encoded."""
    return _checked(_sample, chunk, envelope, gateway)


def _checked(
    build: Callable[[Sequence[Sample], dict[str, Any]], int], chunk: Chunk, envelope: Envelope, gateway: str
) -> bytes:
    """The message, with nulls exactly where a quality says bad.

    orjson writes null for NaN and infinity without a word. Counting the nulls in the text notices that at no cost for a
    reading; only when the count is wrong (or a text contains the word) is each value looked at.
    """
    head = {
        "v": VERSION,
        "gateway": gateway,
        "epoch": envelope.epoch,
        "lane": envelope.lane,
        "first": chunk.first,
        "seq": envelope.seq,
        "prev": envelope.prev,
        "readings": chunk.readings,
    }
    document = dict(head)
    expected = build(chunk.samples, document)
    with suppress(TypeError):
        text = orjson.dumps(document, default=_plain)
        if text.count(b"null") == expected:
            return text
    build([_presentable(sample) for sample in chunk.samples], head)
    try:
        return orjson.dumps(head, default=_plain)
    except TypeError as exc:
        raise PermanentError(f"not representable in JSON: {exc}", reason="unencodable") from exc


def _columns(samples: Sequence[Sample], document: dict[str, Any]) -> int:
    """Put the samples into the document; returns how many nulls it should contain, -1 if that needs a closer look."""
    tables: dict[tuple[str, ...], dict[str, Any]] = {}
    nulls = 0
    for sample in samples:
        table = tables.get(sample.points)
        if table is None:
            table = tables[sample.points] = {"points": sample.points, "devices": [], "times": [], "values": []}
        if sample.quality:
            row, odd = len(table["values"]), _odd(sample)
            table.setdefault("quality", []).extend((row, column, text) for column, text in odd)
            nulls = _add(nulls, _nulls(sample))
        table["devices"].append(sample.device)
        table["times"].append(sample.time)
        table["values"].append(sample.values)
    document["tables"] = list(tables.values())
    return nulls


def _sample(samples: Sequence[Sample], document: dict[str, Any]) -> int:
    (sample,) = samples
    del document["first"], document["readings"]
    document["device"], document["time"] = sample.device, sample.time
    names = _names(sample.points)
    document["values"] = dict(zip(names, sample.values, strict=True))
    if not sample.quality:
        return 0
    document["quality"] = {names[column]: text for column, text in _odd(sample)}
    return _nulls(sample)


@lru_cache(4096)
def _names(points: tuple[str, ...]) -> tuple[str, ...]:
    """The same as plain str: orjson takes no other keys, and names from the configuration are a class of their own."""
    return tuple(map(str, points))


def _odd(sample: Sample) -> list[tuple[int, str]]:
    """Column and quality of each value that is not good."""
    return [(column, str(quality)) for column, quality in sorted(sample.quality.items()) if quality.status != "good"]


def _nulls(sample: Sample) -> int:
    """How many values are bad and therefore null; -1 if a bad one is not null."""
    columns = [column for column, quality in sample.quality.items() if quality.status == "bad"]
    return len(columns) if all(sample.values[column] is None for column in columns) else -1


def _add(total: int, more: int) -> int:
    return total + more if total >= 0 and more >= 0 else -1


def _plain(value: object) -> list[Any]:
    """Other sequences than lists and tuples, such as an array of numbers."""
    if isinstance(value, Sequence | array):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not a value")


def _presentable(sample: Sample) -> Sample:
    """The sample with null for each value that is bad or that JSON does not have, and a bad quality for each null."""
    quality: dict[int, Quality] = dict(sample.quality)
    values = list(sample.values)
    for i, value in enumerate(values):
        if quality.get(i, GOOD).status == "bad":
            values[i] = None
        elif value is None or not _in_json(value):
            values[i], quality[i] = None, bad(Reason.DECODE)
    return Sample(sample.device, sample.time, sample.mono, sample.points, values, quality)


def _in_json(value: object) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case int():
            return _INT64 <= value <= _UINT64
        case str():
            return not any("\ud800" <= char <= "\udfff" for char in value)
        case _:
            return False
