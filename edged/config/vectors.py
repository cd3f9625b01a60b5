"""Runs the test vectors of profiles whose adapters say what their bytes come to. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from edged.errors import ConfigError
from edged.model import Reading, Sample, Value
from edged.pipeline import DevicePipeline

Problem = tuple[str, tuple[str | int, ...], str]
"""`error` or `warning`, the keys that lead to it, and what it is."""


@runtime_checkable
class Decodes(Protocol):
    """An adapter whose vectors are bytes: a vector has `values`, or `bad` points, or is `rejected`."""

    def decoded(self, device: Any, vector: Mapping[str, Any]) -> Sequence[Sample]:
        """What a device makes of a vector's bytes, not scaled; nothing if they are not taken. Raises ValueError."""
        ...


@runtime_checkable
class Carries(Protocol):
    """An adapter whose profiles can be packages: with drivers, and example vectors beside them."""

    def examples(self, device: Any) -> Iterable[tuple[str, str]]:
        """Run those of a device's driver; `error` or `warning`, and what is wrong, of each that is not as it says."""
        ...


def problems(adapter: Decodes, document: Mapping[str, Any], device: Any) -> Iterator[Problem]:
    """What is wrong with the vectors of a profile that loads."""
    pipeline = DevicePipeline(device.points)
    told = 0
    for number, vector in enumerate(document.get("tests") or ()):
        where = ("tests", number)
        if not isinstance(vector, Mapping) or not vector.keys() & {"values", "bad", "rejected"}:
            yield "error", where, "a vector has `values`, `bad` or `rejected`: what its bytes come to"
            continue
        if not isinstance(vector.get("values", {}), Mapping) or not isinstance(vector.get("bad", []), list):
            yield "error", where, "`values` is a mapping such as `{weight: 12.3}`, and `bad` a list of points"
            continue
        told += "values" in vector
        try:
            samples = [pipeline.compute(sample) for sample in adapter.decoded(device, vector)]
        except ConfigError as exc:
            yield "warning", where, f"was not run: {exc}"
            continue
        except (ValueError, TypeError) as exc:
            yield "error", where, str(exc)
            continue
        readings = {reading.point: reading for sample in samples for reading in sample.readings()}
        yield from ((severity, (*where, *keys), text) for severity, keys, text in _compared(vector, readings))
    if not told:
        yield "warning", ("tests",), "no vector says what the device sends and what it means"


def _compared(vector: Mapping[str, Any], readings: Mapping[str, Reading]) -> Iterator[Problem]:
    if vector.get("rejected"):
        if readings:
            values = ", ".join(f"{name} {one.value}" for name, one in readings.items())
            yield "error", ("rejected",), f"it is taken, and gives {values}"
        return
    if not readings:
        yield "error", (), "nothing comes of these bytes: they are no whole frame, or of another kind"
        return
    for name, expected in dict(vector.get("values") or {}).items():
        reading = readings.get(name)
        if reading is None:
            yield "error", ("values", name), "these bytes do not have it; it has " + (", ".join(readings))
        elif reading.quality.status == "bad":
            yield "error", ("values", name), f"is {reading.quality}, and the vector expects {expected}"
        elif not same(reading.value, expected):
            yield "error", ("values", name), f"is {reading.value}, and the vector expects {expected}"
    for index, name in enumerate(vector.get("bad") or ()):
        reading = readings.get(name)
        if reading is None or reading.quality.status != "bad":
            yield "error", ("bad", index), f"{name} is {reading.value if reading else 'not there'}, and not bad"


def same(value: Value, expected: Value) -> bool:
    """Whether a value is what a vector expects; a whole number and the same with a point are the same."""
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, int | float) and isinstance(expected, int | float):
        return math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-9)
    return value == expected
