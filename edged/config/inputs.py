"""What a configuration was made from, so that one can tell whether it still is what the files say.

Imported on the run path: needs neither a YAML parser nor pydantic.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Inputs:
    """Every file, listing and variable a configuration depends on."""

    files: dict[str, str] = field(default_factory=dict)
    """Absolute path → digest of the content."""
    listings: dict[str, list[str]] = field(default_factory=dict)
    """Absolute glob pattern → the paths it matched, sorted."""
    absent: list[str] = field(default_factory=list)
    """Absolute paths that were looked for in vain and would have been used."""
    variables: dict[str, str | None] = field(default_factory=dict)
    """Environment variable → digest of its value, None if it was not set."""

    def listing(self, pattern: str) -> list[str]:
        """The paths that match now; remembered."""
        self.listings[pattern] = matches(pattern)
        return self.listings[pattern]

    def variable(self, name: str, environ: Mapping[str, str]) -> str | None:
        """Its value now; that it was used is remembered."""
        value = environ.get(name)
        self.variables[name] = _digest_of_variable(value)
        return value

    def unchanged(self, environ: Mapping[str, str]) -> bool:
        """Whether everything is still as it was."""
        return (
            all(_digest_of_variable(environ.get(name)) == digest for name, digest in self.variables.items())
            and all(matches(pattern) == found for pattern, found in self.listings.items())
            and not any(os.path.lexists(path) for path in self.absent)
            and all(digest_of_file(path) == digest for path, digest in self.files.items())
        )

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "files": self.files, "listings": self.listings, "absent": self.absent, "variables": self.variables,
        }  # fmt: skip


def matches(pattern: str) -> list[str]:
    """The paths that match a glob pattern, sorted."""
    return sorted(glob.glob(pattern))  # noqa: PTH207  # absolute patterns, which Path.glob refuses


def digest(content: bytes) -> str:
    """What stands for a content."""
    return hashlib.sha256(content).hexdigest()


def digest_of_file(path: str) -> str | None:
    """The digest of what is in the file now; None if it cannot be read."""
    try:
        return digest(Path(path).read_bytes())
    except OSError:
        return None


def _digest_of_variable(value: str | None) -> str | None:
    return None if value is None else digest(value.encode(errors="surrogateescape"))
