"""What the steps of a flow name and no device has: a typo, or a point that an earlier step has taken away. Pure.

At work nothing would be wrong with it: a condition over a value that is missing is not true. So it is said beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edged.config.base import DeviceConfig
from edged.config.flows import FlowConfig, MapConfig, StepConfig
from edged.config.model import GatewayConfig
from edged.flows.expression import Expression
from edged.flows.match import Match, Site, pattern
from edged.flows.outputs import Points, after_step, chosen, either
from edged.flows.steps import Look

Left = dict[str, Points]
"""The points of each device that come to a step."""


@dataclass(frozen=True, slots=True)
class Nowhere:
    """A point that a step names, and what becomes of that."""

    step: int
    keys: tuple[str, ...]
    """Where in the step it is named."""
    point: str
    known: frozenset[str]
    """The points that come there."""
    what: str
    """What follows from it."""


def nowhere(
    flow: FlowConfig, gateway: GatewayConfig, devices: Mapping[str, DeviceConfig], look: Look
) -> Iterator[Nowhere]:
    """All such points, in the order of the steps."""
    left = _taken(flow, gateway, devices, look)
    for i, step in enumerate(flow.steps):
        known = _names(left)
        if not known:
            return  # what has taken everything away has been told
        yield from _expression(i, ("when",), step.when, known, "a condition that asks for it is not true")
        yield from _expression(i, ("filter",), step.filter, known, "a condition that asks for it is not true")
        if step.map is not None:
            yield from _map(i, step.map, left)
        left = {name: _through(step, points) for name, points in left.items()}


def _taken(flow: FlowConfig, gateway: GatewayConfig, devices: Mapping[str, DeviceConfig], look: Look) -> Left:
    site = gateway.site
    match = Match(flow.match, Site(str(gateway.id), site.tenant, site.building, site.location))
    left: Left = {}
    for name, device in devices.items():
        points: Points = {str(point): one for point, one in device.points.items()}
        columns = list(points)
        taken = match.points(name, look(name), columns)
        if taken:
            left[name] = {columns[i]: points[columns[i]] for i in taken}
    return left


def _names(left: Left) -> frozenset[str]:
    return frozenset(point for points in left.values() for point in points)


def _through(step: StepConfig, points: Points) -> Points:
    after = after_step(step, points)
    return either(points, after) if step.when else after


def _expression(i: int, keys: tuple[str, ...], text: str, known: frozenset[str], what: str) -> Iterator[Nowhere]:
    for point in sorted(Expression(text).points - known) if text else ():
        yield Nowhere(i, keys, point, known, what)


def _map(i: int, config: MapConfig, left: Left) -> Iterator[Nowhere]:
    known = _names(left)
    for key in ("keep", "drop"):
        for one in getattr(config, key):
            if not any(map(pattern(one), known)):
                yield Nowhere(i, ("map", key), one, known, f"it {key}s nothing")
    known = _names({name: chosen(config, points) for name, points in left.items()})
    if not known:
        return
    for key in ("convert", "scale"):
        for point in getattr(config, key):
            if point not in known:
                yield Nowhere(i, ("map", key, point), point, known, "nothing changes")
    for new, text in config.add.items():
        yield from _expression(i, ("map", "add", new), text, known, f"`{new}` is always bad")
        known |= {new}
    for old in config.rename:
        if old not in known:
            yield Nowhere(i, ("map", "rename", old), old, known, "nothing changes")


def overwritten(
    flow: FlowConfig, gateway: GatewayConfig, devices: Mapping[str, DeviceConfig], look: Look
) -> Iterator[tuple[int, str, str, str]]:
    """(Step, old name, new name, device) of points that a `rename` puts in the place of others."""
    for name, taken in _taken(flow, gateway, devices, look).items():
        points = taken
        for i, step in enumerate(flow.steps):
            if step.map is not None:
                fewer = {*chosen(step.map, points), *step.map.add}
                for old, new in step.map.rename.items():
                    if old != new and old in fewer and new in fewer and new not in step.map.rename:
                        yield i, old, new, name
            points = _through(step, points)
