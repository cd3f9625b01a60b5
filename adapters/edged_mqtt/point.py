"""What a technician writes about one value of a device behind a broker."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from edged.adapter import STRICT, PointConfig

from . import topics
from .path import Place

PointType = Literal["number", "integer", "boolean", "text", "digits"]


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
