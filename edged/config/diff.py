"""What differs between two configurations, by object and in words, and which parts of the daemon it touches. Pure.

Imported on the run path: needs neither a YAML parser nor pydantic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edged.config.base import ConnectionConfig
from edged.config.flows import connection_of, cursor_name
from edged.config.model import Config
from edged.config.plain import dump
from edged.config.types import Secret
from edged.discretion import without_parameters

SINGLE = ("gateway", "buffer", "clock", "control", "backup")
_LIVE_CONTROL = ("watch",)
"""Settings of `control` that count from the reload on."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object that is new, gone or different."""

    kind: str
    """`gateway`, `buffer`, `clock`, `control`, `backup`, `bus`, `device`, `point`, `connection` or `flow`."""
    name: str
    """Empty for what there is only one of; `device/point` for points."""
    what: Literal["added", "removed", "changed"]
    settings: tuple[tuple[str, str, str], ...] = ()
    """Of a changed one: (setting, before, after); empty where it was or is not set."""

    def __str__(self) -> str:
        subject = f"{self.kind} {self.name}".rstrip()
        if self.what != "changed":
            return f"{subject}: {self.what}"
        return f"{subject}: " + ", ".join(
            f"{name} {before or 'unset'} → {after or 'unset'}" for name, before, after in self.settings
        )

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        settings = {name: {"before": before, "after": after} for name, before, after in self.settings}
        return {"kind": self.kind, "name": self.name, "what": self.what, "settings": settings}


@dataclass(frozen=True, slots=True)
class Touched:
    """Which parts of a running daemon a change concerns."""

    buses: frozenset[str] = frozenset()
    """Those to plan and open anew: their own settings or a device on them changed."""
    devices: frozenset[str] = frozenset()
    """Those that are new, gone or different."""
    connections: frozenset[str] = frozenset()
    """Those to start, end or start anew."""
    flows: frozenset[str] = frozenset()
    """Those to start, end or start anew while their connection goes on, by their place in the buffer: `cloud/hot`."""
    announce: bool = False
    """What the connections tell upstream about the devices has changed."""
    restart: tuple[str, ...] = ()
    """Settings that only a restart of the daemon can apply, such as `buffer.max_bytes`."""


@dataclass(frozen=True, slots=True)
class Diff:
    """All that differs."""

    changes: tuple[Change, ...] = ()
    touched: Touched = field(default_factory=Touched)

    def lines(self) -> list[str]:
        """For people."""
        return [str(change) for change in self.changes]


def compare(old: Config, new: Config) -> Diff:
    """What turns `old` into `new`."""
    changes = [change for section in SINGLE for change in _single(section, old, new)]
    changes += _named("bus", old.buses, new.buses)
    for name in _all(old.devices, new.devices):
        changes += _device(name, old.devices.get(name), new.devices.get(name))
    changes += _named("connection", old.connections, new.connections)
    changes += _named("flow", old.flows, new.flows)
    return Diff(tuple(changes), _touched(old, new, changes))


def _touched(old: Config, new: Config, changes: list[Change]) -> Touched:
    names: dict[str, set[str]] = {kind: set() for kind in (*SINGLE, "bus", "device", "point", "connection", "flow")}
    for change in changes:
        names[change.kind].add(change.name.partition("/")[0])
    devices = names["device"] | names["point"]
    beneath = {config.devices[name].bus for config in (old, new) for name in devices if name in config.devices}
    # The gateway's id and site are in every topic and message.
    everywhere = set(old.connections) | set(new.connections) if names["gateway"] else set()
    uplinks = set(map(str, names["connection"] | everywhere | _rewired(old, new)))
    flows = {place for place in _changed_flows(old, new, names["flow"]) if connection_of(place) not in uplinks}
    restart = [
        f"{change.kind}.{setting}"
        for change in changes
        if change.kind in {"buffer", "clock", "control"}
        for setting, _, _ in change.settings
        if not (change.kind == "control" and setting in _LIVE_CONTROL)
    ]
    return Touched(
        buses=frozenset(map(str, names["bus"] | beneath)),
        devices=frozenset(devices),
        connections=frozenset(uplinks),
        flows=frozenset(flows),
        announce=bool(devices),
        restart=tuple(restart),
    )


def _rewired(old: Config, new: Config) -> set[str]:
    """Connections that get flows instead of all readings, or the other way round.

    And those that cannot go on with other flows than they began with.
    """
    found = set()
    for name in {*old.connections, *new.connections}:
        before, after = _flowing(old, name), _flowing(new, name)
        connection = new.connections.get(name)
        kinds = {(bool(config.flows_to(name)), bool(_flowing(config, name))) for config in (old, new)}
        if len(kinds) > 1 or (connection and connection.describes_flows and before != after):
            found.add(str(name))
    return found


def _flowing(config: Config, connection: str) -> dict[str, Any]:
    """What is done on the way to a connection, by flow; nothing where it gets all readings."""
    return {
        name: (flow.match, flow.sql, flow.steps, flow.connections[connection])
        for name, flow in config.flows_to(connection).items()
        if flow.enabled
    }


def _changed_flows(old: Config, new: Config, names: Iterable[str]) -> Iterator[str]:
    """The places of flows that are new, gone, or do something else on their way to a connection."""
    for connection in {*old.connections, *new.connections}:
        before, after = _flowing(old, connection), _flowing(new, connection)
        for name in names:
            if before.get(name) != after.get(name):
                yield cursor_name(connection, name)


def _single(section: str, old: Config, new: Config) -> Iterator[Change]:
    settings = tuple(_settings(getattr(old, section), getattr(new, section)))
    if settings:
        yield Change(section, "", "changed", settings)


def _named(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in _all(old, new):
        yield from _object(kind, str(name), old.get(name), new.get(name))


def _object(kind: str, name: str, old: Any, new: Any, *, without: str = "") -> Iterator[Change]:
    if old is None or new is None:
        yield Change(kind, name, "added" if old is None else "removed")
        return
    settings = tuple(_settings(old, new, without))
    if settings:
        yield Change(kind, name, "changed", settings)


def _device(name: str, old: Any, new: Any) -> Iterator[Change]:
    yield from _object("device", str(name), old, new, without="points")
    if old is None or new is None or old.points is new.points:
        return
    for point in _all(old.points, new.points):
        yield from _object("point", f"{name}/{point}", old.points.get(point), new.points.get(point))


def _settings(old: Any, new: Any, without: str = "") -> Iterator[tuple[str, str, str]]:
    """(setting, before, after) of what differs; nested settings with their path. `without`: one that is left out."""
    if old == new and type(old) is type(new):
        return
    before, after = dict(_flat(old, without)), dict(_flat(new, without))
    for name in _all(before, after):
        if before.get(name) != after.get(name):
            yield name, _said(before.get(name), old), _said(after.get(name), new)


def _said(value: Any, settings: Any) -> str:
    """A value for people, without what is a secret in a setting that is none."""
    text = without_parameters(_shown(value))
    for _, secret, _ in settings.revealed() if isinstance(settings, ConnectionConfig) else ():
        text = text.replace(secret, "***")
    return text


def _flat(value: Any, without: str = "", path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration dataclass, defaults included."""
    for one in dataclasses.fields(value):
        held, name = getattr(value, one.name), f"{path}{one.name}"
        if not one.init or name == without:
            continue
        if dataclasses.is_dataclass(held) and not isinstance(held, Secret):
            yield from _flat(held, path=f"{name}.")
        elif isinstance(held, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in held.items())
        else:
            yield name, held


def _shown(value: Any) -> str:
    match value:
        case None | "":
            return ""
        case Secret():
            return f"!secret {value.name}" if value.name else "(a secret in the clear)"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{', '.join(map(_shown, value))}]"
    if dataclasses.is_dataclass(value):
        return str(dump(value))
    return str(value)


def _all(*mappings: Mapping[str, Any]) -> Iterable[str]:
    """The keys of all, in order, each once."""
    return dict.fromkeys(key for mapping in mappings for key in mapping)
