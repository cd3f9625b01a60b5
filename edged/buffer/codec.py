"""A batch as bytes and back. Pure. The format is described in docs/explanation/buffer.md.

The text is JSON, compressed with zlib: values stand column by column, all samples of the same shape together, so that
a column of similar numbers compresses well, and every column passes through C once.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, repeat
from operator import attrgetter, sub
from typing import Any

import orjson

from edged.buffer.batch import Batch
from edged.errors import PermanentError
from edged.model import ALL_GOOD, GOOD, Quality, Sample, Value, bad

LEVEL = 1
"""zlib's fastest level: level 6 costs two to four times the CPU for a fifth to a quarter of the bytes."""
_END = "\x1f"
"""Ends every point name in the text of a shape."""
_CACHED_SHAPES = 4096
_PLAIN = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
"""A value that is neither of these would come back as a text."""
_TIMES = 2**62
_ODD_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

_devices, _times, _monos = attrgetter("device"), attrgetter("time"), attrgetter("mono")
_points, _values, _qualities = attrgetter("points"), attrgetter("values"), attrgetter("quality")


def encode_batch(samples: Sequence[Sample]) -> bytes:
    """The samples as one blob. Raises PermanentError if one of them cannot be encoded."""
    try:
        document = _document(samples)
        text = orjson.dumps(document, option=_PLAIN)
        if b"null" in text and (odd := _odd_floats(samples)):
            text = orjson.dumps(document | {"odd": odd}, option=_PLAIN)
        return zlib.compress(text, LEVEL)
    except (TypeError, ValueError, OverflowError) as exc:
        raise PermanentError(f"a sample cannot be stored: {exc}", reason="unencodable") from exc


def _document(samples: Sequence[Sample]) -> dict[str, Any]:
    devices, times, monos = (list(map(part, samples)) for part in (_devices, _times, _monos))
    for clock in (times, monos):
        if set(map(type, clock)) != {int} or not -_TIMES < min(clock) <= max(clock) < _TIMES:
            raise ValueError("a time is not a whole number of microseconds")
    device_index = {name: i for i, name in enumerate(dict.fromkeys(devices))}
    shape_index: dict[tuple[str, ...], int] = {}
    groups: list[list[Sequence[Value]]] = []
    order: list[int] = []
    for points, values in zip(map(_points, samples), map(_values, samples), strict=True):
        shape = shape_index.get(points)
        if shape is None:
            shape = shape_index[points] = len(groups)
            groups.append([])
        groups[shape].append(values)
        order.append(shape)
    document = {
        "shapes": list(map(_shape_text, shape_index)),
        "devices": list(device_index),
        "shape": order,
        "device": list(map(device_index.__getitem__, devices)),
        "time": _deltas(times),
        "offset": _deltas(list(map(sub, times, monos))),
        "values": [_columns(len(shape), rows) for shape, rows in zip(shape_index, groups, strict=True)],
    }
    if any(map(_qualities, samples)):
        document["qualities"], document["quality"] = _encode_qualities(samples)
    return document


def _shape_text(points: tuple[str, ...]) -> str:
    text = _END.join((*points, ""))
    if text.count(_END) != len(points):
        raise ValueError("a point's name contains a control character")
    return text


def _deltas(numbers: list[int]) -> list[int]:
    return list(map(sub, numbers, [0, *numbers]))


def _columns(width: int, rows: list[Sequence[Value]]) -> list[Any]:
    if set(map(len, rows)) != {width}:
        raise ValueError("a sample does not have one value for each of its points")
    if len(rows) == 1:
        return list(rows[0])
    return list(zip(*rows, strict=True))


def _odd_floats(samples: Sequence[Sample]) -> list[tuple[int, int, str]]:
    """JSON has no infinity: it would come back as None. (sample, value, text) of each."""
    return [
        (i, j, repr(value))
        for i, sample in enumerate(samples)
        for j, value in enumerate(sample.values)
        if type(value) is float and not math.isfinite(value)
    ]


def _encode_qualities(samples: Sequence[Sample]) -> tuple[list[tuple[str, str]], list[tuple[int, Any, Any]]]:
    """The table of qualities, and for each sample that has some: (sample, value indices, table indices).

    Where all values of a sample share one quality, as when a device does not answer, both are short: (sample, 0, one).
    """
    table: dict[tuple[str, str], int] = {}
    known: dict[int, int] = {}
    rows: list[tuple[int, Any, Any]] = []
    for i, sample in enumerate(samples):
        if not sample.quality:
            continue
        identities = list(map(id, sample.quality.values()))
        if not known.keys() >= set(identities):
            for quality in sample.quality.values():
                known[id(quality)] = table.setdefault((str(quality.status), str(quality.reason)), len(table))
        if len(identities) == len(sample.values) and len(set(identities)) == 1:
            rows.append((i, 0, known[identities[0]]))
        else:
            rows.append((i, list(sample.quality), [known[identity] for identity in identities]))
    return list(table), rows


def decode_batch(blob: bytes, first: int, boot: str, readings: int) -> Batch:
    """What `encode_batch` made of the samples. Raises ValueError if the blob is not one of its.

    Types of values are not looked at: a row has a checksum, so that only a forger could have changed them.
    """
    try:
        document = orjson.loads(zlib.decompress(blob))
        return Batch(first, tuple(_samples(document)), boot, readings)
    except (zlib.error, LookupError, TypeError, AttributeError, StopIteration) as exc:
        raise ValueError(f"not a batch: {exc}") from exc


def _samples(document: dict[str, Any]) -> Iterable[Sample]:
    shapes = list(map(_interned_shape, document["shapes"]))
    order: list[int] = document["shape"]
    sizes = Counter(order)
    groups = [iter(_rows(len(shapes[i]), columns, sizes[i])) for i, columns in enumerate(document["values"])]
    values: list[Sequence[Value]] = [next(groups[shape]) for shape in order]
    for i, j, text in document.get("odd", ()):
        row = list(values[i])
        row[j] = _ODD_FLOATS[text]
        values[i] = tuple(row)
    times = list(accumulate(document["time"]))
    monos = map(sub, times, accumulate(document["offset"]))
    devices = map(document["devices"].__getitem__, document["device"])
    points = map(shapes.__getitem__, order)
    qualities: list[Mapping[int, Quality]] | repeat[Mapping[int, Quality]] = repeat(ALL_GOOD, len(order))
    if "quality" in document:
        qualities = _decode_qualities(document, list(map(len, values)))
    return map(Sample, devices, times, monos, points, values, qualities)


def _rows(width: int, columns: list[Any], samples: int) -> Iterable[Sequence[Value]]:
    if width == 0:
        return repeat(())
    if len(columns) != width:
        raise ValueError(f"not a batch: {len(columns)} columns for {width} points")
    return zip(*columns, strict=True) if samples > 1 else (tuple(columns),)


def _decode_qualities(document: dict[str, Any], widths: list[int]) -> list[Mapping[int, Quality]]:
    table = [_interned_quality(status, reason) for status, reason in document["qualities"]]
    qualities: list[Mapping[int, Quality]] = [ALL_GOOD] * len(widths)
    for i, indices, entries in document["quality"]:
        if indices == 0:
            qualities[i] = dict.fromkeys(range(widths[i]), table[entries])
        else:
            qualities[i] = dict(zip(indices, map(table.__getitem__, entries), strict=True))
    return qualities


_shapes: dict[str, tuple[str, ...]] = {}


def _interned_shape(text: str) -> tuple[str, ...]:
    """The same shape is the same object in all batches, so that encoders can compare with `is`."""
    shape = _shapes.get(text)
    if shape is None:
        if len(_shapes) >= _CACHED_SHAPES:
            _shapes.clear()
        shape = _shapes[text] = tuple(text.split(_END)[:-1])
    return shape


def _interned_quality(status: str, reason: str) -> Quality:
    if status == "bad":
        return bad(reason)
    if status == "good" and not reason:
        return GOOD
    if status not in {"good", "uncertain"}:
        raise ValueError(f"not a batch: {status!r} is not a quality")
    return Quality(status, reason)  # type: ignore[arg-type]  # checked in the lines above
