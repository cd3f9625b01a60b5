"""A text of one's own for each reading. Pure.

`{name}` stands for a value, escaped as within a JSON text, except `{value}`, which is a JSON value: `21.5`, `"on"`,
`true`, `null`. `{unit|location|'none'}` takes the first that is not empty. All other braces stand for themselves, so
that JSON can be written as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import orjson

from edged.model import GOOD, Sample
from edged.uplink.encoders import presentable
from edged.uplink.moments import text_of

NAMES = (
    "gateway", "tenant", "building", "location", "connection", "device", "point", "value", "text", "quality", "unit",
    "time", "seconds", "iso",
)  # fmt: skip
"""`value` as JSON, `text` as text; `time` in microseconds since 1970, `seconds` in seconds, `iso` as a date, UTC."""
_PLACE = re.compile(r"\{([A-Za-z_]\w*(?:\|(?:[A-Za-z_]\w*|'[^'{}|]*'))*)\}")
_MAX = 4096


def check(template: str) -> None:
    """Raises ValueError if it cannot be used."""
    if not template.strip():
        raise ValueError("`layout: template` needs a `template`, such as '{device}/{point}={value}'")
    if len(template) > _MAX:
        raise ValueError(f"`template` has at most {_MAX} characters")
    places = _PLACE.findall(template)
    for place in places:
        for name in place.split("|"):
            if not name.startswith("'") and name not in NAMES:
                raise ValueError(f"`template` uses {{{name}}}; there are {', '.join(NAMES)}")
    if not any("value" in place.split("|") or "text" in place.split("|") for place in places):
        raise ValueError("`template` uses neither {value} nor {text}: the reading would be missing")


def lines(
    template: str, samples: Sequence[Sample], names: Mapping[str, str], units: Mapping[tuple[str, str], str]
) -> Iterator[str]:
    """What a checked template yields for each reading. `names`: those of the gateway."""
    for raw in samples:
        sample = presentable(raw)
        known = {
            **names, "device": sample.device, "time": str(sample.time), "seconds": f"{sample.time / 1e6:.6f}",
            "iso": text_of(sample.time) if "iso" in template else "",
        }  # fmt: skip
        for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True)):
            known["point"] = point
            known["value"] = orjson.dumps(value).decode()
            known["text"] = value if isinstance(value, str) else "" if value is None else known["value"]
            known["quality"] = str(sample.quality.get(i, GOOD))
            known["unit"] = units.get((sample.device, point), "")
            yield _PLACE.sub(lambda match, known=known: _filled(match[1], known), template)  # type: ignore[misc]  # mypy knows no defaults of a lambda


def _filled(place: str, known: Mapping[str, str]) -> str:
    for name in place.split("|"):
        if name == "value":
            return known[name]
        text = name[1:-1] if name.startswith("'") else known.get(name, "")
        if text:
            return orjson.dumps(text).decode()[1:-1]
    return ""
