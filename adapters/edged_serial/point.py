"""What a technician writes about one value of a serial device."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from edged.adapter import STRICT, Name, PointConfig

from .codecs.decode import check_pattern
from .codecs.talk import Template
from .codecs.values import Conversion, PointType, number


@dataclass(frozen=True, kw_only=True)
class Write:
    """How a command writes the point."""

    __pydantic_config__: ClassVar = STRICT

    send: str
    """What to send. Places: {value}, {address}, {sequence}, {check}."""
    answer: str = ""
    """A regular expression for the frame that says it worked. Without it, silence is taken for consent."""
    refused: str = ""
    """A regular expression for the frame that says it was refused."""

    def __post_init__(self) -> None:
        Template(self.send)
        for key in ("answer", "refused"):
            if getattr(self, key):
                check_pattern(f"(?P<{key}>{getattr(self, key)})")
        if self.refused and not self.answer:
            raise ValueError("`refused` needs `answer` too: without it nobody waits for a reply")


@dataclass(frozen=True, kw_only=True)
class SerialPoint(PointConfig):
    """One value of a serial device: which field of which message it is, and how to read it."""

    __pydantic_config__: ClassVar = STRICT

    message: Name | None = None
    """The message it is in, where the device has several."""
    field: str = ""
    """The field that `decode` finds; the point's own name unless given."""
    type: PointType = "number"
    """What it is: `number`, `integer`, `hex` (a hexadecimal number in text), `text`, `boolean`."""
    decimal: Literal[".", ","] = "."
    """The decimal mark in text."""
    enum: dict[str, str] = dataclasses.field(default_factory=dict)
    """Words for what the device says, e.g. `{"0": off, "1": on}`. Anything else is `bad(decode)`."""
    flags: dict[int, str] = dataclasses.field(default_factory=dict)
    """Words for bits, e.g. `{0: overheat, 3: door}`. The value lists those that are set."""
    bit: int | None = None
    """One bit of an integer as true or false; 0 is the least significant."""
    bits: tuple[int, int] | None = None
    """Some bits of an integer as a number: the lowest and the highest."""
    invalid: tuple[str | float, ...] = ()
    """What the device says when it has no value, e.g. `["9.9E37", -9999]`. What is no number needs no mention."""
    write: Write | None = None
    """How a command writes it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "flags", {int(key): text for key, text in self.flags.items()})
        object.__setattr__(self, "bits", None if self.bits is None else tuple(self.bits))
        object.__setattr__(self, "invalid", tuple(self.invalid))
        used = [key for key in ("enum", "flags", "bit") if getattr(self, key) not in (None, {})]
        if len(used) > 1 or (self.bit is not None and self.bits):
            raise ValueError(f"{' and '.join(f'`{key}`' for key in used or ['bit', 'bits'])} contradict each other")
        if self.writable != (self.write is not None):
            raise ValueError("`writable: true` and `write` belong together: give both or none")
        if self.bits is not None and not 0 <= self.bits[0] <= self.bits[1] < 64:  # noqa: PLR2004  # a long integer
            raise ValueError("`bits` needs the lowest and the highest bit, from 0 to 63")
        if self.bit is not None and not 0 <= self.bit < 64:  # noqa: PLR2004  # the same
            raise ValueError("`bit` goes from 0 to 63")
        if any("," in word or not word.strip() for word in self.flags.values()):
            raise ValueError(
                "the words of `flags` cannot be empty or contain a comma: the value lists them with commas"
            )
        self._check_numeric()

    def _check_numeric(self) -> None:
        what = "text" if self.enum or self.flags or self.type == "text" else ""
        if self.type == "boolean" or self.bit is not None:
            what = "true or false"
        if not what:
            return
        defaults = {one.name: one.default for one in dataclasses.fields(PointConfig)}
        for key in ("scale", "offset", "map", "decimals", "range", "deadband"):
            if getattr(self, key) != defaults[key]:
                raise ValueError(f"`{key}` is for numbers, and this value is {what}")

    def conversion(self) -> Conversion:
        """How its raw value becomes the value. Where it is not scaled, a telegram's own unit has to fit its unit."""
        texts = frozenset(str(one).strip() for one in self.invalid)
        numbers = (one if isinstance(one, int | float) else number(one) for one in self.invalid)
        bare = self.scale == 1.0 and self.offset == 0.0 and self.map is None
        return Conversion(
            type="integer"
            if self.type == "number" and (self.flags or self.bit is not None or self.bits)
            else self.type,
            decimal=self.decimal,
            enum=self.enum,
            flags=self.flags,
            bits=self.bits if self.bit is None else (self.bit, self.bit),
            invalid=texts,
            invalid_numbers=frozenset(one for one in numbers if one is not None),
            unit=self.unit if bare else "",
        )
