"""The power fails while the buffer writes: its ext4, on a disk of its own, is shut down in mid-air.

EXT4_IOC_SHUTDOWN without flushing the journal leaves on the disk what was there at that moment, as a power cut does:
pages and journal entries that were only in memory are gone. What the buffer had called durable by then must be there
when the disk is mounted again. (A disk that lies about its own cache is not simulated.)
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edged.buffer.log import Buffer
from tests.support.faultbench import SOAK
from tests.support.faultpage import keep
from tests.support.powercut import cut_power
from tests.support.powercut_sync import SIZE, record
from tests.support.powercut_writer import BOOT, CONFIG, POINTS, values

_ROOT = Path(__file__).parents[2]
CUTS = 40 if SOAK else 3
_AFTERWARDS = 0.05
"""Seconds after the cut for which the writer may go on to make promises."""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a disk"),
    pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="there is no mkfs.ext4: sudo apt install e2fsprogs"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="the kernel has no loop devices"),
]


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """The disk, as long as the block lasts."""
    folder.mkdir(exist_ok=True)
    mount = subprocess.run(["mount", "-o", "loop,noatime", image, folder], check=False, capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"an ext4 cannot be mounted here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def write_until_cut(writer: str, folder: Path, hold: float) -> tuple[int, int]:
    """Let a program write for so many seconds, cut the power; what it had promised by then, and what in the end.

    Only what was promised before the cut began counts. A sync that is under way then may succeed without having done
    its work, as `test_what_the_kernel_called_durable_survives_a_power_cut` shows without a buffer.
    """
    log = folder.with_suffix(".log")
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", f"tests.support.{writer}", folder / "written"],
            cwd=_ROOT, stdout=told, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    with process:
        while not log.stat().st_size:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(hold)
        begun = cut_power(folder)
        time.sleep(_AFTERWARDS)
        process.kill()
    promises = [tuple(map(int, line.split())) for line in log.read_bytes().split(b"\n")[:-1]]
    return max((n for n, at in promises if at < begun), default=0), promises[-1][0]


def format_disk(image: Path) -> None:
    """An empty ext4."""
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)


@contextmanager
def after_a_cut(folder: Path, writer: str, hold: float) -> Iterator[tuple[Path, int, int]]:
    """The file on the disk as it is found, and how much of it was promised: before the cut, and in all."""
    # Never the same image twice: where another mount namespace still holds its mount, it would come back shut down.
    image, found = folder / "disk.img", folder / "found.img"
    format_disk(image)
    with mounted(image, folder / "disk") as disk:
        promised, told = write_until_cut(writer, disk, hold)
    shutil.copy(image, found)
    image.unlink()
    with mounted(found, folder / "found") as disk:
        yield disk / "written", promised, told
    found.unlink()


@pytest.mark.timeout(600 if SOAK else 60)
def test_what_the_kernel_called_durable_survives_a_power_cut(tmp_path: Path) -> None:
    """The measure for the buffer: no database, only write and fdatasync. Whatever fails here fails there, too.

    Measured with the same in C on Linux 6.18: of 99,472 syncs that returned before the ioctl began none was undone. Of
    those under way at that moment 7 in 215 cuts returned 0, some of them after the ioctl had, and the record was not
    there: their transaction was gone when they came to wait for it. (With EXT4_GOING_FLAGS_LOGFLUSH 2 in 60, with
    EXT4_GOING_FLAGS_DEFAULT 0 in 40; where old blocks are overwritten, which needs no journal, 0 in 75.)
    """
    moments, promised, lied = random.Random(2), 0, 0
    for _ in range(CUTS):
        with after_a_cut(tmp_path, "powercut_sync", moments.uniform(0.02, 0.5)) as (path, before, told):
            data = path.read_bytes() if path.exists() else b""
        whole = 0
        while data[whole * SIZE : (whole + 1) * SIZE] == record(whole + 1):
            whole += 1
        assert whole >= before
        promised += before
        lied += told > whole
    print(f"{promised} syncs before {CUTS} cuts, {lied} false ones during the cut")
    if SOAK:
        keep(
            "sync",
            f"The same {CUTS} times with nothing but `write` and `fdatasync`: {promised:,} syncs had returned when the "
            "cut began, and all that they stood for was found. Of those under way at that moment the kernel called "
            f"{lied} done although nothing was there. (How often depends on the load.) That can "
            "befall a flush of the buffer, too, in the milliseconds in which the power fails, and nobody hears of it.",
        )


@pytest.mark.timeout(600 if SOAK else 60)
async def test_what_was_durable_survives_a_power_cut(tmp_path: Path) -> None:
    moments, promised = random.Random(1), 0
    for cut in range(CUTS):
        with after_a_cut(tmp_path, "powercut_writer", moments.uniform(0.05, 1.5)) as (path, durable, told):
            buffer = Buffer(path, CONFIG, ["cloud"], boot=BOOT)
            await buffer.start()
            read, after = [], 0
            while batches := await buffer.read(after, max_readings=5000):
                read += [sample for batch in batches for sample in batch.samples]
                after = batches[-1].last
            verification, stats = await buffer.verify(), buffer.stats()
            await buffer.stop()
        promised += durable
        print(f"cut {cut + 1}: {durable} samples durable, {told} told in the end, {len(read)} found")
        assert not verification.problems
        assert len(read) >= durable > 0
        assert [tuple(sample.values) for sample in read] == [values(n) for n in range(1, len(read) + 1)]
        assert stats.stored == len(read) * len(POINTS)
        assert stats.connections["cloud"].corrupt == 0
    if SOAK:
        keep(
            "power-cut",
            f"The power was cut {CUTS} times, at random moments (EXT4_IOC_SHUTDOWN on a disk of its own). "
            f"{promised:,} samples, one in three with priority, had been called durable when a cut began, and all were "
            "found.",
        )
