"""Print what one purpose needs, as pip's requirements: `requirements.py run|demo|test|lint`.

pip learnt to read dependency groups in 25.1; Debian 12 has 23.0. The versions come from requirements.lock.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

GROUPS = {"run": ["build"], "demo": ["build"], "test": ["build", "test"], "lint": ["build", "test", "lint"]}


EXTRAS = {
    "run": [],
    "demo": ["demo"],
    "test": ["demo", "meters", "ble-decoders", "sunspec"],
    "lint": ["demo", "meters", "ble-decoders", "sunspec"],
}


def requirements(purpose: str) -> list[str]:
    """The requirements of the project, and the purpose's extras and groups."""
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    wanted: list[str] = list(pyproject["project"]["dependencies"])
    for extra in EXTRAS[purpose]:
        wanted += pyproject["project"]["optional-dependencies"][extra]
    for group in GROUPS[purpose]:
        wanted += pyproject["dependency-groups"][group]
    return wanted


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1])))
