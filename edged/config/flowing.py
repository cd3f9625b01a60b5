"""Flows beside the rest of the configuration: what they refer to, what they come to, and their tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from edged.config.base import ConnectionConfig, DeviceConfig
from edged.config.flows import FlowConfig, TestConfig
from edged.config.lint import Nodes
from edged.config.model import Config
from edged.config.nodes import locate
from edged.config.problems import Report, did_you_mean, quoted
from edged.flows.flow import Flow, looking
from edged.flows.outputs import Outputs
from edged.flows.reach import nowhere, overwritten
from edged.flows.steps import Look
from edged.model import ALL_GOOD, Quality, Sample, bad


def finish(config: Config, nodes: Nodes, report: Report) -> Config:
    """The configuration with its flows ready: SQL as steps, priority at the points. What is wrong is in the report."""
    if not config.flows:
        return config
    given = config.flows
    flows: dict[str, FlowConfig] = {}
    for name, flow in given.items():
        whole = _compiled(name, flow, nodes, report)
        if whole is not None:
            flows[name] = whole
            _check_connections(name, whole, config, nodes, report)
    config = dataclasses.replace(config, flows=flows)
    if config.gateway is None:  # said already
        return config
    for name in config.connections:
        _check_overlap(name, config, nodes, report)
    before = {name: len(flow.steps) - len(flows[name].steps) for name, flow in given.items() if name in flows}
    for name, flow in flows.items():
        _check_reach(name, flow, config, nodes, report)
        if flow.enabled:
            _check_names(name, flow, config, nodes, report, -before[name])
        for test, one in flow.tests.items():
            problem = _tried(flow, one, config)
            if problem:
                node = nodes["flows", name].value
                report.error(locate(node, ("tests", test)), f"flows.{name}.tests.{test}", problem)
    return _with_priorities(config)


def _compiled(name: str, flow: FlowConfig, nodes: Nodes, report: Report) -> FlowConfig | None:
    if not flow.sql:
        return flow
    from edged.flows.sql import compile_sql  # noqa: PLC0415  # only a flow in SQL pays for sqlglot

    try:
        match, steps = compile_sql(flow.sql)
    except ValueError as exc:
        report.error(locate(nodes["flows", name].value, ("sql",)), f"flows.{name}.sql", str(exc))
        return None
    return dataclasses.replace(flow, sql="", match=match, steps=(*steps, *flow.steps))


def _check_connections(name: str, flow: FlowConfig, config: Config, nodes: Nodes, report: Report) -> None:
    node = nodes["flows", name].value
    known = [one for section, one in nodes if section == "connections"]
    for target in flow.connections:
        path, mark = f"flows.{name}.connections.{target}", locate(node, ("connections", target), key=True)
        if target not in known:
            report.error(mark, path, f"there is no connection {quoted(target)}; {did_you_mean(target, known)}")
            continue
        connection = config.connections.get(target)
        if connection is None:
            continue
        if not connection.keeps:
            report.error(
                mark, path, f"to a {quoted(connection.connector)} nothing is sent, others ask it: no flow can go there"
            )
            continue
        if not connection.takes_flows:
            report.error(mark, path, f"the connector {quoted(connection.connector)} takes no flows, only all readings")
            continue
        if flow.interval and not connection.takes_intervals:
            report.error(
                mark,
                path,
                f"a flow with `aggregate` or `sample` sends the oldest first, and {quoted(connection.connector)} would "
                "show that as fresh: send that to another connection",
            )
            continue
        try:
            bound = bind(connection, flow, target)
        except ValueError as exc:
            report.error(mark, path, str(exc))
            continue
        if 0 < bound.max_age <= flow.interval:
            report.error(
                mark,
                path,
                f"`max_age: {bound.max_age}` gives readings up before the interval that waits for them is over",
            )
        if flow.interval and getattr(bound, "layout", "") == "samples":
            report.error(mark, path, "an interval yields many samples at once: `layout: samples` cannot carry them")


def bind(connection: ConnectionConfig, flow: FlowConfig, name: str) -> ConnectionConfig:
    """The connection as a flow wants it. Raises ValueError."""
    overrides = flow.connections[name].overrides()
    known = {field.name for field in dataclasses.fields(connection)}
    for key in overrides:
        if key not in known:
            raise ValueError(f"the connector {connection.connector!r} has no `{key}`")
    if connection.describes_flows and "max_readings" in overrides:
        raise ValueError(f"`max_readings` is the same for all flows of a {connection.connector!r}: set it there")
    layouts = getattr(type(connection), "LAYOUTS", ())
    if "layout" in overrides and not layouts:
        raise ValueError(f"the connector {connection.connector!r} has one `layout` for all flows, its own")
    if "layout" in overrides and overrides["layout"] not in layouts:
        raise ValueError(f"there is no layout {overrides['layout']!r}; there are {', '.join(layouts)}")
    return dataclasses.replace(connection, **overrides)


def make(flow: FlowConfig, config: Config) -> Flow:
    """The flow, ready to be tried."""
    return Flow(flow, config.gateway, _look(config))


def _check_overlap(connection: str, config: Config, nodes: Nodes, report: Report) -> None:
    """Where a receiver has one name for a point, two flows cannot yield it."""
    flows = {name: flow for name, flow in config.flows_to(connection).items() if flow.enabled}
    if len(flows) < 2 or not config.connections[connection].describes_flows:  # noqa: PLR2004  # one has no other
        return
    owners: dict[tuple[str, str], str] = {}
    for name, flow in flows.items():
        yields = Outputs([flow], config.gateway, config.devices, _look(config))
        points = [(device, str(point)) for device, settings in yields.items() for point in settings.points]
        clash = next((point for point in points if point in owners), None)
        owners |= {point: name for point in points if point not in owners}
        if clash is not None:
            report.error(
                locate(nodes["flows", name].value, ("connections", connection), key=True),
                f"flows.{name}.connections.{connection}",
                f"yields {'/'.join(clash)}, and so does the flow {quoted(owners[clash])}: {quoted(connection)} would "
                "show two things as one; `map: {rename: …}` gives one of them another name",
            )


def _look(config: Config) -> Look:
    return looking(config.devices, {name: str(bus.adapter) for name, bus in config.buses.items()})


def _check_reach(name: str, flow: FlowConfig, config: Config, nodes: Nodes, report: Report) -> None:
    """Whether it takes anything, and whether the units it converts are known."""
    made = make(flow, config)
    node, path = nodes["flows", name].value, f"flows.{name}"
    samples = [_blank(device, settings) for device, settings in config.devices.items() if settings.points]
    taken = made.matched(samples)
    if samples and not taken and not _may_bring_more(config):
        report.warning(locate(node, ("match",)), f"{path}.match", "no point of any device matches, so nothing is sent")
    for i, step in enumerate(flow.steps):
        for point, unit in step.map.convert.items() if step.map else ():
            if "->" in unit:
                continue
            for sample in taken:
                if point in sample.points and (why := _unknown_unit(config.devices[sample.device], point, unit)):
                    keys = ("steps", i, "map", "convert", point)
                    where = f"{path}.steps[{i}].map.convert.{point}"
                    report.error(locate(node, keys), where, f"{sample.device}/{point}: {why}")
                    break


def _check_names(name: str, flow: FlowConfig, config: Config, nodes: Nodes, report: Report, sql: int) -> None:
    """Whether there is what its steps name; the first `sql` of them come from its SELECT."""
    if _may_bring_more(config):
        return
    node, path, look = nodes["flows", name].value, f"flows.{name}", _look(config)
    for one in nowhere(flow, config.gateway, config.devices, look):
        keys: tuple[str | int, ...] = ("sql",) if one.step < sql else ("steps", one.step - sql, *one.keys)
        known = sorted(one.known)
        dashed = [
            point for point in known if point.startswith(f"{one.point}-") and {"filter", "when", "add"} & {*one.keys}
        ]
        hint = f"a name with a dash is written read({dashed[0]!r})" if dashed else did_you_mean(one.point, known)
        text = f"no device that this flow takes has a point {quoted(one.point)} here, so {one.what}; {hint}"
        report.warning(locate(node, keys), ".".join((path, *map(str, keys))), text)
    for step, old, new, device in overwritten(flow, config.gateway, config.devices, look):
        keys = ("sql",) if step < sql else ("steps", step - sql, "map", "rename", old)
        text = f"{device} has a point {quoted(new)} already: that one is dropped, and {quoted(old)} takes its place"
        report.warning(locate(node, keys), ".".join((path, *map(str, keys))), text)


def _may_bring_more(config: Config) -> bool:
    """Whether there is a device whose points only it knows."""
    return any(settings.brings_points and not settings.points for settings in config.devices.values())


def _blank(device: str, settings: DeviceConfig) -> Sample:
    points = tuple(map(str, settings.points))
    return Sample(device, 0, 0, points, [0] * len(points))


def _unknown_unit(device: DeviceConfig, point: str, unit: str) -> str:
    from edged.flows.units import linear  # noqa: PLC0415  # only where something is converted

    source = {str(name): one for name, one in device.points.items()}[point].unit
    if not source:
        return f"has no `unit`; give it one, or write both: `°C -> {unit}`"
    try:
        linear(source, unit)
    except ValueError as exc:
        return str(exc)
    return ""


def _tried(flow: FlowConfig, test: TestConfig, config: Config) -> str:
    """What is wrong with what comes out; empty if nothing is."""
    made = make(flow, config)
    result = made.apply([given_sample(one.device, one.values, one.time) for one in test.given]).samples
    got = [dict(zip(sample.points, sample.values, strict=True)) for sample in result]
    expected = [dict(one) for one in test.expect]
    if len(got) != len(expected):
        return f"{len(got)} samples came out instead of {len(expected)}: {got}"
    for number, (one, other) in enumerate(zip(got, expected, strict=True), 1):
        for point in dict.fromkeys([*other, *one]):
            if point not in one or point not in other or not _same(one[point], other[point]):
                wanted, found = other.get(point, "nothing"), one.get(point, "nothing")
                return f"sample {number}: {point} is {found!r}, and {wanted!r} is expected"
    return ""


def _same(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool) or not (isinstance(one, float) or isinstance(other, float)):
        return type(one) is type(other) and one == other
    return (
        isinstance(one, int | float)
        and isinstance(other, int | float)
        and (one == other or abs(one - other) <= 1e-9 * max(1.0, abs(one), abs(other)))
    )


def given_sample(device: str, values: object, time: float) -> Sample:
    """A sample as a person writes it."""
    if not isinstance(values, dict):
        raise ValueError("`values` must be a mapping of points")  # noqa: TRY004  # findings are ValueErrors
    quality: dict[int, Quality] = {i: bad("test") for i, value in enumerate(values.values()) if value is None}
    micros = round(time * 1e6)
    return Sample(device, micros, micros, tuple(map(str, values)), list(values.values()), quality or ALL_GOOD)


def _with_priorities(config: Config) -> Config:
    """The points that a flow with priority takes have it."""
    made = [make(flow, config) for flow in config.flows.values() if flow.priority == "high" and flow.enabled]
    if not made:
        return config
    devices = {name: _raised(name, device, made) for name, device in config.devices.items()}
    return dataclasses.replace(config, devices=devices)


def _raised(name: str, device: DeviceConfig, flows: list[Flow]) -> DeviceConfig:
    high = set(_taken(_blank(name, device), flows))
    if not high:
        return device
    points = {
        point: dataclasses.replace(one, priority="high") if point in high else one
        for point, one in device.points.items()
    }
    return dataclasses.replace(device, points=points)


def _taken(sample: Sample, flows: list[Flow]) -> Iterator[str]:
    for flow in flows:
        for one in flow.matched([sample]):
            yield from one.points
