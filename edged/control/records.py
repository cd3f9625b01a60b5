"""Samples and results of polls as JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edged.adapter import PollResult
from edged.clock import iso
from edged.config.base import PointConfig
from edged.config.types import Name
from edged.model import Sample


def sample_record(sample: Sample) -> dict[str, Any]:
    """A sample as one JSON object: time as text, values by point, quality where it is not good."""
    record: dict[str, Any] = {
        "device": sample.device,
        "time": iso(sample.time),
        "values": dict(zip(sample.points, sample.values, strict=True)),
    }
    if sample.quality:
        record["quality"] = {sample.points[i]: str(quality) for i, quality in sample.quality.items()}
    return record


def poll_record(result: PollResult, points: Mapping[Name, PointConfig] | None = None) -> dict[str, Any]:
    """The result of a read as one JSON object: raw words, decoded samples, and what was learnt.

    `points` tell the units.
    """
    known = points or {}
    names = {str(name) for sample in result.samples for name in sample.points}
    return {
        "samples": [sample_record(sample) for sample in result.samples],
        "units": {str(name): one.unit for name, one in known.items() if one.unit and str(name) in names},
        "raw": [asdict(raw) for raw in result.raw],
        "transactions": result.transactions,
        "notes": list(result.notes),
    }
