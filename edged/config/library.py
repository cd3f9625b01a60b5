"""The profiles that there are: those that the adapters bring and those beside the configuration; and checks of one."""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from edged.adapter import Adapter, adapter_names, load_adapter
from edged.config import vectors
from edged.config.load import validate
from edged.config.nodes import Entry, Mapping, Node, Scalar, locate, plain
from edged.config.problems import Mark
from edged.config.profiles import Profiles
from edged.config.secrets import placed
from edged.config.source import Reader
from edged.errors import ConfigError

_WRITTEN = """
    % ppm ppb °C °F K V mV kV A mA W kW MW VA kVA var kvar Hz Wh kWh MWh varh kvarh VAh kVAh GJ Ah ° rad rpm 1/min
    m mm cm km m² m³ l ml m/s m/s² km/h m³/h l/h l/min l/s kg g t mg/l mg/kg µg/m³ mg/m³ Pa hPa kPa MPa bar mbar
    s ms min h d lx dB dBm Ω kΩ MΩ S/m µS/cm mS/cm W/m² kWh/m² J kJ MJ N Nm Bq/m³ pH UVI counts imp clicks clicks/h
    °dH NTU
"""
UNITS = frozenset(_WRITTEN.split()) | {"1/0.1 l"}
"""Units that profiles use; another one is probably a slip of the pen."""
_SMALL = re.compile(r"^(points|device|tests|fingerprint|messages|data):", re.MULTILINE)
"""Where the head of a profile, the keys about it, ends."""


@runtime_checkable
class ProfileChecker(Protocol):
    """What an adapter may have besides: it checks its profiles in a way of its own (see also `vectors.Decodes`)."""

    def check_profile(
        self, document: MappingABC[str, Any], device: Any
    ) -> Iterable[tuple[str, tuple[str | int, ...], str]]:
        """What is wrong with its vectors and points: `error` or `warning`, the keys that lead there, the words."""
        ...


@runtime_checkable
class Beginner(Protocol):
    """What an adapter may have besides: it can begin a profile."""

    def example_profile(self, name: str) -> str:
        """The text of a profile to begin with."""
        ...

    def profile_needs(self, document: MappingABC[str, Any]) -> MappingABC[str, Any]:
        """What a device with this profile must say itself, with a value to test the profile with."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """Adapters that share their profiles."""

    name: str
    adapter: Adapter
    folder: Path


@dataclass(frozen=True, slots=True)
class Found:
    """A profile's file."""

    name: str
    file: Path
    family: Family | None
    """None for one beside the configuration, which belongs to whichever adapter its device has."""

    def head(self) -> dict[str, Any]:
        """What it says about itself: title, vendor, models, source. Empty if it cannot be read."""
        try:
            text = self.file.read_text("utf-8")
            end = _SMALL.search(text)
            head = YAML(typ="safe", pure=True).load(text[: end.start() if end else None])
        except (OSError, UnicodeDecodeError, YAMLError):
            return {}
        return head if isinstance(head, dict) else {}


def families() -> list[Family]:
    """The installed adapters that bring profiles."""
    found: dict[Path, list[str]] = {}
    adapters: dict[Path, Adapter] = {}
    for name in adapter_names():
        try:
            adapter = load_adapter(name)
        except ConfigError:  # it lacks a package; others may do
            continue
        folder = adapter.profiles()
        if folder is not None and folder.is_dir():
            found.setdefault(folder, []).append(name)
            adapters.setdefault(folder, adapter)
    return [Family(names[0].partition("-")[0], adapters[folder], folder) for folder, names in found.items()]


def library(local: Path | None) -> list[Found]:
    """All profiles: first those of the folder `local`, which come before shipped ones of the same name."""
    own = _files(local) if local is not None and local.is_dir() else []
    shipped = [Found(file.stem, file, one) for one in families() for file in _files(one.folder)]
    return [Found(file.stem, file, None) for file in own] + shipped


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.yaml"), key=lambda file: file.stem)


def document(file: Path) -> tuple[Mapping | None, Reader]:
    """The tree of a profile's file, and the reader with what is wrong with it."""
    reader = Reader(os.environ)
    return reader.read(file, name=str(file)), reader


def check(found: Found) -> Reader:
    """Check one profile in full; what is wrong is in the report, by file, line and column."""
    tree, reader = document(found.file)
    if tree is None:
        return reader
    report = reader.report
    for key in ("title", "source"):
        if not _text(tree, key).strip():
            report.error(_mark(tree, key), key, f"a profile needs a `{key}`" + _WHY.get(key, ""))
    for where, mark, unit in _units(tree):
        if unit not in UNITS:
            report.warning(mark, where, f"{unit!r} is no unit that other profiles use")
    family = found.family or _guess(tree)
    if family is None:
        return reader
    written = plain(tree)
    if not isinstance(written.get("tests") or [], list):
        report.error(_mark(tree, "tests"), "tests", "must be a list of vectors, each beginning with `-`")
        return reader
    needed = family.adapter.profile_needs(written) if isinstance(family.adapter, Beginner) else {}
    settings = {"bus": "bus", "profile": found.name, **needed}
    node = Mapping(tree.mark, {key: _entry(tree.mark, key, value) for key, value in settings.items()})
    merged = Profiles(reader, found.file.parent).apply(node, "profile", None)
    if merged is None:
        return reader
    device = validate(
        family.adapter.device_config, Entry(Scalar(tree.mark, found.name, found.name), merged), "device", report
    )
    if device is None:
        return reader
    device = placed(device, found.file.absolute().parent)
    for severity, keys, text in _tested(family.adapter, written, device):
        add = report.error if severity == "error" else report.warning
        add(locate(tree, keys), ".".join(map(str, keys)), text)
    return reader


def _tested(adapter: Adapter, document: dict[str, Any], device: Any) -> Iterator[vectors.Problem]:
    if isinstance(adapter, ProfileChecker):
        yield from adapter.check_profile(document, device)
    elif isinstance(adapter, vectors.Decodes):
        yield from vectors.problems(adapter, document, device)
    if isinstance(adapter, vectors.Carries):
        for severity, text in adapter.examples(device):
            yield severity, ("device",), text


_WHY = {"source": ": the document its registers are from, for whoever doubts a value"}


def _guess(tree: Mapping) -> Family | None:
    """The adapters a local profile is for: those that know most of the keys of its points and of its `device`."""
    points, settings = tree.get("points"), tree.get("device")
    used = [
        key
        for _, entry in (points if isinstance(points, Mapping) else ())
        if isinstance(entry.value, Mapping)
        for key in entry.value.entries
    ]
    own = list(settings.entries) if isinstance(settings, Mapping) else []

    def strange(family: Family) -> tuple[int, bool]:
        device = family.adapter.device_config
        point = typing.get_args(typing.get_type_hints(device)["points"])[1]
        unknown = len(set(used) - _names(point)) + len(set(own) - _names(device))
        return unknown, not isinstance(family.adapter, ProfileChecker)

    return min(families(), key=strange, default=None)


def _names(settings: Any) -> set[str]:
    return {one.name for one in dataclasses.fields(settings)}


def _units(tree: Mapping) -> Iterator[tuple[str, Mark, str]]:
    points = tree.get("points")
    for name, entry in points if isinstance(points, Mapping) else ():
        unit = entry.value.get("unit") if isinstance(entry.value, Mapping) else None
        if isinstance(unit, Scalar) and unit.text:
            yield f"points.{name}", unit.mark, unit.text


def _entry(mark: Mark, key: str, value: Any) -> Entry:
    return Entry(Scalar(mark, key, key), Scalar(mark, value, str(value)))


def _text(tree: Mapping, key: str) -> str:
    node: Node | None = tree.get(key)
    return node.text if isinstance(node, Scalar) and node.value is not None else ""


def _mark(tree: Mapping, key: str) -> Mark:
    return tree.entries[key].key.mark if key in tree.entries else tree.mark
