"""The standard formats of GATT characteristics (Bluetooth SIG, GATT Specification Supplement): pure parsers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edged.adapter import Value

from .advert import Kind


@dataclass(frozen=True, slots=True)
class Format:
    """How the value of a standard characteristic is read."""

    name: str
    """The characteristic's name in the assigned numbers, e.g. `Battery Level`."""
    points: Mapping[str, Kind]
    """What it has."""
    main: str
    """The one of `points` that is meant when none is named."""
    parse: Callable[[bytes], Mapping[str, Value]]
    """The values. None for those the device says it does not know; those that are absent are left out.
    Raises ValueError when the bytes are not of this format."""


FORMATS: Mapping[str, Format] = {}
"""By the characteristic's UUID as `uuid_of` writes it."""
