"""What a technician writes about one value of a device behind a broker, and how it is read and written."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from edged.adapter import STRICT, PointConfig, Value

from . import topics
from .path import Place

PointType = Literal["number", "integer", "boolean", "text", "digits"]
_DIGITS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_MOST_TEXT = 4096
"""Characters of a text; what is longer is no reading."""


class UndecodableError(ValueError):
    """What is there is not a value of the point's type."""


@dataclass(frozen=True, kw_only=True)
class MqttPoint(PointConfig):
    """One value of a device that publishes to a broker."""

    __pydantic_config__: ClassVar = STRICT

    field: str | None = None
    """Where in the message it is: keys with dots between them (`em.power`, `channels.0.value`), or a JSON pointer
    (`/a.b/0`). `$.` begins at the whole message, `@rssi` is what the preset knows besides. `""` is the payload itself.
    The point's own name unless given."""
    topic: str = ""
    """Which of the device's messages has it, where there are several: `STATE` with Tasmota, `relay/0` with Shelly, the
    topic with `json`. The preset's usual ones unless given."""
    type: PointType = "number"
    """What it is there: `number`, `integer`, `boolean`, `text`, or `digits`, a number that may be written as a text."""
    words: tuple[str, str] | None = None
    """The two words for false and true, such as `[OFF, ON]`."""
    enum: dict[str, str] = dataclasses.field(default_factory=dict)
    """Words for what the device says, such as `{"0": closed, "1": open}`. Anything else is `bad(decode)`."""
    invalid: tuple[float | str, ...] = ()
    """What the device says when it has no value, such as `[-127, unknown]`. It becomes `bad(decode)`."""
    write_topic: str = ""
    """Where to publish what is written, with `json`; the other presets know it."""
    write_field: str | None = None
    """Where in what is published the value goes, if it is not `field`; `""` publishes the bare value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "words", None if self.words is None else tuple(self.words))
        object.__setattr__(self, "invalid", tuple(self.invalid))
        for text in (self.field, self.write_field):
            Place.parse(text or "")
        for key in ("topic", "write_topic"):
            if text := getattr(self, key):
                topics.check(text, key, wildcards=key == "topic")
        if self.words is not None and (self.type != "boolean" or self.words[0] == self.words[1]):
            raise ValueError("`words` are the two words of a `type: boolean`, first that for false, then that for true")
        if self.enum and self.type not in {"text", "integer"}:
            raise ValueError("`enum` gives words to a `type: text` or a `type: integer`")
        if len(set(self.enum.values())) < len(self.enum) and self.writable:
            raise ValueError("`enum` has a word twice, so nobody knows what to send for it")
        if self.type in {"boolean", "text"} or self.enum:
            self._check_no_number()

    def _check_no_number(self) -> None:
        defaults = {one.name: one.default for one in dataclasses.fields(PointConfig)}
        for key in ("scale", "offset", "map", "decimals", "range", "deadband"):
            if getattr(self, key) != defaults[key]:
                raise ValueError(f"`{key}` is for numbers, and this value is of `type: {self.type}`")

    @property
    def is_text(self) -> bool:
        """Whether its value is a text, once read."""
        return self.type == "text" or bool(self.enum)

    def read(self, found: Any) -> Value:
        """The value before scaling. Raises UndecodableError."""
        if found is None or (self.invalid and found in self.invalid):
            raise UndecodableError("the device says that it has no value")
        value: Value = _READ[self.type](self, found)
        if not self.enum:
            return value
        word = self.enum.get(str(value))
        if word is None:
            raise UndecodableError(f"{value!r} is none of {', '.join(self.enum)}")
        return word

    def sent(self, value: Value) -> Any:
        """What to send for an engineering value, of a type that JSON has. Raises ValueError."""
        if value is None:
            raise ValueError("there is no value to write")
        if self.enum:
            key = next((key for key, word in self.enum.items() if word == value), None)
            if key is None:
                raise ValueError(f"{value!r} is none of {', '.join(self.enum.values())}")
            return int(key) if self.type == "integer" else key
        if self.type == "boolean":
            if not isinstance(value, bool):
                raise ValueError(f"{value!r} is neither true nor false")
            return value if self.words is None else self.words[value]
        if self.type == "text":
            if not isinstance(value, str):
                raise ValueError(f"{value!r} is no text")
            return value
        return self._sent_number(value)

    def _sent_number(self, value: Value) -> float | str:
        if isinstance(value, bool | str) or value is None or not math.isfinite(value):
            raise ValueError(f"{value!r} is no number")
        low, high = self.range or (-math.inf, math.inf)
        if not low <= value <= high:
            raise ValueError(f"{value:g} is outside the range {low:g} to {high:g}")
        raw: float = value
        if self.map is not None:
            share = (value - self.map.to[0]) / (self.map.to[1] - self.map.to[0])
            raw = self.map.raw[0] + share * (self.map.raw[1] - self.map.raw[0])
        elif (self.scale, self.offset) != (1.0, 0.0):
            raw = (value - self.offset) / self.scale
        rounded = raw if isinstance(raw, int) else float(f"{raw:.12g}")
        number = int(rounded) if float(rounded).is_integer() else rounded
        if self.type == "integer" and not isinstance(number, int):
            raise ValueError(f"{value:g} is no whole number there")
        return str(number) if self.type == "digits" else number


def _number(_point: MqttPoint, found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise UndecodableError(f"{_short(found)} is no number")
    return found


def _integer(point: MqttPoint, found: Any) -> int:
    number = _number(point, found)
    if not float(number).is_integer():
        raise UndecodableError(f"{found} is no whole number")
    return int(number)


def _boolean(point: MqttPoint, found: Any) -> bool:
    if point.words is not None:
        if found not in point.words:
            raise UndecodableError(f"{_short(found)} is neither {point.words[0]} nor {point.words[1]}")
        return bool(found == point.words[1])
    if not isinstance(found, bool):
        raise UndecodableError(f"{_short(found)} is neither true nor false")
    return found


def _text(_point: MqttPoint, found: Any) -> str:
    if not isinstance(found, str) or len(found) > _MOST_TEXT:
        raise UndecodableError(f"{_short(found)} is no text")
    return found


def _digits(point: MqttPoint, found: Any) -> float:
    if not isinstance(found, str):
        return _number(point, found)
    if _DIGITS.fullmatch(found.strip()) is None:
        raise UndecodableError(f"{_short(found)} is no number")
    number = float(found)
    return _number(point, int(number) if number.is_integer() else number)


def _short(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004  # a line of a log


_READ: dict[PointType, Callable[[MqttPoint, Any], Value]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "text": _text,
    "digits": _digits,
}
