"""Checks across entries: each of them is valid alone, and together they contradict each other."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from pathlib import Path
from typing import Any

from edged.config import secrets
from edged.config.base import BusConfig, DeviceConfig
from edged.config.model import Config
from edged.config.nodes import Entry, Mapping, Node, Scalar, find, locate
from edged.config.problems import Mark, Report, SourceFile, quoted
from edged.config.types import Duration, Name, Secret
from edged.errors import ConfigError

Nodes = MappingABC[tuple[str, str], Entry]
"""(section, name) → the key and the tree of an entry, its profile included."""

MIN_EVERY = 0.01
"""Seconds. No field device answers more often, and the readings of one poll may lie this far apart."""


def check_names(tree: Mapping, report: Report) -> None:
    """Names of buses, devices and connections: well-formed, and different wherever they are used."""
    for section in ("buses", "devices", "connections", "flows"):
        node = tree.get(section)
        if isinstance(node, Mapping):
            check_written_names(node, section, report)
            for name, entry in node:
                try:
                    Name.parse(name)
                except ValueError as exc:
                    report.error(entry.key.mark, f"{section}.{name}", str(exc))


def check_written_names(node: Mapping, path: str, report: Report) -> None:
    """Names that YAML reads as something else, or that become the same in topics, file names or another system."""
    seen: dict[str, tuple[str, Mark]] = {}
    for name, entry in node:
        mark = entry.key.mark
        if name != entry.key.text:
            report.error(
                mark, f"{path}.{name}",
                f'YAML reads {entry.key.text} as the number {name}: write "{entry.key.text}" with quotes',
            )  # fmt: skip
        folded = re.sub(r"[-_.]", "-", name.casefold())
        if folded in seen:
            other, where = seen[folded]
            report.error(
                mark, f"{path}.{name}",
                f"differs from {quoted(other)} ({_place(where, mark)}) only in case or in `-`, `_`, `.`: upstream both "
                "may become the same name",
            )  # fmt: skip
        seen.setdefault(folded, (name, mark))


def check_rates(config: Config, nodes: Nodes, report: Report) -> None:
    """Periods that nothing can keep."""
    fine: set[tuple[int, float]] = set()
    """Points, by their id, and the period of a device: devices of one profile share their points."""
    for name, device in config.devices.items():
        node, path = nodes["devices", name].value, f"devices.{name}"
        _check_every(device.every, node, (), path, report)
        before = len(report.problems)
        for point, settings in device.points.items() if (id(device.points), device.every) not in fine else ():
            keys = ("points", str(point))
            if settings.every is not None:
                _check_every(settings.every, node, keys, f"{path}.points.{point}", report)
            period = settings.every or device.every
            if settings.deadband is not None and 0 < settings.heartbeat < period:
                report.warning(
                    locate(node, (*keys, "heartbeat")), f"{path}.points.{point}.heartbeat",
                    f"is shorter than the {period} between two reads, so the deadband never holds anything back",
                )  # fmt: skip
        if len(report.problems) == before:
            fine.add((id(device.points), device.every))


def _check_every(every: Duration, node: Node, keys: tuple[str, ...], path: str, report: Report) -> None:
    if every < MIN_EVERY:
        report.error(
            locate(node, (*keys, "every")), f"{path}.every",
            f"{every} is an impossible rate: the shortest is {Duration(MIN_EVERY)}",
        )  # fmt: skip


def check_links(config: Config, nodes: Nodes, report: Report) -> None:
    """Buses and the devices on them."""
    mentioned = {_text(entry.value, "bus") for (section, _), entry in nodes.items() if section == "devices"}
    known = {name for section, name in nodes if section == "buses"}
    ends: dict[str, str] = {}
    for name, bus in config.buses.items():
        entry, path = nodes["buses", name], f"buses.{name}"
        if name not in mentioned and mentioned <= known:  # else the bus may be the one that was meant
            report.warning(entry.key.mark, path, "no device uses this bus")
        end = endpoint(bus) if bus.enabled else None
        if end is not None and end in ends:
            key = "host" if hasattr(bus, "host") else "port"
            report.error(
                locate(entry.value, (key,)), f"{path}.{key}",
                f"{end.partition(' ')[2]} is already the bus {quoted(ends[end])}: put all its devices on one bus, so "
                "that they share the connection",
            )  # fmt: skip
        elif end is not None:
            ends[end] = name
    _check_devices(config, nodes, report)


def _check_devices(config: Config, nodes: Nodes, report: Report) -> None:
    stations: dict[tuple[str, str], str] = {}
    for name, device in config.devices.items():
        node, path = nodes["devices", name].value, f"devices.{name}"
        bus = config.buses.get(device.bus)
        if device.enabled and bus is not None and not bus.enabled:
            report.warning(
                locate(node, ("bus",)), f"{path}.bus", f"the bus {quoted(device.bus)} is disabled, so nothing is read"
            )
        for key, why in bus.doubts(device) if bus is not None and device.enabled else ():
            report.warning(locate(node, (key,)), f"{path}.{key}", why)
        unit = station(device)
        other = None if unit is None or not device.enabled else stations.setdefault((device.bus, unit), name)
        if other not in {None, name}:
            report.warning(
                locate(node, ("unit",)), f"{path}.unit",
                f"{quoted(str(other))} is unit {unit} on the bus {quoted(device.bus)} too: is it meant twice?",
            )  # fmt: skip


def endpoint(bus: BusConfig) -> str | None:
    """What two buses cannot share, as `kind place`: a network endpoint or a serial port. None if nothing is known."""
    host, port = getattr(bus, "host", None), getattr(bus, "port", None)
    if isinstance(host, str):
        kind = "udp" if "udp" in bus.adapter else "tcp"
        return f"{kind} {host.casefold().rstrip('.')}:{port}"
    return f"serial {port}" if isinstance(port, str) else None


def station(device: DeviceConfig) -> str | None:
    """What tells devices on one bus apart, where the protocol calls it a unit."""
    unit = getattr(device, "unit", None)
    return None if unit is None else str(unit)


def check_secrets(config: Config, nodes: Nodes, report: Report, base: Path | None) -> None:
    """Secrets written into the YAML and, where `base` says where to look, secrets that are nowhere."""
    used = False
    for section, name, keys, secret in _secrets(config):
        node = nodes[section, name].value
        mark, path = locate(node, keys), ".".join([section, name, *keys])
        written = find(node, keys)
        if isinstance(written, Scalar) and written.faulty:
            continue
        if not secret.name:
            named = f"`!secret {keys[-1]}`"
            if isinstance(written, Scalar) and written.variable:
                advice = f"a secret in a variable: write {named} and set {secrets.variable_of(keys[-1])} instead"
            else:
                advice = f"a secret in the clear: write {named} and keep the text elsewhere"
            report.warning(mark, path, f"{advice}; until then every start is slower, because this is not cached")
            continue
        used = True
        if base is None:
            continue
        try:
            secrets.resolve(secret, base=base)
        except ConfigError as exc:
            report.error(mark, path, str(exc))
    for name, connection in config.connections.items():
        node = nodes["connections", name].value
        for key, _, advice in connection.revealed():
            there = locate(node, (key,))
            mark = Mark(SourceFile(there.file.name), there.line, there.column)  # without its lines, which show it
            report.warning(mark, f"connections.{name}.{key}", f"a secret in the clear: {advice}")
    warning = secrets.exposed(base) if used and base is not None else None
    if warning:
        report.warning(Mark(SourceFile(secrets.FILE_NAME)), "", warning)


def secrets_used(config: Config) -> set[str]:
    """The names of all secrets."""
    return {secret.name for *_, secret in _secrets(config) if secret.name}


def _secrets(config: Config) -> Iterator[tuple[str, str, tuple[str, ...], Secret]]:
    without: set[int] = set()
    for section in ("buses", "devices", "connections"):
        for name, settings in getattr(config, section).items():
            for keys, secret in _secrets_in(settings, (), without):
                yield section, name, keys, secret


def _secrets_in(value: Any, keys: tuple[str, ...], without: set[int]) -> Iterator[tuple[tuple[str, ...], Secret]]:
    """`without` remembers, by their id, mappings that hold none: devices of one profile share their points."""
    if isinstance(value, Secret):
        if value.name or value.text:
            yield keys, value
    elif dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            yield from _secrets_in(getattr(value, one.name), (*keys, one.name), without)
    elif isinstance(value, MappingABC) and id(value) not in without:
        found = False
        for key, one in value.items():
            for secret in _secrets_in(one, (*keys, str(key)), without):
                found = True
                yield secret
        if not found:
            without.add(id(value))


def _text(node: Node, key: str) -> str:
    return str(getattr(node.get(key), "text", "")) if isinstance(node, Mapping) else ""


def _place(there: Mark, here: Mark) -> str:
    return f"line {there.line}" if there.file is here.file else str(there)
