"""What the test vectors of a Bluetooth profile come to, and a profile to begin with. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from edged.adapter import Quality, Sample, Secret, Value, bad

from .codecs.advert import Advertisement, uuid_of
from .codecs.gatt import FORMATS
from .config import BleDevice
from .decoders import decoder_for

_KEYS = frozenset(
    {
        "name",
        "hex",
        "address",
        "key",
        "device_name",
        "company",
        "service",
        "characteristic",
        "values",
        "bad",
        "rejected",
    }
)
_ANY = "A4:C1:38:00:00:01"
Found = dict[str, tuple[Value, Quality | None]]


def needs(_document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a device with such a profile must say itself, with a value to test the profile with."""
    return {"address": _ANY}


def decoded(device: BleDevice, vector: Mapping[str, Any]) -> Sequence[Sample]:
    """What a device makes of a vector's bytes; nothing if they are not taken.

    Raises ValueError if it is no vector, ConfigError without the package that the decoder needs.
    """
    if unknown := sorted(vector.keys() - _KEYS):
        raise ValueError(f"unknown key `{unknown[0]}`; there are {', '.join(sorted(_KEYS))}")
    if "hex" not in vector:
        raise ValueError("a vector has what is sent as `hex`")
    changes: dict[str, Any] = {"address": vector["address"]} if "address" in vector else {}
    if "key" in vector:
        changes["bind_key"] = Secret(text=str(vector["key"]))
    device = dataclasses.replace(device, **changes)
    found = _read(device, vector) if "characteristic" in vector else _heard(device, vector)
    quality = {i: why for i, (_, why) in enumerate(found.values()) if why is not None}
    return [Sample("device", 0, 0, tuple(found), [value for value, _ in found.values()], quality)] if found else []


def _heard(device: BleDevice, vector: Mapping[str, Any]) -> Found:
    data = bytes.fromhex(str(vector["hex"]))
    decoder = decoder_for(device)
    if decoder is None:
        raise ValueError("the profile has no `decoder`: say of which `characteristic` this is")
    found = decoder.decode(
        Advertisement(
            device.address,
            vector.get("device_name"),
            -60,
            {vector["company"]: data} if "company" in vector else {},
            {uuid_of(str(vector["service"])): data} if "service" in vector else {},
        )
    )
    fields = {point: device.points[point].field or point for point in device.advertised}
    return {
        str(point): (found.values[field], found.quality.get(field))
        for point, field in fields.items()
        if found is not None and field in found.values
    }


def _read(device: BleDevice, vector: Mapping[str, Any]) -> Found:
    data, uuid = bytes.fromhex(str(vector["hex"])), uuid_of(str(vector["characteristic"]))
    found: Found = {}
    for point in device.connected:
        config = device.points[point]
        if uuid_of(config.characteristic) != uuid:
            continue
        if config.has_layout:
            value = config.layout.read(data)
            found[str(point)] = (None, value or bad("decode")) if isinstance(value, Quality | None) else (value, None)
            continue
        try:
            values = FORMATS[uuid].parse(data)
        except ValueError:
            values = {config.field or point: None}
        if (config.field or point) in values:
            one = values[config.field or point]
            found[str(point)] = one, bad("decode") if one is None else None
    return found


def example(name: str) -> str:
    """A profile to begin with, with its format explained in comments."""
    return _EXAMPLE.replace("NAME", name)


_EXAMPLE = """profile: NAME
title: Maker and model, and what it is
vendor: Maker
models: [Model]
# Where its format is from: title and revision of the document. Whoever doubts a value will look there.
source: "Maker, document title, revision, page"
# A format that edged knows needs only its name (`decoder: ruuvi`). This is one that it does not know:
device:
  decoder: bytes
  data: {company: 0xFFFF, length: 5, match: [{at: 0, hex: "01"}]}
points:
  # Bytes count from 0, behind the company or the service.
  temperature: {at: 1, type: int16, scale: 0.01, unit: °C, range: [-40, 85], description: Temperature}
  humidity: {at: 3, type: uint8, unit: "%", range: [0, 100], description: Relative humidity}
  battery: {at: 4, type: uint8, unit: "%", range: [0, 100], description: Battery}
  # level: {characteristic: 2A19}      # read by connecting, with `every: 1h` under `device`
  rssi: {}
  last_seen: {}
# What is sent (`edged scan ble` shows it), and what it means. `rejected`: what must not be taken.
# `edged profiles test NAME` runs them.
tests:
  - {name: in a room, company: 0xFFFF, hex: 01 9808 37 5F, values: {temperature: 22.0, humidity: 55, battery: 95}}
  - {name: of another kind, company: 0xFFFF, hex: 02 9808 37 5F, rejected: true}
"""
