"""Print what one purpose needs, with the hashes of requirements.lock: `requirements.py run|demo|test|lint`.

pip learnt to read dependency groups in 25.1; Debian 12 has 23.0. Needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
GROUPS = {"run": ["build"], "demo": ["build"], "test": ["build", "test"], "lint": ["build", "test", "lint"]}
ALL_EXTRAS = ["demo", "meters", "ble-decoders", "sunspec", "codecs"]
EXTRAS = {"run": [], "demo": ["demo"], "test": ALL_EXTRAS, "lint": ALL_EXTRAS}
_ENTRY = re.compile(r"^([a-z0-9.-]+)==.*(?:\n .*)*", re.MULTILINE)
_VIA = re.compile(r"^    # (?:via |  )([A-Za-z0-9._-]+)", re.MULTILINE)


def requirements(purpose: str) -> list[str]:
    """The requirements of the project, and the purpose's extras and groups."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted: list[str] = list(pyproject["project"]["dependencies"])
    for extra in EXTRAS[purpose]:
        wanted += pyproject["project"]["optional-dependencies"][extra]
    for group in GROUPS[purpose]:
        wanted += pyproject["dependency-groups"][group]
    return wanted


def entries() -> dict[str, str]:
    """Package → what the lock says of it: version, hashes, and in comments who needs it."""
    text = (ROOT / "requirements.lock").read_text("utf-8")
    return {match[1]: match[0] for match in _ENTRY.finditer(text)}


def pinned(wanted: list[str]) -> list[str]:
    """These requirements and all that they need, as the lock has them."""
    lock = entries()
    roots = {re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", one)[0]).lower() for one in wanted}
    if missing := sorted(roots - lock.keys()):
        print(f"{', '.join(missing)}: not in requirements.lock, so nothing is checked: make lock", file=sys.stderr)
        return [*wanted, *(entry.partition(" ")[0] for name, entry in lock.items() if name not in roots)]
    needed_by = {name: set(_VIA.findall(entry)) for name, entry in lock.items()}
    found: set[str] = set()
    while roots - found:
        found |= roots
        roots = {name for name, parents in needed_by.items() if parents & found}
    return [lock[name] for name in sorted(found)]


if __name__ == "__main__":
    print("\n".join(pinned(requirements(sys.argv[1]))))
