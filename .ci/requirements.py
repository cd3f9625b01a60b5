"""Print what one purpose needs, as pip's requirements: `requirements.py run|demo|test|lint`.

pip learnt to read dependency groups in 25.1; Debian 12 has 23.0. The versions come from requirements.lock.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

GROUPS = {"run": ["build"], "demo": ["build"], "test": ["build", "test"], "lint": ["build", "test", "lint"]}


def requirements(purpose: str) -> list[str]:
    """The requirements of the project, its `demo` extra unless only `run` is asked for, and the purpose's groups."""
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    wanted: list[str] = list(pyproject["project"]["dependencies"])
    if purpose != "run":
        wanted += pyproject["project"]["optional-dependencies"]["demo"]
    for group in GROUPS[purpose]:
        wanted += pyproject["dependency-groups"][group]
    return wanted


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1])))
