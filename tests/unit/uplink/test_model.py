"""Any order of readings, faults of disk and receiver, requests and restarts: nothing lost that is not counted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.cc import compiled

MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
ROOT = Path(__file__).parents[3]


def test_buffer_and_forwarder_agree_with_a_list_in_memory(tmp_path: Path) -> None:
    library = compiled(ROOT / "tests/support/faultydisk.c", "-shared", "-fPIC", "-ldl")
    disk = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path))
    environ = {
        **os.environ, "LD_PRELOAD": str(library), "FAULTYDISK": str(tmp_path / "refuse"),
        "FAULTYDISK_UNDER": str(disk), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.model", "50"],
            env=environ, capture_output=True, text=True, timeout=55, check=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(disk)
    assert done.returncode == 0, done.stderr[-5000:]
