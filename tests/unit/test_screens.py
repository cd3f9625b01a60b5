"""The screenshots of the documentation are what the recorded answers look like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_screenshots_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/screens", "--check"], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
