"""What comes out of flows, before anything has: the devices with the points that they leave. Pure.

For receivers that are told beforehand what there will be: Sparkplug's births, Home Assistant's discovery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from edged.config.base import DeviceConfig, PointConfig
from edged.config.flows import FlowConfig, Function, MapConfig, StepConfig
from edged.config.model import GatewayConfig
from edged.config.types import Name
from edged.flows.match import Match, Site, pattern
from edged.flows.steps import Look
from edged.uplink.dialects.kinds import Kind, promised

Points = dict[str, PointConfig]
_WORDS = {
    Kind.TRUTH: "bool", Kind.WHOLE: "int64", Kind.LARGE: "uint64", Kind.NUMBER: "float64", Kind.TEXT: "string",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MadePoint(PointConfig):
    """A point that a flow makes: nothing that a device has, and nothing that can be written."""

    type: str = ""
    """The kind of its values; empty if that is not known before there is one."""


class Outputs(Mapping[str, DeviceConfig]):
    """The devices as flows leave them. As they are at the moment of asking, like those that it is made of."""

    def __init__(
        self, flows: Iterable[FlowConfig], gateway: GatewayConfig, devices: Mapping[str, DeviceConfig], look: Look
    ) -> None:
        site = gateway.site
        names = Site(str(gateway.id), site.tenant, site.building, site.location)
        self._flows = [(flow, Match(flow.match, names)) for flow in flows]
        self._devices = devices
        self._look = look

    def __getitem__(self, name: str) -> DeviceConfig:
        """Raises KeyError for devices that are not there, or of which the flows leave nothing."""
        device, points = self._devices[name], Points()
        for flow, match in self._flows:
            points |= self._left(flow, match, name, device)
        if not points and not device.brings_points:
            raise KeyError(name)
        return DeviceConfig(
            bus=device.bus, profile=device.profile, every=device.every, labels=device.labels, enabled=device.enabled,
            points={Name(point): config for point, config in points.items()},
        )  # fmt: skip

    def _left(self, flow: FlowConfig, match: Match, name: str, device: DeviceConfig) -> Points:
        names = [str(point) for point in device.points]
        taken = match.points(name, self._look(name), names)
        points: Points = {names[i]: device.points[Name(names[i])] for i in taken}
        for step in flow.steps:
            after = after_step(step, points)
            points = either(points, after) if step.when else after
        return points

    def __iter__(self) -> Iterator[str]:
        """Those of which something is left."""
        return (name for name in self._devices if name in self)

    def __len__(self) -> int:
        """How many they are."""
        return sum(1 for _ in self)


def either(one: Points, other: Points) -> Points:
    """What may come, where a condition decides which: of a point that is different then, nothing is certain."""
    both = {point: config if other[point] == config else MadePoint() for point, config in one.items() if point in other}
    return {**one, **other, **both}


def after_step(step: StepConfig, points: Points) -> Points:
    """What a step makes of points, where its `when` is true."""
    if not points:
        return points
    if step.map is not None:
        return _mapped(step.map, points)
    if step.aggregate is None:
        return points
    functions = dict.fromkeys([*step.aggregate.functions, "count"])
    return {
        f"{point}_{function}": _aggregated(function, config)
        for point, config in points.items()
        for function in functions
    }


def _aggregated(function: Function | str, config: PointConfig) -> MadePoint:
    if function == "count":
        return MadePoint(type="int64")
    kind = Kind.NUMBER if function == "avg" else promised(config)
    return MadePoint(unit=config.unit, type=_WORDS[kind] if kind else "")


def chosen(config: MapConfig, points: Points) -> Points:
    """What `keep` and `drop` leave."""
    keep, drop = [pattern(one) for one in config.keep], [pattern(one) for one in config.drop]
    return {
        point: one
        for point, one in points.items()
        if (not keep or any(fits(point) for fits in keep)) and not any(fits(point) for fits in drop)
    }


def _mapped(config: MapConfig, points: Points) -> Points:
    after = chosen(config, points)
    for point in (point for point in after if point in config.convert or point in config.scale):
        unit = config.convert.get(point, "").rpartition("->")[2].strip()
        after[point] = MadePoint(unit="" if point in config.scale else unit, type="float64")
    after |= {point: MadePoint() for point in config.add}
    gone = {new for old, new in config.rename.items() if old in after and new != old}
    return {
        config.rename.get(point, point): _as_other(one) if config.rename.get(point, point) != point else one
        for point, one in after.items()
        if point not in gone or point in config.rename
    }


def _as_other(config: PointConfig) -> MadePoint:
    """The same values under another name: who writes must use its own."""
    kind = promised(config)
    made = MadePoint(unit=config.unit, description=config.description, range=config.range, decimals=config.decimals)
    return replace(made, type=_WORDS[kind] if kind else "")
