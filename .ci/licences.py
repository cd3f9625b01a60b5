"""Check what is installed with edged: every package is in requirements.lock, and none that edged loads is copyleft.

edged is Apache-2.0 and loads these packages into its own process, so GPL and its relatives are out. Tools that only
test or check edged are not asked.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from requirements import ALL_EXTRAS

ROOT = Path(__file__).parents[1]
NEVER_LOADED = {"pyric"}
"""Copyleft, but only installed: the extra `ble-decoders` brings it for resetting radios through habluetooth, which
edged does in another way. tests/unit/test_layout.py shows that it is not imported."""
COPYLEFT = re.compile(r"\b([AL]?GPL|GNU .*General Public)", re.IGNORECASE)
ONLY_IN_A_FILE = {"quickjs-ng": "MIT"}
"""Packages whose metadata name no licence, and what their licence file is."""


def closure(name: str, extras: frozenset[str], seen: dict[str, Distribution]) -> None:
    """Collect the installed distribution `name` and everything it needs here, its extras included."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}
        )
        key = canonicalize_name(requirement.name)
        if wanted and key not in seen:
            seen[key] = distribution(key)
            closure(key, frozenset(requirement.extras), seen)


def licence(dist: Distribution) -> str:
    """What the package says about its licence, in its most reliable field."""
    for field in ("License-Expression", "Classifier", "License"):
        said = [text for text in dist.metadata.get_all(field) or () if field != "Classifier" or "License ::" in text]
        if said:
            return "; ".join(said)
    return ONLY_IN_A_FILE.get(dist.metadata["Name"], "")


def acceptable(text: str) -> bool:
    """Whether one of the alternatives offered is not copyleft (`EPL-2.0 OR BSD-3-Clause`)."""
    return bool(text) and any(not COPYLEFT.search(choice) for choice in re.split(r"\bOR\b", text))


def problems() -> Iterator[str]:
    """One line per package that must not be here."""
    locked = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE))
    found: dict[str, Distribution] = {}
    try:
        closure("edged", frozenset(ALL_EXTRAS), found)
    except PackageNotFoundError as exc:
        yield f"{exc.name} is not installed"
    for name, dist in sorted(found.items()):
        if name not in locked:
            yield f"{name} is not in requirements.lock: run `make lock`"
        if name not in NEVER_LOADED and not acceptable(licence(dist)):
            yield f"{name} {dist.version} is under {licence(dist)!r}: edged cannot load it"


if __name__ == "__main__":
    bad = list(problems())
    print("\n".join(bad) if bad else "licences: nothing that edged loads is copyleft")
    sys.exit(1 if bad else 0)
