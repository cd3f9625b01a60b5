"""Telegrams of electricity, gas and heat meters in text: IEC 62056-21 data sets, and DSMR P1, which is made of them.

Sources: IEC 62056-21:2002 §6 (data messages); DSMR 5.0.2 P1 companion standard §6. A data set is `ID(value*unit)`;
there may be several on a line, and several brackets after an ID.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .decode import Fields
from .values import Measured, Raw

_SET = re.compile(r"([0-9A-Za-z.:*&\-]*)((?:\([^()]*\))+)")
_BRACKET = re.compile(r"\(([^()]*)\)")
_TIME = re.compile(r"\d{12}[SW]")
_MANY = 256


class ObisDecoder:
    """Fields are named by their ID as it is written, e.g. `1-0:1.8.1`, with the last bracket's value.

    Where an ID has several brackets, `ID#0`, `ID#1`… are each of them. A line without an ID goes on with the one before
    (DSMR 2.2 writes gas so). `id` is the identification of the meter, where the telegram has one.
    """

    def fields(self) -> frozenset[str] | None:
        return None

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:  # noqa: ARG002  # the sample in the profile is the form
        return None

    def decode(self, frame: bytes) -> Fields | None:
        """The data sets of a telegram, with or without its markers. None if a line is none, or an ID is there twice."""
        try:
            text = frame.decode("ascii")
        except UnicodeDecodeError:
            return None
        fields: Fields = {}
        body = text.strip("\x02\x03\r\n ")
        if body.startswith("/"):
            head, _, body = body.partition("\n")
            fields["id"] = head[1:].strip()
        body = body.partition("!")[0]
        last = ""
        for line in body.replace("\x02", "").splitlines():
            if not line.strip():
                continue
            sets = _sets(line.strip())
            if sets is None:
                return None
            for name, brackets in sets:
                last = name or last
                if not last or (name and name in fields):
                    return None
                _store(fields, last, brackets)
            if len(fields) > _MANY:
                return None
        return fields if fields.keys() - {"id"} else None


def _sets(line: str) -> list[tuple[str, list[str]]] | None:
    found, at = [], 0
    while at < len(line):
        one = _SET.match(line, at)
        if one is None:
            return None
        found.append((one[1], _BRACKET.findall(one[2])))
        at = one.end()
    return found


def _store(fields: Fields, name: str, brackets: list[str]) -> None:
    begun = sum(1 for key in fields if key.startswith(f"{name}#"))
    values = [_value(text) for text in brackets]
    fields[name] = values[-1]
    if len(brackets) > 1 or begun:
        for index, value in enumerate(values):
            fields[f"{name}#{begun + index}"] = value


def _value(text: str) -> Raw:
    value, star, unit = text.partition("*")
    if star and unit:
        return Measured(value, unit)
    return value or None
