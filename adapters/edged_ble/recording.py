"""Recordings of advertisements: JSON lines, as docs/how-to/ble-recording.md describes them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from edged.adapter import Value

from .codecs.advert import Advertisement, uuid_of


class Line(NamedTuple):
    """One line of a recording."""

    seconds: float
    """Since the recording began."""
    advertisement: Advertisement
    decoder: str = ""
    """In a test vector: the decoder that this is for."""
    values: Mapping[str, Value] | None = None
    """In a test vector: what it says; nothing in them if the decoder must refuse it."""


def record(adv: Advertisement, seconds: float) -> str:
    """One line of a recording: JSON, data in hexadecimal digits, `t` in seconds from its beginning."""
    fields = {
        "t": round(seconds, 3),
        "address": adv.address,
        "name": adv.name,
        "rssi": adv.rssi,
        "manufacturer_data": {f"{company:#06x}": data.hex() for company, data in adv.manufacturer_data.items()},
        "service_data": {uuid: data.hex() for uuid, data in adv.service_data.items()},
        "service_uuids": list(adv.service_uuids),
        "tx_power": adv.tx_power,
    }
    return json.dumps(fields)


def recorded(text: str) -> Line:
    """The way back. Raises ValueError when it is no line of a recording."""
    try:
        fields = json.loads(text)
        adv = Advertisement(
            str(fields["address"]).upper(),
            fields.get("name"),
            int(fields.get("rssi", -127)),
            {int(company, 16): bytes.fromhex(data) for company, data in fields.get("manufacturer_data", {}).items()},
            {uuid_of(uuid): bytes.fromhex(data) for uuid, data in fields.get("service_data", {}).items()},
            tuple(uuid_of(uuid) for uuid in fields.get("service_uuids", ())),
            fields.get("tx_power"),
        )
        values = fields.get("values")
        return Line(float(fields["t"]), adv, str(fields.get("decoder", "")), None if values is None else dict(values))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as exc:
        raise ValueError(f"this is no line of a recording ({exc})") from exc
