"""Samples as JSON, column by column, without an object or a call for a reading. Pure.

The shapes are those of `edged.uplink.payload`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import orjson

from edged.errors import PermanentError
from edged.model import GOOD, Quality, Reason, Sample, bad
from edged.uplink.api import Chunk, Envelope, Lane
from edged.uplink.payload import VERSION

_NULLS = (b"[null", b",null", b":null")
"""How a null stands in JSON; a text that contains the word has a quotation mark before it."""
_INT64, _UINT64 = -(2**63), 2**64 - 1


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
    if envelope.flow:
        head["flow"] = envelope.flow
    if chunk.replay:
        head["lane"], head["replay"] = Lane.HISTORICAL, True
    document = dict(head)
    expected = build(chunk.samples, document)
    with suppress(TypeError):
        text = orjson.dumps(document, default=_plain)
        if text.count(b"null") == expected or sum(map(text.count, _NULLS)) == expected:
            return text
    build([presentable(sample) for sample in chunk.samples], head)
    try:
        return orjson.dumps(head, default=_plain)
    except TypeError as exc:
        raise PermanentError(f"not representable in JSON: {exc}", reason="unencodable") from exc


def _columns(samples: Sequence[Sample], document: dict[str, Any]) -> int:
    """Put the samples into the document; returns how many nulls it should contain, -1 if that needs a closer look."""
    tables: dict[tuple[str, ...], dict[str, Any]] = {}
    nulls = 0
    for sample in samples:
        if not sample.points:
            continue  # thinned: nothing of it is left but its seq
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
    sample = samples[-1]  # those before it are empty: thinning left only their seq
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
    if isinstance(value, Sequence | array) and not isinstance(value, bytes):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not a value")


def presentable(sample: Sample) -> Sample:
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
