"""What is saved of a damaged file: every row whose own pages are whole, whatever happened to the others."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edged.buffer.log import Buffer
from edged.buffer.scan import scan_rows, scan_state
from edged.buffer.service import perform
from edged.clock import mono_us, wall_us
from edged.config.model import BufferConfig
from edged.config.types import Duration
from edged.model import Sample
from tests.unit.buffer.helpers import BOOT, BY_HAND, adds_up, check, noise, numbers, put, read_all, running, sample

ROWS = 300
PAGE = 1024


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of many rows, some of one page and some of several, a part of them delivered and deleted."""
    path = tmp_path_factory.mktemp("original") / "b.db"

    async def fill() -> None:
        async with running(path) as buffer:
            for n in range(ROWS):
                put(buffer, noise(n, (100, 700, 3000, 9000)[n % 4]))
                await buffer.flush()
            buffer.settle("cloud", 1, 40, 40, lane="live", outcome="delivered")
            buffer.settle("cloud", 101, 110, 10, lane="live", outcome="delivered")

    asyncio.run(fill())
    return path


def copy(original: Path, folder: Path) -> Path:
    """In place of a file of that name, as a damaged disk would leave it: with its lock, and of the same inode."""
    path = folder / "b.db"
    for suffix in ("", ".lock"):
        shutil.copy(original.with_name("b.db" + suffix), path.with_name("b.db" + suffix))
    return path


WAITING = [n for n in range(ROWS) if n >= 40 and not 100 <= n < 110]


def pages(path: Path, kind: int) -> list[int]:
    """The pages of one kind, by their offset: 5 is an inner page of a table, 13 a leaf."""
    content = path.read_bytes()
    return [at for at in range(PAGE, len(content), PAGE) if content[at] == kind]


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def zero(path: Path, at: int, size: int = PAGE) -> None:
    overwrite(path, at, bytes(size))


async def saved(path: Path) -> list[int]:
    async with running(path) as buffer:
        found = numbers(await read_all(buffer))
        assert found == sorted(set(found))
        await check(buffer)
        put(buffer, sample(1))
        await buffer.flush()
        return found


async def test_a_destroyed_inner_page_costs_nothing(original: Path, tmp_path: Path) -> None:
    path = copy(original, tmp_path)
    inner = pages(path, 5)
    assert inner
    for at in inner:
        zero(path, at)
    assert await saved(path) == WAITING


async def test_a_destroyed_first_page_costs_no_row_that_waits(original: Path, tmp_path: Path) -> None:
    path = copy(original, tmp_path)
    zero(path, 100, PAGE - 100)
    found = await saved(path)
    assert set(found) >= set(WAITING)
    (tmp_path / "other").mkdir()
    path = copy(original, tmp_path / "other")
    zero(path, 0)
    assert set(await saved(path)) >= set(WAITING)


async def test_counters_and_cursors_are_found_without_the_tree(original: Path, tmp_path: Path) -> None:
    path = copy(original, tmp_path)
    zero(path, 0)
    ledger = scan_state(path)
    assert ledger is not None
    assert (ledger.head, ledger.accounts["cloud"].delivered) == (ROWS, 50)
    async with running(path) as buffer:
        stats = buffer.stats().connections["cloud"]
        assert (stats.delivered, stats.pending, stats.corrupt) == (50, ROWS - 50, 0)
        assert numbers(await read_all(buffer))[-1] == ROWS - 1


async def test_each_destroyed_leaf_costs_its_own_rows_only_and_they_are_named(
    original: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = {row[0] for row in scan_rows(original)}
    assert {number - 1 for number in whole} >= set(WAITING)
    path = copy(original, tmp_path)
    rng = random.Random(5)
    for at in rng.sample(pages(path, 13), 5) + pages(path, 5):
        zero(path, at)
    left = {row[0] - 1 for row in scan_rows(path)}
    found = await saved(path)
    assert len(found) < len(WAITING)
    assert set(found) <= set(WAITING)
    assert set(found) >= left & set(WAITING)
    lost = sorted(set(WAITING) - set(found))
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    async with running(path) as buffer:
        ranges = buffer.stats().lost
    named = [n - 1 for first, last in ranges for n in range(first, last + 1)]
    assert [n for n in named if n in WAITING] == lost
    assert f"{ranges[0][0]}-{ranges[0][1]}" in line


def _truncate(share: float) -> Callable[[Path, random.Random], None]:
    return lambda path, _rng: os.truncate(path, int(path.stat().st_size * share))


def _pages(count: int) -> Callable[[Path, random.Random], None]:
    def damage(path: Path, rng: random.Random) -> None:
        for _ in range(count):
            overwrite(path, rng.randrange(path.stat().st_size // PAGE) * PAGE, rng.randbytes(PAGE))

    return damage


def _bytes(count: int) -> Callable[[Path, random.Random], None]:
    def damage(path: Path, rng: random.Random) -> None:
        for _ in range(count):
            overwrite(path, rng.randrange(path.stat().st_size), rng.randbytes(1))

    return damage


@pytest.mark.parametrize(
    "damage",
    [_truncate(0.9), _truncate(0.3), _truncate(0.01), _pages(1), _pages(20), _pages(400), _bytes(5), _bytes(500)],
    ids=["cut to 90 %", "30 %", "1 %", "a page", "20 pages", "400 pages", "5 bytes", "500 bytes"],
)
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_the_damage_all_rows_that_are_whole_are_saved(
    original: Path, tmp_path: Path, damage: Callable[[Path, random.Random], None], seed: int
) -> None:
    path = copy(original, tmp_path)
    damage(path, random.Random(seed))
    whole = {row[0] - 1 for row in scan_rows(path)}
    async with running(path) as buffer:
        await buffer.flush()
        for _ in range(3):  # damage may be found by reading only
            if (await buffer.verify()).ok:
                break
            await buffer.rewrite("test")
        found = numbers(await read_all(buffer))
        assert found == sorted(set(found))
        assert set(found) >= whole & set(WAITING)
        assert adds_up(buffer.stats())
        await check(buffer)


async def test_what_is_only_in_the_journal_is_saved_too(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    buffer = Buffer(path, BufferConfig(flush=BY_HAND), ["cloud"], boot=BOOT)
    await buffer.start()
    for n in range(30):
        put(buffer, noise(n, 3000))
        await buffer.flush()
    kept = {name: (tmp_path / name).read_bytes() for name in ("b.db", "b.db-wal", "b.db.lock")}
    await buffer.stop()
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
    assert len(kept["b.db-wal"]) > 30 * 3000 > len(kept["b.db"])
    zero(path, 0, min(PAGE, len(kept["b.db"])))
    assert {row[0] for row in scan_rows(path)} == set(range(1, 31))


async def test_rows_that_were_deleted_do_not_come_back(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        for n in range(100):
            put(buffer, noise(n, 3000))
            await buffer.flush()
        buffer.settle("cloud", 1, 60, 60, lane="live", outcome="delivered")
    assert {row[0] for row in scan_rows(path)} == set(range(61, 101))


async def test_a_thinned_or_replayed_row_is_found_by_its_pages_too(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    config = BufferConfig(flush=BY_HAND, retention=Duration(10**6))
    async with running(path, config) as buffer:
        put(buffer, *(Sample("d", wall_us(), mono_us(), (), ()) for _ in range(3)), sample(1))
        await buffer.flush()
        buffer.settle("cloud", 1, 4, 3, lane="live", outcome="dead", reason="refused")
        await buffer.flush()
        await perform(buffer, "retry", {})
    rows = {row[0]: row for row in scan_rows(path)}
    assert rows[8][9] == "cloud"
