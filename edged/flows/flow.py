"""A flow: what it takes, and its steps. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edged.config.flows import FlowConfig, StepConfig
from edged.config.model import GatewayConfig
from edged.flows.match import DeviceInfo, Match, Site
from edged.flows.steps import Cut, Errors, Look, Made, build, select
from edged.model import Sample


@dataclass(frozen=True, slots=True)
class Result:
    """What came of samples."""

    samples: list[Sample]
    left_out: int
    """How many of the readings put in were matched by nothing or filtered. What an interval was worked out of counts as
    taken."""


class Flow:
    """One flow, ready to use."""

    def __init__(self, config: FlowConfig, gateway: GatewayConfig, look: Look) -> None:
        """`look` tells what is known of a device, at the moment of asking."""
        site = gateway.site
        self._match = Match(config.match, Site(str(gateway.id), site.tenant, site.building, site.location))
        self._look = look
        self.errors = Errors()
        self.steps = [build(one, look, self.errors) for one in config.steps]
        self.interval = max((step.interval for step in self.steps), default=0)
        """Microseconds; 0 if no step waits for an interval."""
        self._columns: dict[tuple[str, tuple[str, ...]], tuple[DeviceInfo, list[int]]] = {}

    def matched(self, samples: Sequence[Sample]) -> list[Sample]:
        """What the flow takes of samples."""
        taken = []
        for sample in samples:
            columns = self._of(sample)
            if columns:
                taken.append(select(sample, columns))
        return taken

    def apply(
        self, samples: Sequence[Sample], seen: Callable[[list[Sample]], None] | None = None, cut: Cut | None = None
    ) -> Result:
        """Put samples through. `seen` is told what comes out of the match and of each step.

        `cut`: which intervals the samples are not the whole of.
        """
        cut = cut or Cut()
        total = _readings(samples)
        current = self.matched(samples)
        taken = _readings(current)
        interval = False
        if seen:
            seen(current)
        for step in self.steps:
            before = {id(sample) for sample in current}
            following = step.apply(current, cut)
            if not interval:
                taken = taken if step.interval and _aggregates(before, following) else min(taken, _put_in(following))
            interval = interval or step.interval > 0
            current = following
            if seen:
                seen(current)
        return Result(current, total if not current else total - taken)

    def _of(self, sample: Sample) -> list[int]:
        key, info = (sample.device, sample.points), self._look(sample.device)
        known = self._columns.get(key)
        if known is None or known[0] is not info:  # a reload may have changed its labels
            if len(self._columns) > _SHAPES:
                self._columns.clear()
            known = self._columns[key] = info, self._match.points(sample.device, info, sample.points)
        return known[1]


_SHAPES = 10_000
"""How many shapes of samples are remembered."""


def _aggregates(before: set[int], after: Sequence[Sample]) -> bool:
    """Whether something was worked out, rather than chosen."""
    return any(id(sample) not in before for sample in after)


def _put_in(samples: Sequence[Sample]) -> int:
    """Readings that were put in, not added."""
    return sum(not isinstance(point, Made) for sample in samples for point in sample.points)


def _readings(samples: Sequence[Sample]) -> int:
    return sum(len(sample.points) for sample in samples)


def looking(devices: Mapping[str, object], adapters: Mapping[str, str]) -> Look:
    """What looks into the configuration of devices; `adapters`: that of each bus.

    The same object comes for a device until its configuration is another one.
    """
    known: dict[str, tuple[object, DeviceInfo]] = {}

    def look(device: str) -> DeviceInfo:
        config = devices.get(device)
        if config is None:
            return _UNKNOWN
        entry = known.get(device)
        if entry is None or entry[0] is not config:
            points: Mapping[str, object] = getattr(config, "points", {})
            info = DeviceInfo(
                adapters.get(getattr(config, "bus", ""), ""),
                getattr(config, "labels", {}),
                {str(point): getattr(one, "unit", "") for point, one in points.items()},
            )
            entry = known[device] = config, info
        return entry[1]

    return look


_UNKNOWN = DeviceInfo()


def output_units(config: FlowConfig, units: Mapping[str, str]) -> dict[str, str]:
    """The units of a device's points as they leave a flow; without those that are not known for certain."""
    units = dict(units)
    for step in config.steps:
        after = _units_after(step, units)
        units = {point: unit for point, unit in after.items() if units.get(point) == unit} if step.when else after
    return units


def _units_after(step: StepConfig, units: dict[str, str]) -> dict[str, str]:
    if step.aggregate is not None:
        return {f"{point}_{name}": unit for point, unit in units.items() for name in ("avg", "min", "max", "last")}
    if step.map is None:
        return units
    after = dict(units)
    for point, unit in step.map.convert.items():
        after[point] = unit.rpartition("->")[2].strip()
    for point in (*step.map.scale, *step.map.add):
        after.pop(point, None)
    names = step.map.rename
    moved = {names[point]: after[point] for point in names if point in after}
    stays = {point: unit for point, unit in after.items() if point not in names and point not in names.values()}
    return stays | moved
