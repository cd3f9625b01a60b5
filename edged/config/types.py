"""The scalar types of the configuration: durations, sizes, names and secrets as people write them.

They are plain `float`, `int` and `str` at run time. The hooks for pydantic import it only when a configuration is
validated, so that the daemon, which loads an already validated one, needs neither pydantic nor a YAML parser.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

_DURATION_UNITS = {
    "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0,
}  # fmt: skip
_SIZE_UNITS = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip
_LONGEST, _LARGEST = 100 * 366 * 86_400.0, 2.0**60
"""Seconds and bytes; beyond them arithmetic elsewhere would overflow."""
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]+)")


def _quantity(text: object, units: Mapping[str, float], what: str, example: str, limit: float) -> float:
    if isinstance(text, int | float) and not isinstance(text, bool) and math.isfinite(text):
        if text == 0:
            return 0.0
        raise ValueError(f"a {what} needs a unit: write {example.format(text)}")
    if isinstance(text, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text.strip()) and float(text):
        raise ValueError(f"a {what} needs a unit: write {example.format(text.strip())}")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"a {what} is written as a number with a unit, such as {example.format(5)}")
    total, end = 0.0, 0
    text = text.strip()
    while end < len(text):
        part = _QUANTITY.match(text, end)
        if not part or part[2] not in units:
            if text.startswith("-"):
                raise ValueError(f"a {what} cannot be negative, and this is {text!r}")
            known = ", ".join(units)
            raise ValueError(f"{text!r} is not a {what}: a number with one of the units {known}")
        total += float(part[1]) * units[part[2]]
        end = part.end()
    if total > limit:
        raise ValueError(f"{text!r} is too large to be meant")
    return total


class Duration(float):
    """A span of time in seconds, written `500ms`, `1s`, `1h30m`."""

    PATTERN: ClassVar = r"^\s*([0-9]+(\.[0-9]+)?\s*(us|µs|ms|s|m|min|h|d|w)\s*)+$"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Seconds of `text`. Raises ValueError with what is wrong, also for a bare number: its unit is not guessed."""
        if isinstance(text, cls):
            return text
        return cls(_quantity(text, _DURATION_UNITS, "duration", "{0}s or {0}ms", _LONGEST))

    def __str__(self) -> str:
        for unit, seconds in (("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)):
            if self >= seconds and (self / seconds).is_integer():
                return f"{self / seconds:.0f}{unit}"
        number, unit = (float(self), "s") if self >= 1 or self == 0.0 else (self * 1e3, "ms")
        return f"{number:.6f}".rstrip("0").rstrip(".") + unit

    __repr__ = __str__

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _parsed(cls.parse, float)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        text = {"type": "string", "pattern": cls.PATTERN, "examples": ["500ms", "1s", "1h30m"]}
        return {"anyOf": [text, {"const": 0}], "description": "A duration with its unit."}


class Size(int):
    """A number of bytes, written `64MB` or `1GiB`."""

    PATTERN: ClassVar = r"^\s*[0-9]+(\.[0-9]+)?\s*(B|kB|MB|GB|KiB|MiB|GiB)\s*$"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Bytes of `text`. Raises ValueError with what is wrong."""
        if isinstance(text, cls):
            return text
        return cls(round(_quantity(text, _SIZE_UNITS, "size", "{0}MB or {0}MiB", _LARGEST)))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _parsed(cls.parse, int)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        text = {"type": "string", "pattern": cls.PATTERN, "examples": ["64MB", "1GiB"]}
        return {"anyOf": [text, {"const": 0}], "description": "A size in bytes with its unit."}


class Name(str):
    """The name of a bus, device, point or connection. It appears in topics, file names and addresses."""

    __slots__ = ()
    PATTERN: ClassVar = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"

    @classmethod
    def parse(cls, text: object) -> Self:
        """`text` itself. Raises ValueError if it is not a name."""
        if isinstance(text, int | float):
            raise ValueError(f'a name is a text: write "{text}" with quotes')  # noqa: TRY004  # pydantic turns only ValueError into a finding
        if not isinstance(text, str) or not re.fullmatch(cls.PATTERN[1:-1], text):
            raise ValueError(
                f"{text!r} is not a name: up to 64 letters from a to z or A to Z, digits, '-', '_' and '.', "
                f"beginning with a letter or digit{_nearest_name(text)}"
            )
        return cls(text)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _parsed(cls.parse, str)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": cls.PATTERN}


def _nearest_name(text: object) -> str:
    """What a name could be that people with other letters can still read."""
    plain = unicodedata.normalize("NFKD", str(text).replace("ß", "ss")).encode("ascii", "ignore").decode()
    near = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain.strip()).strip("_.-")[:64]
    return f"; `{near}` would be one" if near else ""


class FileName(str):
    """The path of a file. A relative one begins at the folder of the configuration, wherever the daemon was started."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Self:
        """`text` itself. Raises ValueError if it cannot be a path."""
        if not isinstance(text, str) or "\0" in text:
            raise ValueError("must be the path of a file")
        return cls(text)

    def at(self, base: Path) -> Self:
        """With `base` before it, unless it is whole, empty, or no file at all (`socket://…`)."""
        return type(self)(base / self) if self and "://" not in self and not Path(self).is_absolute() else self

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _parsed(cls.parse, str)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "A file; without a leading `/`: beside the configuration."}


@dataclass(frozen=True, slots=True)
class Secret:
    """A password or key: either the name it is stored under (`!secret NAME`) or, discouraged, the text itself.

    Only the name goes into the compiled configuration and into anything printed; `edged.config.secrets` turns it into
    the text where it is used.
    """

    name: str = ""
    text: str = ""

    def __repr__(self) -> str:
        return f"Secret(name={self.name!r})" if self.name else "Secret(text='***')"

    __str__ = __repr__

    @classmethod
    def parse(cls, value: object) -> Secret:
        """From a `Secret` (the YAML tag made it), its plain form, or a literal text. Raises ValueError."""
        if isinstance(value, Secret):
            return value
        if isinstance(value, dict) and value.keys() <= {"name", "text"}:
            return cls(**value)
        if isinstance(value, str):
            return cls(text=value)
        raise ValueError("a secret is a text, or better `!secret NAME`; put quotes around a number")

    def plain(self) -> dict[str, str]:
        """The form in the compiled configuration."""
        return {"name": self.name} if self.name else {"text": self.text}

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _parsed(cls.parse, cls.plain)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "A secret: write `!secret NAME`, or the text itself."}


def _parsed(parse: Any, plain: Any) -> CoreSchema:
    from pydantic_core import core_schema  # noqa: PLC0415  # only a validating process pays for pydantic

    return core_schema.no_info_plain_validator_function(
        parse, serialization=core_schema.plain_serializer_function_ser_schema(plain)
    )
