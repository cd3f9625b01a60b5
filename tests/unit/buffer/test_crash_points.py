"""The machine stops after any write: what was promised is there, whatever became of what had not been synced."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.support.cc import compiled
from tests.support.crashpoint_writer import CONFIG, PROMISE, number
from tests.support.crashpoints import Disk, Fate, Step, recorded
from tests.support.faultbench import SOAK
from tests.support.faultpage import CRASHED, keep_crash_points
from tests.unit.buffer.helpers import check, noise, put, read_all, running

ROOT = Path(__file__).parents[3]
MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
STEPS, FILL = (40, 100) if SOAK else (8, 0)
FATES: list[Fate] = ["all", "none", "some"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where syncing costs nothing: it is the record that says what is synced."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as name:
        yield Path(name)


def record_of(folder: Path, seed: int) -> list[Step]:
    """All that a buffer at work did to its files."""
    library = compiled(ROOT / "tests/support/recorddisk.c", "-shared", "-fPIC", "-ldl")
    for name in ("work", "kept", "image"):
        (folder / name).mkdir()
    environ = {
        **os.environ, "LD_PRELOAD": str(library), "RECORDDISK": str(folder / "record"),
        "RECORDDISK_UNDER": str(folder / "work"), "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }  # fmt: skip
    arguments = [str(folder / "work"), str(folder / "kept"), str(seed), str(STEPS), str(FILL)]
    command = [sys.executable, "-m", "tests.support.crashpoint_writer", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return list(recorded(folder / "record"))


async def judge(path: Path, promise: dict[str, Any]) -> None:
    """Open what is found; it must hold what was promised, and go on from there."""
    async with running(path, CONFIG) as buffer:
        stats, cursor = buffer.stats(), buffer.cursor("cloud")
        one = stats.connections["cloud"]
        if promise:
            assert stats.epoch == promise["epoch"]
            assert stats.head >= promise["head"]
            assert cursor.low >= promise["low"]
            assert one.delivered >= promise["delivered"]
            assert one.dead >= promise["dead"]
        assert (one.corrupt, stats.lost) == (0, ())
        settled = set(range(1, cursor.low + 1)).union(*(range(a, b + 1) for a, b in cursor.islands))
        found = {
            batch.first + i: number(sample)
            for batch in await read_all(buffer)
            for i, sample in enumerate(batch.samples)
        }
        assert all(seq == n for seq, n in found.items())
        assert found.keys() | settled == set(range(1, stats.head + 1))
        await check(buffer)
        put(buffer, noise(stats.head + 1, 60))
        assert await buffer.flush() == stats.head + 1


@pytest.mark.timeout(1800 if SOAK else 60)
@pytest.mark.parametrize("seed", CRASHED if SOAK else [0])
async def test_no_crash_point_undoes_what_was_promised(folder: Path, seed: int) -> None:
    images, points = await judge_all(folder, seed)
    print(f"{images} images of {points} points")
    if SOAK:
        keep_crash_points(seed, images, points)


async def judge_all(folder: Path, seed: int) -> tuple[int, int]:
    """(Images, points) of one record, all of them judged."""
    steps, chance = record_of(folder, seed), random.Random(seed)
    disk, promise, images, points = Disk(folder / "kept"), {}, 0, 0
    kinds = {step.kind for step in steps}
    assert kinds == set("wtsur"), "the writer does not do all there is to do"
    for position, step in enumerate(steps):
        if step.name == PROMISE:
            promise = json.loads(step.data)
            continue
        disk.do(step)
        if promise.get("filling"):
            continue
        points += 1
        fates = FATES if disk.unsynced() > 1 else FATES[:1]
        for fate in fates if SOAK else [fates[points % len(fates)]]:
            disk.image(folder / "image", fate, chance)
            images += 1
            try:
                await judge(folder / "image" / "b.db", promise)
            except AssertionError as exc:
                exc.add_note(
                    f"step {position} of {len(steps)} ({step.kind} {step.name}), {fate} of what was not synced"
                )
                raise
    return images, points
