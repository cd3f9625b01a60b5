"""Samples into the rows of the log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edged.buffer.codec import encode_batch
from edged.errors import PermanentError
from edged.model import Sample

ROW_READINGS = 10_000
"""A longer flush is cut into rows of about so many readings, so that reading one back stays cheap."""


@dataclass(frozen=True, slots=True)
class Row:
    """Encoded samples that have no seq yet."""

    samples: tuple[Sample, ...]
    readings: int
    data: bytes
    target: str = ""
    """As in the log: whom it goes to, and how."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sample that no row can hold."""

    sample: Sample
    reason: str
    """`unencodable` or `too_large`."""


def make_rows(samples: Sequence[Sample], max_bytes: int) -> Iterable[Row | Rejected]:
    """All samples in their order, in rows of at most `max_bytes` of data."""
    group: list[Sample] = []
    readings = 0
    for sample in samples:
        if group and readings + len(sample.values) > ROW_READINGS:
            yield from _encoded(group, max_bytes)
            group, readings = [], 0
        group.append(sample)
        readings += len(sample.values)
    if group:
        yield from _encoded(group, max_bytes)


def _encoded(samples: list[Sample], max_bytes: int) -> Iterable[Row | Rejected]:
    """One row; where a sample cannot be stored or the row is too large, its halves, down to the one sample."""
    data, reason = b"", ""
    try:
        data = encode_batch(samples)
        if len(data) > max_bytes:
            reason = "too_large"
    except PermanentError as exc:
        reason = exc.reason
    if not reason:
        yield Row(tuple(samples), sum(len(sample.values) for sample in samples), data)
    elif len(samples) > 1:
        half = len(samples) // 2
        yield from _encoded(samples[:half], max_bytes)
        yield from _encoded(samples[half:], max_bytes)
    else:
        yield Rejected(samples[0], reason)
