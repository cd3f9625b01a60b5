"""InfluxDB line protocol: a line per sample, the device as measurement, the points as fields. Pure.

Times in nanoseconds. A field keeps the type of its first value for ever, so numbers are integers (`5i`) only where the
configuration promises that they always are; all others are floats, `5.0` like `5.5`, as far as a float can hold them.
What is not good has a field beside it, `point_quality`; a bad value has only that.
Source: docs.influxdata.com, Line protocol reference (v2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edged.model import GOOD, Sample, Value
from edged.uplink.encoders import presentable

CONTENT = "text/plain"
_INT64 = 2**63
_EXACT = 2**53


def lines(samples: Sequence[Sample], gateway: str, whole: Callable[[str, str], bool]) -> Iterator[str]:
    """One line for each sample that has points. `whole`: whether the values of a device's point are always integers."""
    for raw in samples:
        sample = presentable(raw)
        fields = []
        for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True)):
            quality = sample.quality.get(i, GOOD)
            if value is not None:
                plain = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _EXACT
                same = float(value) if plain and not whole(sample.device, point) else value
                fields.append(f"{_key(point)}={_field(same)}")
            if quality.status != "good":
                fields.append(f"{_key(f'{point}_quality')}={_field(str(quality))}")
        if fields:
            measurement = _escaped(sample.device, ", ")
            yield f"{measurement},gateway={_key(gateway)} {','.join(fields)} {sample.time * 1000}"


def _field(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value}i" if -_INT64 <= value < _INT64 else f"{value}u"
        case float():
            return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _key(text: str) -> str:
    return _escaped(text, ",= ")


def _escaped(text: str, special: str) -> str:
    """A backslash before what has a meaning; a line cannot be broken, nor a name end in a backslash."""
    text = text.replace("\n", "\\n").replace("\r", "\\r")
    for char in special:
        text = text.replace(char, f"\\{char}")
    return f"{text}_" if text.endswith("\\") else text
