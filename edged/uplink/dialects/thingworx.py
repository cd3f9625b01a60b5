"""ThingWorx's REST API: readings as values of properties, each with its time and quality. Pure.

One request writes any number of values of one thing: the service `UpdatePropertyValues`, which every thing has, with an
infotable of the data shape `NamedVTQ` (name, value, time, quality).
Source: support.ptc.com, ThingWorx Platform help center, REST API; the data shape as the platform's own clients send it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from edged.buffer.batch import Batch
from edged.config.base import DeviceConfig
from edged.errors import PermanentError
from edged.model import GOOD, Sample, Value
from edged.uplink.api import Chunk, Envelope, Message
from edged.uplink.dialects.cutting import cut

_SHAPE = {
    "fieldDefinitions": {
        name: {"name": name, "baseType": kind, "ordinal": ordinal}
        for ordinal, (name, kind) in enumerate(
            {"name": "STRING", "value": "VARIANT", "time": "DATETIME", "quality": "STRING"}.items()
        )
    }
}
_EXACT = 2**53
"""Up to here a NUMBER, which is a double, is exact."""
_LONG = 2**63


class PropertyEncoder:
    """Readings of one device in each message."""

    def __init__(
        self, base: str, max_readings: int, thing: Callable[[str], str], prop: Callable[[str], str],
        quality: Callable[[str], str] | None, about: Callable[[Chunk, Envelope], dict[str, str]],
    ) -> None:  # fmt: skip
        """`base`: the URL of the platform; `thing`, `prop`: what a device and a point are called there.

        `quality`: the property that takes the quality of a point as text, if any does; `about`: a message's headers.
        """
        self._base = base
        self._max_readings = max_readings
        self._thing = thing
        self._property = prop
        self._quality = quality
        self._about = about

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """Up to `max_readings` readings of one device."""
        return cut(batch, self._max_readings, one_device=True)

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message. Raises PermanentError if it can never be encoded."""
        devices = {sample.device for sample in chunk.samples if sample.points}
        if len(devices) > 1:  # after a flow with an interval: its halves have fewer
            raise PermanentError("a request writes to one thing only", reason="unencodable")
        device = next(iter(devices), "")
        rows = [row for sample in chunk.samples for row in self._rows(sample)]
        if not rows:
            return Message("", b"", skip=True, left_out=chunk.readings)
        url = f"{self._base}/Things/{quote(self._thing(device), safe='')}/Services/UpdatePropertyValues"
        try:
            payload = orjson.dumps({"values": {"dataShape": _SHAPE, "rows": rows}})
        except TypeError as exc:
            raise PermanentError(f"not representable in JSON: {exc}", reason="unencodable") from exc
        return Message(url, payload, properties=self._about(chunk, envelope))

    def _rows(self, sample: Sample) -> Iterator[dict[str, Any]]:
        """What is bad has no value, so it is left out; where there is a property for the quality, that says why."""
        time = sample.time // 1000
        for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True)):
            quality = sample.quality.get(i, GOOD)
            usable = quality.status != "bad" and value is not None and not _endless(value)
            if usable:
                word = "GOOD" if quality.status == "good" else "UNCERTAIN"
                yield {"name": self._property(point), "value": _typed(value), "time": time, "quality": word}
            if self._quality is not None:
                text = str(quality) if usable or quality.status == "bad" else "bad(decode)"
                typed = {"value": text, "baseType": "STRING"}
                yield {"name": self._quality(point), "value": typed, "time": time, "quality": "GOOD"}


def _endless(value: Value) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _typed(value: Value) -> dict[str, Any]:
    """A value of a VARIANT, with its base type."""
    match value:
        case bool():
            kind = "BOOLEAN"
        case int() if _EXACT < abs(value) < _LONG:
            kind = "LONG"
        case int() | float():
            kind = "NUMBER"
        case _:
            kind = "STRING"
    return {"value": value, "baseType": kind}


def property_name(text: str) -> str:
    """As a property can be called: letters, digits and underscores, beginning with a letter."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name[:1].isalpha() else f"p_{name}"


def clashes(devices: Mapping[str, DeviceConfig], prop: Callable[[str], str]) -> str:
    """Points of one device that would be one property; empty if there are none."""
    for device, settings in devices.items():
        seen: dict[str, str] = {}
        for point in map(str, settings.points):
            other = seen.setdefault(prop(point), point)
            if other != point:
                return f"{device}/{other} and {device}/{point} would both be the property {prop(point)!r}"
    return ""
