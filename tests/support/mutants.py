"""Breaks the buffer and the forwarder on purpose, one line at a time: `python -m tests.support.mutants [WORD]`.

A test suite that promises "nothing lost" is worth what it notices. Each mutant is a copy of the tree with one mistake
that a person could have made; the tests that guard the way of a reading run against it, and must fail by themselves.
A mutant that nothing notices is printed, and makes the exit code 1. Most are shown first to the tests that noticed them
when they were written, and to the others only if those do not. It takes about ten minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/unit/buffer", "tests/unit/uplink", "tests/system/test_lanes.py", "tests/system/test_clock.py",
    "tests/system/test_mqtt_forwarder.py",
)  # fmt: skip
"""What guards the way of a reading from `put` to its settling, and is quick enough to run for each mutant."""
SECONDS = 400


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake: in `file`, the only place that reads `right` reads `wrong`."""

    file: str
    right: str
    wrong: str
    what: str
    first: str = ""
    """The tests that are to notice it; the others are run only if they do not."""


def mutants() -> list[Mutant]:
    """All there are."""
    entries = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["mutant"]
    return [Mutant(**entry) for entry in entries]


def apply(mutant: Mutant, tree: Path) -> None:
    """Make the mistake. Raises ValueError if the line is not there, or not only once."""
    path = tree / "edged" / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.right) != 1:
        raise ValueError(f"{mutant.file} has {text.count(mutant.right)} times {mutant.right!r}: {mutant.what}")
    path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")


def judge(mutant: Mutant | None) -> str:
    """The first test that fails; empty if none does. Without a mutant: of the tree as it is."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        for name in ("edged", "adapters", "tests", "config", "docs", "systemd"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / name, tree / name)
        if mutant:
            apply(mutant, tree)
        guards = [mutant.first.split()] if mutant and mutant.first else []
        return next(filter(None, (_noticed(tree, tests) for tests in (*guards, TESTS))), "")


def _noticed(tree: Path, tests: Sequence[str]) -> str:
    """The first of these tests that fails there; empty if none does."""
    env = os.environ | {"PYTHONPATH": f"{tree}:{tree / 'adapters'}"}
    workers = "3" if tests == TESTS else "0"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", workers, "--timing", "none", *tests]
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no end within {SECONDS} s"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        return ""
    return failed[1] if failed else done.stdout.strip().splitlines()[-1]


def main() -> int:
    """One line for each; how many lived."""
    if sound := judge(None):
        print(f"without any mistake, {sound} fails")
        return 2
    chosen = [mutant for mutant in mutants() if all(word in f"{mutant.file} {mutant.what}" for word in sys.argv[1:])]
    lived = 0
    for mutant in chosen:
        begun = time.monotonic()
        noticed = judge(mutant)
        lived += not noticed
        print(f"| {mutant.what} | {noticed or '**nothing**'} | {time.monotonic() - begun:.0f} s |", flush=True)
    print(f"{len(chosen) - lived} of {len(chosen)} noticed")
    return 1 if lived else 0


if __name__ == "__main__":
    sys.exit(main())
