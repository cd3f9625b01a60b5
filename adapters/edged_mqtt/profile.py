"""What the test vectors of a profile come to, those of its codec, and a profile to begin with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from edged.adapter import ConfigError, FileName, Quality, Reason, Sample, bad

from .codecs import examples as published
from .codecs.runner import CodecError, Output, Runner, Script, find
from .config import MqttBus, MqttDevice
from .device import Device
from .path import ABSENT
from .presets import PRESETS, Message
from .presets.base import Preset, parsed

_KEYS = frozenset({"name", "fport", "hex", "time", "message", "text", "topic", "preset", "values", "bad", "rejected"})
_TIME = "2026-01-01T00:00:00.000Z"
_EUI = "0000000000000000"


class _Vectors(Preset):
    """Stands for whatever preset the bus has: a vector says itself which of the device's messages it is."""

    expect = 3600.0

    def check(self, device: MqttDevice, name: str) -> str:  # noqa: ARG002  # as in the base class
        """Whatever is wrong for one preset may be right for another."""
        return ""

    def filters(self, device: MqttDevice, name: str) -> Sequence[str]:  # noqa: ARG002  # likewise
        """None."""
        return ()

    def read(self, device: MqttDevice, name: str, topic: str, payload: bytes) -> Message | None:  # noqa: ARG002  # likewise
        """The values, or a bare one."""
        found = parsed(payload)
        return Message(topic, values=found, whole=found)


def needs(_document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a device with such a profile must say itself: nothing."""
    return {}


def decoded(device: MqttDevice, vector: Mapping[str, Any]) -> Sequence[Sample]:
    """What a device makes of a vector: of a frame (`hex`, `fport`), or of a message, as its preset would find it.

    Raises ValueError if it is no vector, ConfigError without the package that runs codecs.
    """
    if unknown := sorted(vector.keys() - _KEYS):
        raise ValueError(f"unknown key `{unknown[0]}`; there are {', '.join(sorted(_KEYS))}")
    if ("hex" in vector) + ("message" in vector) + ("text" in vector) != 1:
        raise ValueError("a vector has what the device sends as `hex` (with `fport`), as `message` or as `text`")
    if "hex" in vector:
        return _sample(device, *_of_frame(device, vector))
    payload = str(vector["text"]).encode() if "text" in vector else orjson.dumps(vector["message"])
    if "preset" not in vector:
        compiled = Device("device", device, _Vectors(_bus("json")))
        return _sample(device, compiled, compiled.read(str(vector.get("topic", "")), payload), ABSENT, "")
    preset = str(vector["preset"])
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    compiled = Device(_EUI, device, PRESETS[preset](_bus(preset)))
    topic = str(vector.get("topic") or compiled.filters[0].replace("+", "x"))
    return _sample(device, compiled, compiled.read(topic.replace("{id}", compiled.called), payload), ABSENT, "")


def _bus(preset: str) -> MqttBus:
    return MqttBus(adapter="mqtt-in", url="mqtt://localhost", preset=preset)  # type: ignore[arg-type]  # checked before


def _of_frame(device: MqttDevice, vector: Mapping[str, Any]) -> tuple[Device, Message, Any, str]:
    """(The device, its message, what the codec makes of it, what is wrong)."""
    if not device.codec:
        raise ValueError("a vector with `hex` needs a `codec` under `device`")
    frame, port = bytes.fromhex(str(vector["hex"])), int(vector.get("fport", 1))
    given = {"bytes": list(frame), "fPort": port, "recvTime": str(vector.get("time", _TIME)),
             "variables": device.variables}  # fmt: skip
    compiled = Device("device", device, _Vectors(_bus("json")))
    message = Message(frame=frame, port=port)
    try:
        output = asyncio.run(_run(device.codec, given))
    except CodecError as exc:
        return compiled, message, ABSENT, f"it {exc}"
    return compiled, message, output.data, output.errors[0] if output.errors else ""


async def _run(codec: FileName, given: Mapping[str, Any]) -> Output:
    runner = Runner()
    try:
        return await runner.run(Script(find(codec), 0), "decodeUplink", given)
    finally:
        await runner.close()


def _sample(device: MqttDevice, compiled: Device, message: Message | None, values: Any, problem: str) -> list[Sample]:
    if message is None:
        return []
    found = compiled.found(message, values, problem)
    if not found.values or (problem and all(value is None for value in found.values.values())):
        return []
    names = tuple(str(point) for point in device.points if point in found.values)
    fallback: Quality = bad(Reason.DECODE)
    quality = {i: found.quality.get(name, fallback) for i, name in enumerate(names) if found.values[name] is None}
    return [Sample("device", 0, 0, names, [found.values[name] for name in names], quality)]


def examples(device: MqttDevice) -> Iterator[tuple[str, str]]:
    """(Severity, text) of each vector of the codec's package that is not fulfilled."""
    if not device.codec:
        return
    try:
        script = find(device.codec)
        file = find(device.examples) if device.examples else published.beside(script)
        if file is None:
            return
        for text in asyncio.run(_check_all(Script(script, 0), published.load(file))):
            yield "error", f"{file.name}: {text}"
    except ConfigError as exc:
        yield "warning", f"the examples of the codec were not run: {exc}"


async def _check_all(script: Script, vectors: Sequence[published.Example]) -> list[str]:
    runner = Runner()
    try:
        found = [(one, await published.check(runner, script, one)) for one in vectors]
    finally:
        await runner.close()
    return [f"{one.name}: {text}" for one, text in found if text]


def example(name: str) -> str:
    """A profile to begin with, with its format explained in comments."""
    return _EXAMPLE.replace("NAME", name)


_EXAMPLE = """profile: NAME
title: Maker and model, and what it is
vendor: Maker
models: [Model]
# Where its format is from: title and revision of the document. Whoever doubts a value will look there.
source: "Maker, document title, revision, page"
device:
  expect: 1h               # how long it may be silent
  # codec: NAME.js         # for LoRaWAN: the payload codec, a file beside this one (decodeUplink, encodeDownlink)
points:
  # `field` is where in the message the value is: keys with dots between them. Left out: the point's own name.
  temperature: {unit: °C, range: [-40, 85], description: Temperature}
  humidity: {unit: "%", range: [0, 100], description: Relative humidity}
  power: {field: em.power, unit: W, description: A value in an object}
  door: {type: boolean, words: [closed, open], description: "Two words for false and true"}
# What the device sends, and what it means. `edged profiles test NAME` runs them.
# With a codec: {name: …, fport: 85, hex: 01 75 5C, values: {battery: 92}}; `rejected`: what must not be taken.
tests:
  - {name: in a room, message: {temperature: 21.5, humidity: 40, door: open}, values: {temperature: 21.5, door: true}}
  - {name: broken, message: {temperature: null}, bad: [temperature]}
"""
