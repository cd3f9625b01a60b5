"""Device types as data: a profile brings a device's settings and points, and the device overrides what differs."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edged.config.nodes import Entry, Mapping, Node, Scalar, is_empty, plain
from edged.config.problems import Mark, SourceFile, did_you_mean, quoted, suggest
from edged.config.secrets import SECRET_NAME as PROFILE_NAME
from edged.config.source import Reader

_PARTS = ("profile", "device", "points", "tests", "title", "description", "fingerprint")
"""The keys of a profile whose misspelling would lose something."""
_BY_KEY = ("labels",)
"""Device settings that are merged key by key, as points are; others are replaced as a whole."""
_TELLING = ("fingerprint", "device")
"""The keys of a profile that say how its devices are known."""
Recognise = Callable[[dict[str, Any]], object]
"""Understands a profile's `fingerprint`. Raises ValueError."""


@dataclass(slots=True)
class Profiles:
    """Finds profiles, in the folder beside the configuration first, and reads each once."""

    reader: Reader
    local: Path
    _read: dict[Path, Mapping | None] = field(default_factory=dict)
    _recognised: set[str] = field(default_factory=set)

    def apply(
        self, device: Mapping, path: str, shipped: Path | None, recognise: Recognise | None = None
    ) -> Mapping | None:
        """The device with its profile's settings and points below its own; None where the profile cannot be used.

        `recognise` checks the fingerprint of one that edged does not ship.
        """
        node = device.get("profile")
        if is_empty(node):
            return _without_removed(device, None, path, self.reader)
        if not isinstance(node, Scalar) or not isinstance(node.value, str) or not PROFILE_NAME.fullmatch(node.value):
            self.reader.report.error(
                device.entries["profile"].value.mark, f"{path}.profile", "must be a profile's name"
            )
            return None
        profile = self._find(node.value, node.mark, f"{path}.profile", shipped)
        if profile is not None and recognise is not None:
            self._check_fingerprint(node.value, profile, recognise)
        return None if profile is None else self._merged(profile, device, path)

    def _check_fingerprint(self, name: str, profile: Mapping, recognise: Recognise) -> None:
        """Say, once, what is wrong with the fingerprint of a local profile."""
        if name in self._recognised or self._read.get(self.local / f"{name}.yaml") is not profile:
            return
        self._recognised.add(name)
        entry = profile.entries.get("fingerprint")
        if entry is None:
            return
        try:
            recognise(
                plain(Mapping(profile.mark, {key: profile.entries[key] for key in _TELLING if key in profile.entries}))
            )
        except ValueError as exc:
            self.reader.report.error(entry.value.mark, "fingerprint", str(exc))

    def _find(self, name: str, asked: Mark, path: str, shipped: Path | None) -> Mapping | None:
        folders = [self.local, *([shipped] if shipped is not None else [])]
        for folder in folders:
            file = folder / f"{name}.yaml"
            if file in self._read or file.exists():
                return self._load(file, name, asked, path)
            self.reader.inputs.absent.append(os.path.abspath(file))  # noqa: PTH100  # links stay as they are
        known = sorted({one.stem for folder in folders if folder.is_dir() for one in folder.glob("*.yaml")})
        self.reader.report.error(
            asked, path,
            f"there is no profile {quoted(name)}; {did_you_mean(name, known, what='there are')} "
            f"(looked in {' and '.join(map(str, folders))})",
        )  # fmt: skip
        return None

    def _load(self, file: Path, name: str, asked: Mark, path: str) -> Mapping | None:
        if file not in self._read:
            broken, self.reader.broken = self.reader.broken, False
            tree = self.reader.read(file, name=str(file), asked=asked, where=path)
            self.reader.broken = broken
            self._read[file] = tree if tree is not None and self._sound(tree, name) else None
        return self._read[file]

    def _sound(self, tree: Mapping, name: str) -> bool:
        report, before = self.reader.report, len(self.reader.report.problems)
        stated = tree.get("profile")
        if not isinstance(stated, Scalar) or stated.value != name:
            mark = tree.mark if stated is None else stated.mark
            report.error(mark, "profile", f"a profile says its own name, that of its file: write `profile: {name}`")
        for part in ("device", "points"):
            there = tree.get(part)
            if not is_empty(there) and not isinstance(there, Mapping):
                report.error(tree.entries[part].value.mark, part, "must be a mapping of `key: value` lines")
        settings = tree.get("device")
        for key in ("bus", "profile", "points", "enabled"):
            if isinstance(settings, Mapping) and key in settings.entries:
                mark = settings.entries[key].key.mark
                report.error(mark, f"device.{key}", f"`{key}` is not for a profile to say; it belongs to the device")
        for key, entry in tree:
            near = suggest(key, _PARTS)
            if near and key not in _PARTS:
                report.error(entry.key.mark, key, f"unknown key {quoted(key)}; did you mean `{near}`?")
        return len(report.problems) == before

    def check_local(self, shipped: Iterable[Path | None]) -> None:
        """Warn of profiles beside the configuration that nothing uses, or that hide one that edged ships."""
        folders = {folder for folder in shipped if folder is not None}
        for found in self.reader.inputs.listing(str(Path(glob.escape(str(self.local.absolute()))) / "*.yaml")):
            file = self.local / Path(found).name
            mark = Mark(SourceFile(str(file)), 1, 1)
            if file not in self._read:
                self.reader.report.warning(mark, "", "no device uses this profile")
            elif any((folder / file.name).exists() for folder in folders):
                self.reader.report.warning(mark, "", f"hides the profile {quoted(file.stem)} that edged ships")

    def _repeats(self, own: Entry, base: Node | None, path: str, key: str) -> None:
        """Warn of a setting that the profile has already."""
        if base is not None and not isinstance(own.value, Mapping) and plain(own.value) == plain(base):
            self.reader.report.warning(own.key.mark, f"{path}.{key}", "repeats what the profile says; remove it")

    def _merged(self, profile: Mapping, device: Mapping, path: str) -> Mapping | None:
        result = Mapping(device.mark)
        settings = profile.get("device")
        if isinstance(settings, Mapping):
            result.entries.update(settings.entries)
        points = profile.entries.get("points")
        if points is not None and not is_empty(points.value):
            result.entries["points"] = points
        for key, entry in device:
            base = result.get(key)
            if key == "points" and isinstance(base, Mapping):
                self._repeated_points(entry.value, base, path)
                own = _without_removed(device, base, path, self.reader)
                result.entries[key] = own.entries[key]
            elif key in _BY_KEY and isinstance(base, Mapping) and isinstance(entry.value, Mapping):
                value = Mapping(entry.value.mark, {**base.entries, **entry.value.entries})
                result.entries[key] = Entry(entry.key, value)
            else:
                self._repeats(entry, base, path, key)
                result.entries[key] = entry
        return result

    def _repeated_points(self, own: Node, base: Mapping, path: str) -> None:
        for name, point in own if isinstance(own, Mapping) else ():
            below = base.get(name)
            if isinstance(point.value, Mapping) and isinstance(below, Mapping):
                for key, entry in point.value:
                    self._repeats(entry, below.get(key), f"{path}.points.{name}", key)


def _without_removed(device: Mapping, base: Mapping | None, path: str, reader: Reader) -> Mapping:
    """The device with the points of its profile merged in, and those that it sets to nothing taken out."""
    entry = device.entries.get("points")
    if entry is not None and is_empty(entry.value):
        return _with_points(device, entry, dict(base.entries) if base else {})
    if entry is None or not isinstance(entry.value, Mapping):
        return device
    points: dict[str, Entry] = dict(base.entries) if base else {}
    for name, point in entry.value:
        below = points.get(name)
        if is_empty(point.value):
            if below is None:
                reason = "its profile has no such point to remove" if base else "this point is empty"
                reader.report.error(point.key.mark, f"{path}.points.{name}", reason)
            points.pop(name, None)
        elif below is not None and isinstance(below.value, Mapping) and isinstance(point.value, Mapping):
            merged = Mapping(point.value.mark, {**below.value.entries, **point.value.entries})
            points[name] = Entry(point.key, merged)
        else:
            points[name] = point
    return _with_points(device, entry, points)


def _with_points(device: Mapping, entry: Entry, points: dict[str, Entry]) -> Mapping:
    return Mapping(device.mark, {**device.entries, "points": Entry(entry.key, Mapping(entry.value.mark, points))})
