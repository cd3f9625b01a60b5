"""A configured device, compiled: what its messages mean for its points. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edged.adapter import ConfigError, Quality, Reason, Value, bad

from .config import MqttDevice
from .path import ABSENT, Place
from .point import MqttPoint
from .presets import Message, Preset
from .values import UndecodableError, read

_UNDECODED = bad(Reason.DECODE)
_PARTS = 64


@dataclass(frozen=True, slots=True)
class Found:
    """What a message says of a device's points. A point that it does not have is not in it."""

    values: Mapping[str, Value] = field(default_factory=dict)
    quality: Mapping[str, Quality] = field(default_factory=dict)
    problems: Sequence[str] = ()
    """Why some have no value, for people."""


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    place: Place
    point: MqttPoint


class Device:
    """One device behind a broker."""

    def __init__(self, name: str, config: MqttDevice, preset: Preset) -> None:
        """Raises ConfigError for what does not fit the preset of the bus."""
        self.name = name
        self.config = config
        self.preset = preset
        self.called = config.id or name
        if why := preset.check(config, self.called):
            raise ConfigError(f"{name}: {why}")
        self.expect = float(config.expect) or preset.expect
        self._columns = [
            _Column(str(point), Place.parse(str(point) if spec.field is None else spec.field), spec)
            for point, spec in config.points.items()
        ]
        self._parts: dict[str, list[_Column]] = {}
        self.filters = tuple(preset.filters(config, self.called))

    def read(self, topic: str, payload: bytes) -> Message | None:
        """What a message says; None if it is not for this device."""
        return self.preset.read(self.config, self.called, topic, payload)

    def wants_codec(self, message: Message) -> bool:
        """Whether its bytes are to be decoded by the device's codec."""
        return bool(self.config.codec) and message.frame is not None and self._carries(message)

    def _carries(self, message: Message) -> bool:
        return not self.config.ports or message.port in self.config.ports

    def found(self, message: Message, values: Any = ABSENT, problem: str = "") -> Found:
        """The points that a message has; `values` or `problem` are what its codec made of it."""
        if not self._carries(message):
            return Found()
        if values is ABSENT:
            values = message.values
        problem = problem or message.problem or self._undecoded(message, values)
        result: dict[str, Value] = {}
        quality: dict[str, Quality] = {}
        problems = [problem] if problem else []
        for column in self._of(message.part):
            place = column.place
            if place.origin == "extra":
                raw: Any = message.extra.get(place.steps[0], ABSENT)
            elif place.origin == "message":
                raw = place.find(message.whole)
            elif problem:
                result[column.name], quality[column.name] = None, _UNDECODED
                continue
            else:
                raw = place.find(values)
            if raw is ABSENT:
                continue
            try:
                result[column.name] = read(column.point, raw)
            except UndecodableError as exc:
                result[column.name], quality[column.name] = None, _UNDECODED
                if raw is not None:
                    problems.append(f"{column.name}: {exc}")
        return Found(result, quality, problems)

    def _undecoded(self, message: Message, values: Any) -> str:
        if values is ABSENT and message.frame and not self.config.codec and self.preset.lorawan:
            return "the network server has not decoded it: give it a codec there, or the device a `codec` here"
        return ""

    def _of(self, part: str) -> list[_Column]:
        """The points that are looked for in this part. There are as many parts as topics, so few are remembered."""
        known = self._parts.get(part)
        if known is None:
            if len(self._parts) >= _PARTS:
                self._parts.clear()
            usual = self.preset.usual(part)
            known = [one for one in self._columns if one.point.topic == part or (usual and not one.point.topic)]
            self._parts[part] = known
        return known
