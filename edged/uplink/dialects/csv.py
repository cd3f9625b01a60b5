"""Readings as lines of CSV (RFC 4180): one for each reading, with where its message belongs. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from edged.model import GOOD, Value
from edged.uplink.api import Chunk, Envelope
from edged.uplink.encoders import presentable
from edged.uplink.moments import date_of

COLUMNS = (
    "time", "device", "point", "value", "unit", "quality", "gateway", "flow", "lane", "epoch", "first", "seq", "prev",
    "left",
)  # fmt: skip
"""`left`: how many lines of the same message follow; a message whose last line is not there is not whole."""
HEAD = (",".join(COLUMNS) + "\n").encode()


def encode(chunk: Chunk, envelope: Envelope, gateway: str, units: Mapping[tuple[str, str], str]) -> bytes:
    """The lines of a message, without their head. Raises PermanentError."""
    lane = "replay" if chunk.replay else str(envelope.lane)
    place = [gateway, envelope.flow, lane, envelope.epoch, str(chunk.first), str(envelope.seq), str(envelope.prev)]
    tail = ",".join(map(_quoted, place))
    lines = []
    for raw in chunk.samples:
        sample = presentable(raw)
        time = date_of(sample.time).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        head = f"{time},{_quoted(sample.device)}"
        for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True)):
            unit, quality = units.get((sample.device, point), ""), sample.quality.get(i, GOOD)
            said = f"{_quoted(point)},{_value(value)},{_quoted(unit)},{_quoted(str(quality))}"
            lines.append(f"{head},{said},{tail}")
    last = len(lines) - 1
    return "".join(f"{line},{last - i}\n" for i, line in enumerate(lines)).encode()


def _value(value: Value) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """In quotation marks where it needs them. A line must stay one line, so that a torn one can be told."""
    text = text.replace("\r", " ").replace("\n", " ")
    return '"' + text.replace('"', '""') + '"' if any(char in text for char in ',"') else text
