"""Killed, or out of disk, at any moment: there is a whole backup or none, and a gateway that is old or new."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backups import FILES, content, site
from tests.support.cc import compiled

ROOT = Path(__file__).parents[3]


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory: what is killed here is a process, not the power, so nobody needs to wait for a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:  # noqa: S108  # made safely
        yield Path(name)


def test_killed_at_many_points(quick: Path) -> None:
    tmp_path = quick
    one = site(tmp_path / "gateway")
    one.backup(tmp_path / "backups", secrets=True)
    shutil.copytree(one.folder, tmp_path / "later")
    main = tmp_path / "later/etc/edged.yaml"
    main.write_text(FILES["edged.yaml"] + "control: {watch: 2m}\n")
    (tmp_path / "later/etc/conf.d/later.yaml").write_text("devices: {}\n")
    (tmp_path / "later/state/history/000002.json").write_text("{}")
    (tmp_path / "later/state/clock.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killpoints", tmp_path], cwd=ROOT, capture_output=True, text=True,
        timeout=55, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert sum(found["creating"].values()) > 10
    assert sum(found["restoring"].values()) > 15
    assert set(found["restoring"]) == {"old", "new"}, "the points lie on both sides of the moment that decides"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=["full", "I/O error", "read-only"])
def test_a_disk_that_refuses_leaves_no_backup_and_says_so(tmp_path: Path, error: int) -> None:
    one = site(tmp_path / "gateway")
    before = content(one)
    target, control = tmp_path / "target", tmp_path / "refuse"
    target.mkdir()
    control.write_text(str(error))
    library = compiled(ROOT / "tests/support/faultydisk.c", "-shared", "-fPIC", "-ldl")
    environ = {
        **os.environ, "LD_PRELOAD": str(library), "FAULTYDISK": str(control), "FAULTYDISK_UNDER": str(target),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "edged", "backup", "create", str(target), "--config", str(one.main), "--state",
        str(one.state), "--socket", str(tmp_path / "none.sock"),
    ]  # fmt: skip
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode in {1, 2}, done.stderr
    assert done.stderr.startswith("edged: ")
    assert len(done.stderr.splitlines()) == 1
    assert str(target) in done.stderr or "cannot be copied" in done.stderr
    assert not list(target.iterdir())
    assert content(one) == before
    control.unlink()
    again = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert again.returncode == 0, again.stderr
