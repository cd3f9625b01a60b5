"""Reads and validates a configuration, and reports everything that is wrong with it at once.

    files → source (tree with positions) → profiles → pydantic, per adapter and connector → lint → Config

Only `edged check`, `edged schema` and a cold start come here; a running daemon uses `edged.config.compiled`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Collection
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from edged.adapter import adapter_names, load_adapter
from edged.config import flowing, idle, lint
from edged.config.base import BusConfig, ConnectionConfig, DeviceConfig
from edged.config.flows import FlowConfig
from edged.config.inputs import Inputs
from edged.config.model import BackupConfig, BufferConfig, ClockConfig, Config, ControlConfig, GatewayConfig
from edged.config.nodes import Entry, Mapping, Scalar, is_empty, locate, plain
from edged.config.problems import Problem, Report, did_you_mean, quoted, suggest
from edged.config.profiles import Profiles
from edged.config.source import Reader, home, read_all
from edged.config.words import about_what_is_written, explain
from edged.errors import ConfigError
from edged.explorer import Explores
from edged.uplink.connectors import connector_names, load_connector

SINGLE = {
    "gateway": GatewayConfig, "buffer": BufferConfig, "control": ControlConfig, "clock": ClockConfig,
    "backup": BackupConfig,
}  # fmt: skip
"""The sections that are one thing each."""
NAMED = ("buses", "devices", "connections", "flows")
"""The sections that are mappings of names."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of reading a configuration."""

    config: Config | None
    """None if there is an error among the problems."""
    problems: list[Problem]
    files: list[Path]
    """Everything that was read."""
    inputs: Inputs
    """What it depends on."""
    nodes: lint.Nodes = field(default_factory=dict)
    """Where its entries are written."""


def load(path: Path, *, environ: MappingABC[str, str] | None = None, find_secrets: bool = False) -> Loaded:
    """Read and validate a configuration. Never raises for what is in it.

    `find_secrets` also tries to find every secret, which only the machine it runs on can do.
    """
    reader = Reader(os.environ if environ is None else environ)
    tree = read_all(path, reader)
    if reader.broken:
        return Loaded(None, reader.report.problems, reader.paths, reader.inputs)
    sections = _Sections(tree, reader, home(path))
    config = sections.config()
    lint.check_secrets(config, sections.nodes, reader.report, home(path) if find_secrets else None)
    lint.check_names(tree, reader.report)
    lint.check_rates(config, sections.nodes, reader.report)
    lint.check_links(config, sections.nodes, reader.report)
    config = flowing.finish(config, sections.nodes, reader.report)
    idle.check_idle(config, sections.nodes, reader.report)
    if find_secrets:
        idle.check_secrets_file(config, lint.secrets_used(config), home(path), reader.report)
    complete = None if reader.report.failed else config
    return Loaded(complete, in_order(reader.report.problems, reader.paths), reader.paths, reader.inputs, sections.nodes)


def in_order(problems: list[Problem], files: list[Path]) -> list[Problem]:
    """By file in the order they were read, then by line."""
    order = {str(path): index for index, path in enumerate(files)}
    last = len(order)
    return sorted(problems, key=lambda one: (order.get(one.mark.file.name, last), one.mark.line, one.mark.column))


@functools.cache
def type_adapter(target: Any) -> TypeAdapter[Any]:
    """The validator of a class."""
    return TypeAdapter(target)


def validate(target: Any, entry: Entry, path: str, report: Report) -> Any:
    """An instance of `target` made from the value of `entry`, or None with the reasons in the report.

    Strict, and through JSON: then pydantic takes lists for tuples, mappings for dataclasses and words for enums, but
    never a text for a number, a number for a text, or either for true or false.
    """
    try:
        return type_adapter(target).validate_json(json.dumps(plain(entry.value)), strict=True)
    except ValidationError as exc:
        for mark, keys, message in explain(exc.errors(include_url=False), entry.value, target, entry.key.mark):
            report.error(mark, ".".join([path, *map(str, keys)]), message)
        return None


_SAID = frozenset({"adapter", "bus", "connector", "profile", "points"})
"""Settings that have been judged before it is known what kind of thing the others belong to, or that need that kind."""


def look_at_rest(target: Any, entry: Entry, path: str, report: Report, said: Collection[str | None] = _SAID) -> None:
    """Say what is wrong with single settings of something that is known in part only.

    Nothing is said of what may be missing, and unknown keys are told only where the kind of thing is known.
    """
    base = target in {BusConfig, ConnectionConfig, DeviceConfig}
    known = {one.name for one in dataclasses.fields(target)}
    written = entry.value if isinstance(entry.value, Mapping) else ()
    rest = {key: one for key, one in written if key not in said and (key in known or not base)}
    node = Mapping(entry.value.mark, rest)
    try:
        type_adapter(target).validate_json(json.dumps(plain(node)), strict=True)
    except ValidationError as exc:
        errors = about_what_is_written(exc.errors(include_url=False), node)
        for mark, keys, message in explain(errors, node, target, entry.key.mark):
            report.error(mark, ".".join([path, *map(str, keys)]), message)


@dataclass(slots=True)
class _Sections:
    """Validates one section after the other; later ones refer to earlier ones."""

    tree: Mapping
    reader: Reader
    folder: Path
    nodes: dict[tuple[str, str], Entry] = field(default_factory=dict)
    """(section, name) → its key and its tree, profile included."""
    _adapters: dict[str, Any] = field(default_factory=dict)
    """Bus → adapter, also where the bus itself has mistakes; None where there is no such adapter."""
    _shared: dict[tuple[Any, int], Any] = field(default_factory=dict)
    """(device class, id of a profile's points) → these points, valid; None where they need a closer look."""

    def config(self) -> Config:
        """What is valid of the configuration. What is not is in the report."""
        report = self.reader.report
        known = [*SINGLE, *NAMED, "include"]
        for key, entry in self.tree:
            if key not in known:
                report.error(entry.key.mark, key, f"unknown section {quoted(key)}; {did_you_mean(key, known)}")
        single = {name: self._single(name, target) for name, target in SINGLE.items()}
        buses = self._each("buses", self._bus)
        profiles = Profiles(self.reader, self.folder / "profiles")
        devices = self._each("devices", lambda name, entry: self._device(name, entry, profiles))
        profiles.check_local([adapter.profiles() for adapter in self._adapters.values() if adapter is not None])
        return Config(
            **{name: one for name, one in single.items() if one is not None or name == "gateway"},
            buses=buses,
            devices=devices,
            connections=self._each("connections", self._connection),
            flows=self._each("flows", self._flow),
        )

    def _single(self, name: str, target: Any) -> Any:
        node = self.tree.get(name)
        if node is None or is_empty(node):
            if name == "gateway":
                mark = self.tree.mark if node is None else self.tree.entries[name].key.mark
                self.reader.report.error(mark, name, "`gateway` is missing: write `gateway: {id: some-name}`")
            return None
        self.nodes[name, ""] = self.tree.entries[name]
        return validate(target, self.tree.entries[name], name, self.reader.report)

    def _each(self, section: str, make: Callable[[str, Entry], Any]) -> dict[str, Any]:
        node, report = self.tree.get(section), self.reader.report
        if node is None or is_empty(node):
            return {}
        if not isinstance(node, Mapping):
            report.error(node.mark, section, "must be a mapping: a name on each line, its settings below it")
            return {}
        made: dict[str, Any] = {}
        for name, entry in node:
            path = f"{section}.{name}"
            if isinstance(entry.value, Mapping):
                self.nodes[section, name] = entry
                one = make(name, entry)
                if one is not None:
                    made[name] = one
            elif is_empty(entry.value):
                report.error(entry.key.mark, path, "has no settings: write them below it, indented, or remove it")
            else:
                report.error(entry.value.mark, path, "must be a mapping of `key: value` lines")
        return made

    def _word(self, entry: Entry, key: str, path: str, what: str, known: list[str]) -> str | None:
        """A word that must be one of `known`. Where it is nearly one, that one: more mistakes can be found then."""
        node = entry.value
        value = node.get(key) if isinstance(node, Mapping) else None
        if value is None or is_empty(value):
            near = suggest(key, node.entries) if isinstance(node, Mapping) and value is None else None
            hint = f"is {quoted(near)} meant to be it?" if near else f"there are: {', '.join(known) or 'none'}"
            self.reader.report.error(entry.key.mark, path, f"`{key}` is missing; {hint}")
            return None
        if not isinstance(value, Scalar) or value.secret:
            said = "a secret" if isinstance(value, Scalar) else "a mapping" if isinstance(value, Mapping) else "a list"
            self.reader.report.error(value.mark, f"{path}.{key}", f"must be the name of one {what}, not {said}")
            return None
        word = value.text
        if word in known:
            return word
        if not value.faulty:
            hint = did_you_mean(word, known, what="there are")
            self.reader.report.error(value.mark, f"{path}.{key}", f"there is no {what} {quoted(word)}; {hint}")
        return suggest(word, known)

    def _bus(self, name: str, entry: Entry) -> BusConfig | None:
        path = f"buses.{name}"
        self._adapters[name] = None
        word = self._word(entry, "adapter", path, "adapter", adapter_names())
        if word is None:
            look_at_rest(BusConfig, entry, path, self.reader.report)
            return None
        try:
            self._adapters[name] = load_adapter(word)
        except ConfigError as exc:
            self.reader.report.error(locate(entry.value, ("adapter",)), f"{path}.adapter", str(exc))
            look_at_rest(BusConfig, entry, path, self.reader.report)
            return None
        bus: BusConfig | None = validate(self._adapters[name].bus_config, entry, path, self.reader.report)
        return bus

    def _connection(self, name: str, entry: Entry) -> ConnectionConfig | None:
        path = f"connections.{name}"
        word = self._word(entry, "connector", path, "connector", connector_names())
        if word is None:
            look_at_rest(ConnectionConfig, entry, path, self.reader.report)
            return None
        try:
            target = load_connector(word).connection_config
        except ConfigError as exc:
            self.reader.report.error(locate(entry.value, ("connector",)), f"{path}.connector", str(exc))
            look_at_rest(ConnectionConfig, entry, path, self.reader.report)
            return None
        connection: ConnectionConfig | None = validate(target, entry, path, self.reader.report)
        return connection

    def _flow(self, name: str, entry: Entry) -> FlowConfig | None:
        flow: FlowConfig | None = validate(FlowConfig, entry, f"flows.{name}", self.reader.report)
        return flow

    def _device(self, name: str, entry: Entry, profiles: Profiles) -> DeviceConfig | None:
        path, node = f"devices.{name}", entry.value
        bus = self._word(entry, "bus", path, "bus", list(self._adapters))
        adapter = self._adapters.get(bus) if bus is not None else self._only_adapter()
        if not isinstance(node, Mapping):
            return None
        if adapter is None:
            look_at_rest(DeviceConfig, entry, path, self.reader.report)
            return None
        recognise = adapter.explorer().fingerprint if isinstance(adapter, Explores) else None
        merged = profiles.apply(node, path, adapter.profiles(), recognise)
        if merged is None:
            look_at_rest(adapter.device_config, entry, path, self.reader.report)
            return None
        self.nodes["devices", name] = Entry(entry.key, merged)
        points = merged.get("points")
        none = points is None or is_empty(points) or (isinstance(points, Mapping) and not points.entries)
        brings = adapter.device_config.brings_points
        if none and (is_empty(merged.get(brings)) if isinstance(brings, str) else not brings):
            typed = suggest("profile", node.entries) or suggest("points", node.entries)
            typo = typed if typed not in {None, "profile", "points"} else None
            mark = node.entries[typo].key.mark if typo else entry.key.mark
            hint = f"; is {quoted(typo)} meant to be one of them?" if typo else ""
            self.reader.report.error(mark, path, f"has no points: list some under `points`, or name a `profile`{hint}")
            look_at_rest(adapter.device_config, entry, path, self.reader.report, {*_SAID, typo})
            return None
        if bus is not None and "points" not in node.entries and (known := self._of_profile(adapter, merged)):
            return known
        if isinstance(points, Mapping):
            lint.check_written_names(points, f"{path}.points", self.reader.report)
        if bus is None:
            # what is missing or wrong about it has been said
            merged.entries["bus"] = Entry(entry.key, Scalar(entry.key.mark, "unknown", "unknown"))
        device: DeviceConfig | None = validate(
            adapter.device_config, Entry(entry.key, merged), path, self.reader.report
        )
        return None if bus is None else device

    def _of_profile(self, adapter: Any, merged: Mapping) -> DeviceConfig | None:
        """A device that takes the points of its profile as they are: they are validated once, and shared.

        None where anything is wrong: the long way then says what.
        """
        target, points = adapter.device_config, merged.entries.get("points")
        if points is None or not isinstance(points.value, Mapping):
            return None
        key = target, id(points)
        try:
            if key not in self._shared:
                self._shared[key] = None
                self._shared[key] = _valid_points(target, points.value)
            if self._shared[key] is None:
                return None
            rest = Mapping(merged.mark, {name: one for name, one in merged.entries.items() if name != "points"})
            device: DeviceConfig = type_adapter(target).validate_json(json.dumps(plain(rest)), strict=True)
            return dataclasses.replace(device, points=self._shared[key])
        except ValueError:  # pydantic's ValidationError is one
            return None

    def _only_adapter(self) -> Any:
        """The adapter of a device whose bus is unknown, where there can be only one."""
        adapters = list(self._adapters.values())
        return adapters[0] if adapters and all(one is adapters[0] for one in adapters) else None


def _valid_points(target: Any, points: Mapping) -> Any:
    """The points of a profile as a device class wants them; None if their names need a closer look.

    Raises ValidationError.
    """
    report = Report()
    lint.check_written_names(points, "", report)
    if report.problems:
        return None
    kind = get_type_hints(target)["points"]
    return type_adapter(kind).validate_json(json.dumps(plain(points)), strict=True)
