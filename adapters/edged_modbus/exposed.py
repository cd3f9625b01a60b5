"""Where a Modbus server shows the points of other devices: one by one, or by a rule for all devices of a kind. Pure.

The numbers of a rule are labels of the devices and never their order: whoever adds a device must not move the
registers of another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from edged.adapter import STRICT, ConfigError
from edged.config.base import DeviceConfig
from edged.config.flows import MatchConfig
from edged.flows.match import DeviceInfo, Match, Site

from .point import DataType, Encoding, ModbusPoint, Order
from .served import Shown, Unit

_MOST_UNIT = 255
_MOST_NUMBER = 999
"""Places are kept for all numbers below the highest."""
_DIGITS = re.compile(r"[0-9]{1,9}")
NOBODY = ""
"""The device of a place that a rule keeps free. What is read there is not known, and never 0."""


@dataclass(frozen=True, kw_only=True)
class ServedPoint:
    """Where a point is shown, and how. Exactly one of `holding`, `input`, `coil` and `discrete` says where."""

    __pydantic_config__: ClassVar = STRICT

    holding: int | None = None
    """The holding register, counted from 0 as in the protocol."""
    input: int | None = None
    """The input register, counted from 0."""
    coil: int | None = None
    """The coil, counted from 0."""
    discrete: int | None = None
    """The discrete input, counted from 0."""
    unit: int = 1
    """The unit identifier under which it is shown, 0 to 255."""
    type: DataType | None = None
    """How the value is written into the registers; `float32` unless given."""
    order: Order | None = None
    """The order of its bytes, A being the most significant; most significant first unless given."""
    length: int | None = None
    """How many registers a string has."""
    encoding: Encoding = "ascii"
    """How a string is encoded."""
    scale: float = 1.0
    """What one step of the register is worth: 21.5 with `scale: 0.1` is shown as 215."""
    offset: float = 0.0
    """The value that a register of 0 stands for."""
    enum: dict[int, str] = field(default_factory=dict)
    """Numbers for the words of a point, e.g. `{0: off, 1: on}`."""

    def __post_init__(self) -> None:
        if not 0 <= self.unit <= _MOST_UNIT:
            raise ValueError(f"`unit` must lie between 0 and {_MOST_UNIT}")
        if self.type in {"bit", "int8l", "int8h", "uint8l", "uint8h"}:
            raise ValueError(f"`type: {self.type}` is a part of a register; use a whole one, or a coil")
        object.__setattr__(self, "enum", {int(key): text for key, text in self.enum.items()})
        _ = self.place

    @cached_property
    def place(self) -> ModbusPoint:
        """The same as a point of a Modbus device. Raises ValueError."""
        bits = self.coil is not None or self.discrete is not None
        kind = self.type or (None if bits else "uint16" if self.enum else "float32")
        return ModbusPoint(
            holding=self.holding, input=self.input, coil=self.coil, discrete=self.discrete, type=kind,
            order=self.order, length=self.length, encoding=self.encoding, scale=self.scale, offset=self.offset,
            enum=self.enum,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ServedRule:
    """Shows the same points of many devices, each device further on: at address + number × `stride`."""

    __pydantic_config__: ClassVar = STRICT

    device: str = ""
    """A pattern of the devices' names, such as `meter-*`."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels of the devices, each with a pattern of its value: `{kind: meter}`."""
    number: str = "slot"
    """The label in which each device says its number, 0 to 999. It is no order, so that a device that is added or
    removed moves no other."""
    stride: int = 0
    """How many addresses lie between a device and the one with the next number."""
    unit_stride: int = 0
    """How many units lie between them: 1 shows each device at the same addresses under a unit of its own."""
    points: dict[str, ServedPoint]
    """By the name of the point: where that of the device with the number 0 is shown."""

    def __post_init__(self) -> None:
        if not (self.device or self.labels):
            raise ValueError("a rule says which devices: with `device`, a pattern, or `labels`")
        if self.stride < 0 or self.unit_stride < 0 or not (self.stride or self.unit_stride):
            raise ValueError("`stride` or `unit_stride` must be 1 or more: how far the next device is away")
        if not self.points:
            raise ValueError("`points` of a rule is empty: name at least one, such as `power: {input: 0}`")
        _ = self.match
        show({f"0/{point}": place for point, place in self.points.items()}, {}, {})

    @cached_property
    def match(self) -> Match:
        """What tells which devices it is for."""
        return Match([MatchConfig(device=self.device, labels=self.labels)], Site(""))


def show(
    points: Mapping[str, ServedPoint], rules: Mapping[str, ServedRule], devices: Mapping[str, DeviceConfig]
) -> dict[int, Unit]:
    """What is shown, by unit identifier. Raises ValueError where points overlap, ConfigError where a rule cannot be."""
    shown: dict[int, list[Shown]] = {}
    for address, one in points.items():
        device, _, point = address.partition("/")
        shown.setdefault(one.unit, []).append(Shown(device, point, one.place))
    for name, rule in rules.items():
        for unit, place in _by_rule(f"rules: {name}", rule, devices):
            shown.setdefault(unit, []).append(place)
    return {unit: Unit(ones) for unit, ones in shown.items()}


def _by_rule(title: str, rule: ServedRule, devices: Mapping[str, DeviceConfig]) -> Iterator[tuple[int, Shown]]:
    """Every place of the grid from number 0 to the highest. Raises ConfigError."""
    numbers = _numbers(title, rule, devices)
    for point in rule.points:
        if not any(_has(devices[device], point) for device in numbers.values()):
            example = next(iter(numbers.values()))
            known = ", ".join(sorted(map(str, devices[example].points))[:8])
            raise ConfigError(f"`{title}`: none of its devices has a point {point!r}; {example} has {known}")
    for number in range(max(numbers) + 1):
        device = numbers.get(number, NOBODY)
        for point, base in rule.points.items():
            there = device != NOBODY and _has(devices[device], point)
            try:
                moved = _moved(base, number, rule)
                place = moved.place
            except ValueError as exc:
                whose = f"{device} (number {number})" if device else f"number {number}"
                raise ConfigError(f"`{title}`: {point} of {whose}: {exc}") from exc
            yield moved.unit, Shown(device if there else NOBODY, point, place)


def _has(device: DeviceConfig, point: str) -> bool:
    return point in device.points or not device.points


def _numbers(title: str, rule: ServedRule, devices: Mapping[str, DeviceConfig]) -> dict[int, str]:
    """Number → device. Raises ConfigError."""
    numbers: dict[int, str] = {}
    for device, config in devices.items():
        if not rule.match.points(device, DeviceInfo(labels=config.labels), ("",)):
            continue
        text = config.labels.get(rule.number, "")
        if not _DIGITS.fullmatch(text) or int(text) > _MOST_NUMBER:
            said = f"the label `{rule.number}: {text}` is none" if text else f"the label `{rule.number}` is missing"
            raise ConfigError(
                f"`{title}`: {device} needs a number from 0 to {_MOST_NUMBER}, which says where it is shown: {said}; "
                f'write `labels: {{{rule.number}: "0"}}` at the first device'
            )
        other = numbers.setdefault(int(text), device)
        if other != device:
            raise ConfigError(f"`{title}`: {other} and {device} have the same number, `{rule.number}: {text}`")
    if not numbers:
        raise ConfigError(f"`{title}` is for no device: none fits `device` and `labels`")
    return numbers


def _moved(base: ServedPoint, number: int, rule: ServedRule) -> ServedPoint:
    """Where the point of the device with this number is shown. Raises ValueError."""
    kind = next(kind for kind in ("holding", "input", "coil", "discrete") if getattr(base, kind) is not None)
    place = {kind: getattr(base, kind) + number * rule.stride}
    return replace(base, unit=base.unit + number * rule.unit_stride, **place)
