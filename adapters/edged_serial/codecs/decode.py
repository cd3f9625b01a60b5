"""What a frame says: its fields by name, by one of the common ways in which devices write them down.

A decoder returns None for a frame that is not of its kind, never a part of one. `encode` is the way back where there
is one; simulators and property tests use it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Protocol

from .framing import MAX_FRAME
from .values import Raw

Fields = dict[str, Raw]


class Decoder(Protocol):
    """Finds fields in frames."""

    def decode(self, frame: bytes) -> Fields | None:
        """The fields of a frame, or None if it is not one of these."""
        ...

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:
        """A frame with these fields; None if this decoder cannot tell how one looks."""
        ...

    def fields(self) -> frozenset[str] | None:
        """The names it can find; None if only the frame tells."""
        ...


_TOKEN = re.compile(
    r"""(?P<open>\((?:\?(?:P<\w+>|[:>=!]|<[=!]))?) | (?P<close>\))
    | (?P<many>[*+] | \{\d*,\d*\}) | (?P<maybe>[?|])
    | (?:\\. | \[\^?\]?(?:\\.|[^\]\\])*\] | .)""",
    re.VERBOSE | re.DOTALL,
)


def check_pattern(pattern: str) -> re.Pattern[str]:
    r"""A regular expression, compiled. Raises ValueError if it is none, names nothing, or might take for ever.

    A repeated group that can match different lengths, as in `(\d+ ?)+` or `(\d{1,3},?)*`, is refused: the ways to cut
    a line into its repetitions can be exponentially many. All others are held in check by the bounded length of a
    frame.
    """
    try:
        compiled = re.compile(pattern, re.ASCII | re.DOTALL)
    except re.error as exc:
        raise ValueError(f"{pattern!r} is not a regular expression: {exc}") from None
    if not compiled.groupindex:
        raise ValueError(f"{pattern!r} has no named group: write (?P<name>…) around each value")
    if _repeats_what_varies(pattern):
        raise ValueError(
            f"{pattern!r} repeats a group that has `*`, `+`, `?`, `|` or `{{n,m}}` in it: on some lines this takes for "
            f"ever; write the repetitions one after the other"
        )
    return compiled


def _repeats_what_varies(pattern: str) -> bool:
    """Whether a group that is repeated, any number of times, contains anything else that can match more or less."""
    varies = [False]
    """Of each group that is open, the whole pattern included, whether its content so far does."""
    inner = False
    """The same of the group that ended just before this place."""
    for found in _TOKEN.finditer(pattern):
        kind, ended = found.lastgroup, inner
        inner = False
        if kind == "open":
            varies.append(False)
        elif kind == "close":
            inner = varies.pop()
            varies[-1] |= inner
        elif kind == "many" and ended:
            return True
        elif kind in {"many", "maybe"}:
            varies[-1] = True
    return False


class RegexDecoder:
    """Named groups of a regular expression that matches the whole frame."""

    def __init__(self, pattern: str, encoding: str = "latin-1") -> None:
        self._pattern = check_pattern(pattern)
        self._encoding = encoding

    def fields(self) -> frozenset[str] | None:
        return frozenset(self._pattern.groupindex)

    def decode(self, frame: bytes) -> Fields | None:
        text = text_of(frame, self._encoding)
        found = None if text is None else self._pattern.fullmatch(text)
        return dict(found.groupdict()) if found else None

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:  # noqa: ARG002  # a pattern has no way back
        return None


class StructDecoder:
    """A binary layout in the notation of Python's `struct`; a name for each value."""

    def __init__(self, layout: str, names: Sequence[str]) -> None:
        try:
            self._struct = struct.Struct(layout if layout[:1] in "<>!=@" else ">" + layout)
        except struct.error as exc:
            raise ValueError(f"{layout!r} is not a layout of Python's struct: {exc}") from None
        if self._struct.size > MAX_FRAME:
            raise ValueError(f"{layout!r} has {self._struct.size} bytes, and the longest frame has {MAX_FRAME}")
        count = len(self._struct.unpack(bytes(self._struct.size)))
        if count != len(names):
            raise ValueError(f"{layout!r} has {count} values, and there are {len(names)} names in `fields`")
        named = [name for name in names if name != "_"]
        if len(set(named)) != len(named):
            raise ValueError("`fields` has a name twice")
        self._names = tuple(names)

    @property
    def size(self) -> int:
        """How many bytes a frame has."""
        return self._struct.size

    def fields(self) -> frozenset[str] | None:
        return frozenset(self._names)

    def decode(self, frame: bytes) -> Fields | None:
        if len(frame) != self._struct.size:
            return None
        values = self._struct.unpack(frame)
        return {
            name: value.rstrip(b"\0").decode("latin-1") if isinstance(value, bytes) else value
            for name, value in zip(self._names, values, strict=True)
            if name != "_"
        }

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:
        nothing = self._struct.unpack(bytes(self._struct.size))
        values = [fields.get(name, zero) for name, zero in zip(self._names, nothing, strict=True)]
        try:
            return self._struct.pack(*(v.encode("latin-1") if isinstance(v, str) else v for v in values))
        except struct.error:
            return None


class KeysDecoder:
    """`key=value` pairs; pairs without a key or given twice make the frame unusable."""

    def __init__(self, separator: str = ",", assign: str = "=", prefix: str = "", encoding: str = "latin-1") -> None:
        self._separator = separator
        self._assign = assign
        self._prefix = prefix
        self._encoding = encoding

    def fields(self) -> frozenset[str] | None:
        return None

    def decode(self, frame: bytes) -> Fields | None:
        text = text_of(frame, self._encoding)
        if text is None or not text.startswith(self._prefix):
            return None
        fields: Fields = {}
        for pair in text.removeprefix(self._prefix).strip().split(self._separator):
            if not pair.strip():
                continue
            key, assign, value = pair.partition(self._assign)
            key = key.strip()
            if not assign or not key or key in fields:
                return None
            fields[key] = value.strip()
        return fields or None

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:
        pairs = (f"{key}{self._assign}{value}" for key, value in fields.items())
        return (self._prefix + self._separator.join(pairs)).encode(self._encoding)


class CsvDecoder:
    """Values in a fixed order; a frame with more or fewer of them is another one."""

    def __init__(self, names: Sequence[str], separator: str = ",", encoding: str = "latin-1") -> None:
        self._names = tuple(names)
        self._separator = separator
        self._encoding = encoding

    def fields(self) -> frozenset[str] | None:
        return frozenset(self._names)

    def decode(self, frame: bytes) -> Fields | None:
        text = text_of(frame, self._encoding)
        if text is None:
            return None
        values = text.strip().split(self._separator) if self._separator.strip() else text.split()
        if len(values) != len(self._names):
            return None
        return {name: value.strip() for name, value in zip(self._names, values, strict=True) if name != "_"}

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:
        return self._separator.join(str(fields.get(name, "")) for name in self._names).encode(self._encoding)


class JsonDecoder:
    """A JSON object; fields inside others are named with dots, items of lists by their number."""

    def fields(self) -> frozenset[str] | None:
        return None

    def decode(self, frame: bytes) -> Fields | None:
        try:
            document = json.loads(frame, parse_constant=_no_constant, object_pairs_hook=_no_twice)
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict):
            return None
        fields: Fields = {}
        _flatten(document, "", fields, depth=8)
        return fields

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:
        document: dict[str, object] = {}
        for path, value in fields.items():
            *parents, last = path.split(".")
            here: dict[str, object] = document
            for parent in parents:
                below = here.setdefault(parent, {})
                if not isinstance(below, dict):
                    return None
                here = below
            here[last] = value
        return json.dumps(document, separators=(",", ":")).encode()


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _no_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key twice")
    return made


def _flatten(value: object, path: str, fields: Fields, *, depth: int) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        fields[path] = value if isinstance(value, str | int | float) else None
    elif depth:
        for key, below in items:
            _flatten(below, f"{path}.{key}" if path else str(key), fields, depth=depth - 1)


class ColumnsDecoder:
    """Text in fixed columns, counted from 0; the second number is the column after the last."""

    def __init__(self, columns: Mapping[str, tuple[int, int]], length: int | None, encoding: str = "latin-1") -> None:
        self._columns = dict(columns)
        self._length = length
        self._encoding = encoding
        self._needs = max(end for _, end in columns.values())

    def fields(self) -> frozenset[str] | None:
        return frozenset(self._columns)

    def decode(self, frame: bytes) -> Fields | None:
        text = text_of(frame, self._encoding)
        if text is None or len(text) < self._needs or self._length not in {None, len(text)}:
            return None
        return {name: text[start:end] for name, (start, end) in self._columns.items()}

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:
        line = [" "] * (self._length or self._needs)
        for name, (start, end) in self._columns.items():
            text = str(fields.get(name, ""))
            if len(text) > end - start:
                return None
            line[start:end] = text.rjust(end - start)
        return "".join(line).encode(self._encoding)


def text_of(frame: bytes, encoding: str) -> str | None:
    """The frame as text; None if its bytes are none in this encoding."""
    try:
        return frame.decode(encoding)
    except UnicodeDecodeError:
        return None
