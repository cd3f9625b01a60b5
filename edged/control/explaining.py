"""How a value came about: the steps of `edged explain`, from what was read to the value. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from edged.adapter import Adapter, Explains, PollResult, Step
from edged.clock import iso
from edged.config.base import DeviceConfig, PointConfig
from edged.errors import TransientError
from edged.model import Sample
from edged.pipeline import DevicePipeline

_SHOWN = 64
"""Most bytes of a raw frame that are shown."""
_PRINTABLE = range(0x20, 0x7F)


def settings_of(device: DeviceConfig, point: str) -> PointConfig:
    """The settings of a point; plain ones for a point that the device brings itself. Raises KeyError."""
    known = device.points.get(point)  # type: ignore[call-overload]  # a Name is a str
    if known is not None:
        settings: PointConfig = known
        return settings
    if device.points or not device.brings_points:
        raise KeyError(point)
    return PointConfig()


def explanation(
    adapter: Adapter, config: DeviceConfig, device: str, point: str, results: Sequence[PollResult]
) -> dict[str, Any]:
    """All that one read of a device, not scaled, tells about a point. Raises KeyError, TransientError."""
    settings = settings_of(config, point)
    sample, index = _holding(results, point)
    raw = [each for result in results for each in result.raw]
    steps = list(adapter.explain(config, point, raw)) if isinstance(adapter, Explains) else _as_read(results, point)
    quality = {0: sample.quality[index]} if index in sample.quality else {}
    alone = replace(sample, points=(point,), values=(sample.values[index],), quality=quality)
    steps += pipeline_steps(settings, alone)
    final = DevicePipeline({point: settings}).compute(alone)
    return {
        "device": device,
        "point": point,
        "unit": settings.unit,
        "time": iso(final.time),
        "value": final.values[0],
        "quality": str(final.quality[0]) if final.quality else "good",
        "raw": [asdict(each) for each in raw],
        "steps": [asdict(step) for step in steps],
    }


def pipeline_steps(settings: PointConfig, sample: Sample) -> list[Step]:
    """What the pipeline does to a single value, step by step."""
    steps = []
    done: dict[str, Any] = {}
    for name in ("map", "scale", "offset", "decimals", "range"):
        chosen = getattr(settings, name)
        if chosen == getattr(PointConfig(), name):
            continue
        done[name] = chosen
        after = DevicePipeline({sample.points[0]: PointConfig(**done)}).compute(sample)
        quality = f", {after.quality[0]}" if after.quality else ""
        steps.append(Step(name, _TEXTS[name](chosen), f"{after.values[0]}{quality}"))
    if settings.deadband is not None:
        text = f"stored when it changes by {settings.deadband}, or after {settings.heartbeat}"
        steps.append(Step("deadband", text))
    return steps


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "map": lambda line: f"{list(line.raw)} becomes {list(line.to)}",
    "scale": lambda factor: f"× {factor:g}",
    "offset": lambda number: f"+ {number:g}",
    "decimals": lambda count: f"rounded to {count} decimals",
    "range": lambda limits: f"must lie within {limits[0]:g} and {limits[1]:g}",
}


def _as_read(results: Sequence[PollResult], point: str) -> list[Step]:
    """For adapters that do not tell their own steps: the bytes that came, and what they were taken for."""
    mine = [result for result in results if any(point in sample.points for sample in result.samples)]
    steps = []
    for each in (each for result in mine for each in result.raw):
        steps.append(Step("raw", each.what, each.error or _bytes(each.words)))
        if not each.error and all(word in _PRINTABLE for word in _stripped(each.words)):
            steps.append(Step("text", "", repr(bytes(each.words[:_SHOWN]).decode("ascii"))))
    sample, index = _holding(results, point)
    value, quality = sample.values[index], sample.quality.get(index)
    return [*steps, Step("decoded", "what the adapter made of it", str(quality if value is None else value))]


def _bytes(words: Sequence[int]) -> str:
    shown = " ".join(f"{word:02X}" for word in words[:_SHOWN])
    return shown + (f" … ({len(words)} bytes)" if len(words) > _SHOWN else "")


def _stripped(words: Sequence[int]) -> Sequence[int]:
    """Without line ends."""
    return [word for word in words if word not in b"\r\n\t"] or [0]


def _holding(results: Sequence[PollResult], point: str) -> tuple[Sample, int]:
    for result in results:
        for sample in reversed(result.samples):  # the newest of several that came by themselves
            if point in sample.points:
                return sample, sample.points.index(point)
    there = ", ".join(dict.fromkeys(name for one in results for sample in one.samples for name in sample.points))
    raise TransientError(f"the poll did not bring {point}; it brought {there or 'nothing'}")
