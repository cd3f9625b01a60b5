r"""What is sent to a device: templates with places for what changes.

    {address}     the device's address, as text; {address:02d}, {address:02X} as Python formats numbers
    {address:>H}  the same in binary: `>` or `<`, then one of struct's letters bBhHiIqQfd; {address:B} for one byte
    {sequence}    a number that counts requests, from 0 to 255 (formats as above)
    {value}       the value to be written (formats as above, such as {value:.2f})
    {check}       the checksum of what stands before it
    {{ and }}     the braces themselves

All other characters stand for the byte of their number (ISO 8859-1), so that "\x02" is the byte 2.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .checks import Check

_PLACE = re.compile(r"\{\{|\}\}|\{(?P<name>[\w.-]+)(?::(?P<spec>[^{}]*))?\}|[{}]")
_BINARY = re.compile(r"[<>]?[bBhHiIqQfd]")
_PLAIN = re.compile(r"(?:[<>^](?=\d))?[+ ]?0?\d{0,2}(?:\.\d{1,2})?[dXxfFeEgGs]?")
Value = float | str | bool
NAMES = ("address", "sequence", "value", "check")


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    spec: str

    def fill(self, value: Value) -> bytes:
        if _BINARY.fullmatch(self.spec) and self.spec != "d":
            return struct.pack(self.spec if self.spec[0] in "<>" else ">" + self.spec, _numeric(value, self.spec))
        if isinstance(value, bool):
            value = int(value)
        kind = self.spec[-1:]
        if kind in set("dXx"):
            whole = int(value)
            if float(value) != whole:
                raise ValueError(f"{value!r} is not a whole number")
            value = whole
        elif kind and kind in "fFeEgG":
            value = float(value)
        return format(value, self.spec).encode("latin-1")


def _numeric(value: Value, spec: str) -> float | int:
    number = float(value)
    if spec[-1] in "fd":
        return number
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


class Template:
    """Bytes to send, with places called `places`. Raises ValueError for a place that does not exist."""

    def __init__(self, text: str, places: Collection[str] = NAMES) -> None:
        self.text = text
        self._known = places
        self._parts: list[bytes | _Place] = []
        at = 0
        for found in _PLACE.finditer(text):
            self._literal(text[at : found.start()])
            at = found.end()
            if found[0] in {"{{", "}}"}:
                self._literal(found[0][0])
            else:
                self._place(found)
        self._literal(text[at:])
        self.names = frozenset(part.name for part in self._parts if isinstance(part, _Place))

    def _literal(self, text: str) -> None:
        try:
            self._parts.append(text.encode("latin-1"))
        except UnicodeEncodeError as exc:
            raise ValueError(f"{text[exc.start]!r} is not a single byte: write its bytes as \\x escapes") from None

    def _place(self, found: re.Match[str]) -> None:
        name, spec = found["name"], found["spec"] or ""
        if name not in self._known:
            near = f"`{found[0]}` is not a place" if name else f"a single `{found[0]}` has no meaning"
            raise ValueError(
                f"{near}: there are {', '.join(f'{{{one}}}' for one in self._known)}; write {{{{ for a brace"
            )
        if not (_BINARY.fullmatch(spec) or _PLAIN.fullmatch(spec)) or (name == "check" and spec):
            raise ValueError(f"`{found[0]}` is formatted in no known way: as in {{{name}:02d}} or {{{name}:>H}}")
        self._parts.append(_Place(name, spec))

    @property
    def whole(self) -> frozenset[str]:
        """The places that only take whole numbers."""
        return frozenset(
            part.name
            for part in self._parts
            if isinstance(part, _Place)
            and part.spec
            and part.spec[-1] in "dXxbBhHiIqQ"
            and not part.spec.endswith(">d")
        )

    def render(self, values: Mapping[str, Value], check: Check | None = None) -> bytes:
        """The bytes. Raises ValueError if a value is missing or does not fit its place."""
        sent = b""
        for part in self._parts:
            if isinstance(part, bytes):
                sent += part
            elif part.name == "check":
                sent += (
                    b""
                    if check is None
                    else check.encode(check.covered(sent + bytes(max(check.size, -(check.at or 0)))))
                )
            elif part.name not in values:
                raise ValueError(f"`{{{part.name}}}` has no value here")
            else:
                given = values[part.name]
                try:
                    sent += part.fill(given)
                except (struct.error, ValueError, OverflowError) as exc:
                    raise ValueError(f"{given!r} does not fit {{{part.name}:{part.spec}}}: {exc}") from None
        return sent

    def text_of(self, name: str, value: float | str) -> list[str]:
        """How the value stands in the request, for each of its places: what an answer echoes."""
        return [
            part.fill(value).decode("latin-1") for part in self._parts if isinstance(part, _Place) and part.name == name
        ]
