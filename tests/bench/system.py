"""What only a booted machine shows: `make system-test` leaves its figures, and the table of the bench shows them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LINES = ROOT / ".build/system.jsonl"
UNIT = ROOT / "systemd/edged.service"


def figures(lines: Path = LINES, unit: Path = UNIT) -> dict[str, Any]:
    """The newest of each, and `on`, the day of the newest; those that there are.

    The exposure needs no booted machine where systemd-analyze can look at a file.
    """
    found: dict[str, Any] = {}
    if lines.exists():
        for line in lines.read_text("utf-8").splitlines():
            record = json.loads(line)
            found |= {key: value for key, value in record.items() if key not in ("name", "quick")}
    if "at" in found:
        found["on"] = f"{datetime.fromtimestamp(found.pop('at'), UTC):%Y-%m-%d}"
    exposure = _exposure(unit)
    return found if exposure is None else found | {"exposure": exposure}


def _exposure(unit: Path) -> float | None:
    """By `systemd-analyze security`, 0 to 10; None where that cannot look at a file (systemd before 250)."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return None
    command = [program, "security", "--offline=true", "--no-pager", str(unit)]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    return float(level[1]) if level else None
