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
from tests.support.powercut_writer import BOOT, CONFIG, POINTS, values

_ROOT = Path(__file__).parents[2]
CUTS = 40 if SOAK else 3

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


def write_until_cut(folder: Path, hold: float) -> int:
    """Let the buffer write for so many seconds, cut the power; returns what it had called durable before.

    What it says after the cut is not counted: nobody would have heard it. (A sync that is just under way may succeed
    then, because the journal that it asks for is gone.)
    """
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.powercut_writer", folder / "buffer.db"],
        cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        told = writer.stdout.readline()
        time.sleep(hold)
        os.set_blocking(writer.stdout.fileno(), False)
        told += writer.stdout.read() or b""
        cut_power(folder)
        writer.kill()
    return int(told[: told.rindex(b"\n")].split(b"\n")[-1])


def format_disk(image: Path) -> None:
    """An empty ext4."""
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)


@pytest.mark.timeout(600 if SOAK else 60)
async def test_what_was_durable_survives_a_power_cut(tmp_path: Path) -> None:
    moments, promised = random.Random(1), 0
    for cut in range(CUTS):
        # Never the same image twice: where another mount namespace still holds its mount, it would come back shut down.
        image, found = tmp_path / f"{cut}.img", tmp_path / f"{cut}-found.img"
        format_disk(image)
        with mounted(image, tmp_path / "disk") as folder:
            durable = write_until_cut(folder, moments.uniform(0.05, 1.5))
        shutil.copy(image, found)
        image.unlink()
        with mounted(found, tmp_path / "found") as folder:
            buffer = Buffer(folder / "buffer.db", CONFIG, ["cloud"], boot=BOOT)
            await buffer.start()
            read, after = [], 0
            while batches := await buffer.read(after, max_readings=5000):
                read += [sample for batch in batches for sample in batch.samples]
                after = batches[-1].last
            verification, stats = await buffer.verify(), buffer.stats()
            await buffer.stop()
        found.unlink()
        promised += durable
        print(f"cut {cut + 1}: {durable} samples durable, {len(read)} found")
        assert not verification.problems
        assert len(read) >= durable > 0
        assert [tuple(sample.values) for sample in read] == [values(n) for n in range(1, len(read) + 1)]
        assert stats.stored == len(read) * len(POINTS)
        assert stats.connections["cloud"].corrupt == 0
    if SOAK:
        keep(
            "power-cut",
            f"The power was cut {CUTS} times, at random moments (EXT4_IOC_SHUTDOWN on a disk of its own). "
            f"{promised:,} samples, one in three with priority, had been called durable, and all were found.",
        )
