"""Whether a backup can be relied on: every checksum, the databases, and whether this edged takes the configuration."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edged.backup.archive import extract_to, opened, room
from edged.backup.databases import problems_of
from edged.backup.manifest import BUFFER, COMMANDS, Manifest
from edged.buffer.offline import look
from edged.errors import EdgedError, PermanentError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it."""

    manifest: Manifest | None
    """None if not even that can be read."""
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it can be restored."""
        return not self.problems


def verify(path: Path) -> Verdict:
    """Read all of it and try it out, beside it or in the system's folder for temporary files.

    Raises ConfigError (not there, of a newer edged), TransientError (no room to try it out).
    """
    manifest: Manifest | None = None
    try:
        with opened(path) as archive:
            manifest = archive.manifest
            folder = path.parent if os.access(path.parent, os.W_OK) else Path(tempfile.gettempdir())
            room(folder, manifest.size)
            with tempfile.TemporaryDirectory(prefix=".edged-scratch-", dir=folder) as name:
                places = {member.name: Path(name) / member.name for member in manifest.members}
                archive.each(extract_to(places))
                problems, warnings = tuple(_databases(places)), []
                wrong = _configuration(manifest, places)
                if wrong and (not manifest.valid or any(one.startswith("outside/") for one in places)):
                    warnings.append(wrong)
                elif wrong:
                    problems = (*problems, wrong)
    except PermanentError as exc:
        return Verdict(manifest, (str(exc),))
    return Verdict(manifest, problems, tuple(warnings))


def _databases(places: dict[str, Path]) -> Iterator[str]:
    for name in (BUFFER, COMMANDS):
        if name in places:
            yield from (f"{name}: {line}" for line in problems_of(places[name]))
    if BUFFER in places:
        try:
            yield from (f"{BUFFER}: {line}" for line in look(places[BUFFER], "verify", {})["problems"])
        except EdgedError as exc:
            yield f"{BUFFER}: {exc}"


def _configuration(manifest: Manifest, places: dict[str, Path]) -> str:
    """What this edged does not like about the configuration; empty if it takes it."""
    from edged.config.load import load  # noqa: PLC0415  # validation is heavy, and a restore of other parts needs none

    if manifest.main not in places:
        return ""
    errors = [one for one in load(places[manifest.main]).problems if one.severity != "warning"]
    first = str(errors[0]).replace(f"{places[manifest.main].parent}/", "") if errors else ""
    return f"the configuration has {len(errors)} errors, the first: {first}" if errors else ""
