"""What the test vectors of a serial profile come to, and a profile to begin with. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edged.adapter import Name, Sample

from .config import SerialDevice
from .device import Device

_KEYS = frozenset({"name", "text", "hex", "message", "whole", "values", "bad", "rejected"})


def needs(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a device with this profile must say itself, with a value to test the profile with."""
    settings = document.get("device")
    uses = isinstance(settings, Mapping) and (settings.get("dialogue") == "mbus" or "{address" in str(settings))
    return {"address": 1} if uses else {}


def decoded(device: SerialDevice, vector: Mapping[str, Any], cut: int = 4096) -> Sequence[Sample]:
    """What a device makes of a vector's bytes, which arrive `cut` at a time; nothing if it takes them for no frame.

    Raises ValueError if it is no vector.
    """
    if unknown := sorted(vector.keys() - _KEYS):
        raise ValueError(f"unknown key `{unknown[0]}`; there are {', '.join(sorted(_KEYS))}")
    compiled = Device.compile("device", device)
    wanted = Name(vector.get("message") or next(iter(compiled.kinds)))
    if wanted not in compiled.kinds:
        raise ValueError(f"there is no message {wanted!r}; there are {', '.join(compiled.kinds)}")
    kind, data = compiled.kinds[wanted], _bytes(vector)
    framer = kind.framer()
    starts = range(0, 0 if vector.get("whole") else len(data), cut)
    frames = [data] if vector.get("whole") else [one for at in starts for one in framer.feed(data[at : at + cut])]
    points = [point for point in device.points if device.message_of(point) == kind.name]
    taken = [found for frame in frames if (found := compiled.decode(kind, frame)[0]) is not None]
    return [one.sample("device", found, 0, 0) for found in taken for one in compiled.columns(points)]


def _bytes(vector: Mapping[str, Any]) -> bytes:
    if ("hex" in vector) == ("text" in vector):
        raise ValueError('a vector has what arrives as `text: "12.3 kg\\r\\n"` or as `hex: 02 31 03`')
    return bytes.fromhex(str(vector["hex"])) if "hex" in vector else str(vector["text"]).encode("latin-1")


def example(name: str) -> str:
    """A profile to begin with, with its format explained in comments."""
    return _EXAMPLE.replace("NAME", name)


_EXAMPLE = r"""profile: NAME
title: Maker and model, and what it is
vendor: Maker
models: [Model]
# Where its format is from: title and revision of the document. Whoever doubts a value will look there.
source: "Maker, document title, revision, page"
device:
  line: 9600 8N1           # its usual settings; the bus may say others
  send: "SI\r\n"           # what to ask; left out, it is only listened to
  # framing: {type: markers, start: "\x02", stop: "\x03"}     # left out: lines of text
  # check: {type: xor}     # the checksum, if there is one
  decode: {regex: 'S (?P<state>[SD]) +(?P<weight>[-\d.]+) kg'}
  sample: "S S {weight:+9.2f} kg"      # how a frame looks, for `edged simulate`
  timeout: 1s
points:
  weight: {unit: kg, range: [0, 1000], description: Weight}
  stable: {field: state, enum: {S: stable, D: moving}, description: Whether the weight has settled}
# What arrives, as `text` or as `hex`, and what it means: best from the manual, or from a real device
# (`edged serial monitor`). `rejected`: what must not be taken for a frame. `bad`: points that have no value then.
# `edged profiles test NAME` runs them.
tests:
  - {name: stable, text: "S S     12.34 kg\r\n", values: {weight: 12.34, stable: stable}}
  - {name: moving, text: "S D     -0.10 kg\r\n", values: {stable: moving}, bad: [weight]}
  - {name: cut off, text: "S S     12.\r\n", rejected: true}
"""
