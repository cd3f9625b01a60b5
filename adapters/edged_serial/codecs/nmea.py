"""NMEA 0183 sentences, named by pynmea2: GPS receivers, weather stations, wind and depth sensors.

Fields are `TYPE.name` as pynmea2 names them, e.g. `RMC.spd_over_grnd`, `MWV.wind_speed`; besides them `latitude` and
`longitude` in degrees where the sentence has a position, and `XDR.id` with its own unit for each transducer of an XDR
sentence. An empty field has no value, and neither has any field of a sentence that its sender marks as void.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce
from operator import xor

from edged.adapter import ConfigError

from .decode import Fields
from .values import Measured, Raw

_SENTENCE = re.compile(r"[$!]([A-Z0-9]{1,2}|P)([A-Z]{3})((?:,[^,*$!]*)+)\*([0-9A-Fa-f]{2})")
_DEGREES = re.compile(r"(\d{1,3})(\d\d(?:\.\d+)?)")
_POSITIONS = {"latitude": ("lat", "lat_dir", "N", "S", 90.0), "longitude": ("lon", "lon_dir", "E", "W", 180.0)}


class NmeaDecoder:
    """Sentences with a correct checksum; the talker does not matter."""

    def __init__(self) -> None:
        try:
            import pynmea2  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra, without types
        except ModuleNotFoundError:
            raise ConfigError("NMEA 0183 needs the Python package 'pynmea2' (pip install 'edged[meters]')") from None
        self._types = pynmea2.TalkerSentence.sentence_types

    def fields(self) -> frozenset[str] | None:
        return None

    def encode(self, fields: Mapping[str, Raw]) -> bytes | None:  # noqa: ARG002  # the sample in the profile is the form
        return None

    def decode(self, frame: bytes) -> Fields | None:
        """The fields of one sentence; None if its checksum is missing or wrong, or nobody knows the sentence."""
        text = frame.decode("latin-1").strip()
        found = _SENTENCE.fullmatch(text, max(text.rfind("$"), text.rfind("!"), 0))
        if found is None or reduce(xor, text[found.start() + 1 : found.start(4) - 1].encode("latin-1")) != int(
            found[4], 16
        ):
            return None
        kind, data = found[2], found[3][1:].split(",")
        if kind == "XDR":
            return _transducers(data)
        known = self._types.get(kind)
        if known is None:
            return None
        values = {field[1]: text or None for field, text in zip(known.fields, data, strict=False)}
        void = values.get("status") == "V" or values.get("gps_qual") == "0" or values.get("mode_indicator") == "N"
        for name, (degrees, half, plus, minus, limit) in _POSITIONS.items():
            if degrees in values:
                sign = {plus: 1, minus: -1}.get(values.get(half) or "", 0)
                position = _position(values[degrees] or "", sign, limit)
                values[name] = None if position is None else repr(position)
        keep = {"status", "gps_qual", "mode_indicator", "num_sats", "timestamp", "datestamp"} if void else values.keys()
        return {f"{kind}.{name}": value if name in keep else None for name, value in values.items()}


def group(field: str) -> str:
    """The kind of sentence that a field is in."""
    return field.partition(".")[0]


def _position(text: str, sign: int, limit: float) -> float | None:
    found = _DEGREES.fullmatch(text)
    if found is None or not sign or float(found[2]) >= 60:  # noqa: PLR2004  # minutes
        return None
    degrees = sign * round(int(found[1]) + float(found[2]) / 60, 8)
    return degrees if abs(degrees) <= limit else None


def _transducers(data: list[str]) -> Fields | None:
    if len(data) % 4:
        return None
    fields: Fields = {}
    for i in range(0, len(data), 4):
        _, value, unit, name = data[i : i + 4]
        key = f"XDR.{name}"
        if key in fields:
            fields[key] = None  # two of the same name: nobody knows which is meant
        else:
            fields[key] = Measured(value, unit) if value and unit else value or None
    return fields


def sentence(body: str) -> bytes:
    """A sentence with its checksum, from what stands between `$` and `*`."""
    return f"${body}*{reduce(xor, body.encode('latin-1')):02X}".encode("latin-1")
