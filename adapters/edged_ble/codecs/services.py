"""Standard characteristics in advertisements: service data under the UUID of a characteristic, or 180F for battery.

Beacons of ELA Innovation and others send temperature as 0x2A6E, humidity as 0x2A6F and so on, in the formats of the
GATT Specification Supplement.
"""

from __future__ import annotations

from collections.abc import Mapping

from edged.adapter import Value

from .advert import ABSENT, Advertisement, Decoded, Kind, Stateless, refused, uuid_of
from .gatt import FORMATS

_SHORT = (
    "2A19", "2A6C", "2A6D", "2A6E", "2A6F", "2A70", "2A71", "2A76", "2A77", "2A78", "2A79", "2A7A", "2A7B",
    "2AFB", "2B8C",
)  # fmt: skip
CARRIED = {uuid_of(short): FORMATS[uuid_of(short)] for short in _SHORT}
CARRIED[uuid_of("180F")] = FORMATS[uuid_of("2A19")]
POINTS: Mapping[str, Kind] = {name: kind for form in CARRIED.values() for name, kind in form.points.items()}


class Environment(Stateless):
    """Satisfies `Decoder`."""

    points = POINTS
    complete = False

    def decode(self, adv: Advertisement) -> Decoded | None:
        """What the characteristics say."""
        values: dict[str, Value] = {}
        for uuid, data in adv.service_data.items():
            form = CARRIED.get(uuid)
            if form is None:
                continue
            try:
                values.update(form.parse(data))
            except ValueError as exc:
                return refused(f"service data {uuid[4:8].upper()} ({form.name}): {exc}")
        if not values:
            return None
        absent = {name: ABSENT for name, value in values.items() if value is None}
        return Decoded(values, absent)
