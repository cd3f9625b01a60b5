"""A disk that refuses to write: readings go on in memory, and into the file in order when it is back."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.cc import compiled

ROOT = Path(__file__).parents[3]
ERRORS = {"read-only": errno.EROFS, "I/O error": errno.EIO, "full": errno.ENOSPC, "over quota": errno.EDQUOT}


def run_on_a_faulty_disk(folder: Path, error: int, when_full: str, samples: int) -> dict[str, Any]:
    library = compiled(ROOT / "tests/support/faultydisk.c", "-shared", "-fPIC", "-ldl")
    disk, control = folder / "disk", folder / "refuse"
    disk.mkdir()
    environ = {
        **os.environ, "LD_PRELOAD": str(library), "FAULTYDISK": str(control), "FAULTYDISK_UNDER": str(disk),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.faultydisk", disk, control, str(error), when_full, str(samples)],
        env=environ, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_disk_that_refuses_for_a_while_costs_nothing(tmp_path: Path, error: int) -> None:
    report = run_on_a_faulty_disk(tmp_path, error, "drop-oldest", 60)
    assert report["taken"] == 60
    assert report["readable"][:50] == list(range(50))
    assert report["found"] == [*range(110), *range(1000, 1050)]
    assert report["rejected"] == {}
    assert "readings wait in memory" in report["detail"]
    assert (report["alarm"], report["same_epoch"]) == ("", True)


@pytest.mark.parametrize("error", [errno.EROFS, errno.EIO])
def test_when_it_lasts_too_long_the_oldest_in_memory_are_dropped(tmp_path: Path, error: int) -> None:
    report = run_on_a_faulty_disk(tmp_path, error, "drop-oldest", 400)
    assert report["taken"] == 400
    dropped = report["rejected"]["inbox_full"]
    assert 400 * 3 - 300 <= dropped < 400 * 3
    assert dropped % 3 == 0
    assert report["found"] == [*range(50), *range(50 + dropped // 3, 450), *range(1000, 1050)]


def test_when_it_lasts_too_long_new_ones_are_refused_if_so_configured(tmp_path: Path) -> None:
    report = run_on_a_faulty_disk(tmp_path, errno.EROFS, "drop-newest", 400)
    assert report["taken"] == 100
    assert report["rejected"] == {"inbox_full": 900}
    assert report["found"] == [*range(150), *range(1000, 1050)]
