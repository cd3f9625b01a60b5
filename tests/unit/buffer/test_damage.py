"""A damaged file never stops the daemon: what can be read is saved, the rest is counted, the file is kept aside."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edged.buffer.log import Buffer
from edged.buffer.store import APPLICATION, FORMAT
from edged.config.model import BufferConfig
from edged.errors import ConfigError, TransientError
from tests.unit.buffer.helpers import BOOT, BY_HAND, adds_up, check, noise, numbers, put, read_all, running, sample

ROWS = 40


async def fill(path: Path) -> str:
    """A file of forty rows of about ten pages each, a few of them settled; returns its epoch."""
    async with running(path) as buffer:
        for n in range(ROWS):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
        buffer.settle("cloud", 1, 5, 5, lane="live", outcome="delivered")
        buffer.settle("cloud", 10, 12, 3, lane="live", outcome="delivered")
        return buffer.epoch


async def read_in_spite_of_damage(buffer: Buffer) -> list[int]:
    """As a forwarder does: when it is told to try again, it does."""
    for _ in range(3):
        try:
            return numbers(await read_all(buffer))
        except TransientError:
            await buffer.flush()
    return numbers(await read_all(buffer))


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "edged.buffer" and r.levelno >= logging.WARNING]


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def scribble(path: Path, at: int, size: int, seed: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(random.Random(seed).randbytes(size))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: cut(path, 0.5),
        lambda path: cut(path, 0.02),
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: scribble(path, 0, 16),
        lambda path: scribble(path, 0, 4096),
        lambda path: scribble(path, 60, 8),
        lambda path: scribble(path, 1024, 20_000),
        lambda path: path.write_bytes(b"SQLite format 3\x00" + bytes(5000)),
        lambda path: path.write_bytes(b"nothing of the kind\n" * 100),
    ],
    ids=["half", "little left", "one byte short", "magic", "first pages", "version", "second page on", "zeros", "text"],
)
async def test_a_file_that_is_found_damaged_is_replaced_and_what_can_be_read_is_saved(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "b.db"
    epoch = await fill(path)
    damage(path)
    async with running(path) as buffer:
        assert buffer.epoch != epoch
        assert buffer.head == ROWS  # its witness remembers, even if the file cannot
        saved = numbers(await read_all(buffer))
        assert saved == sorted(set(saved) & set(range(ROWS)))
        put(buffer, noise(99, 100))
        assert await buffer.flush() == ROWS + 1
        assert numbers(await buffer.read(ROWS)) == [99]
        await check(buffer)
    assert len(errors(caplog)) == 1
    assert "was damaged" in errors(caplog)[0]
    assert len([file for file in tmp_path.iterdir() if ".corrupt-" in file.name]) == 1
    async with running(path) as buffer:
        assert buffer.head == ROWS + 1
        await check(buffer)
    assert len(errors(caplog)) == 1


async def test_half_a_file_still_yields_many_rows(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    await fill(path)
    cut(path, 0.5)
    async with running(path) as buffer:
        assert len(await read_all(buffer)) >= 8


async def test_all_rows_of_a_file_cut_short_by_one_byte_but_the_last_are_saved(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    await fill(path)
    os.truncate(path, path.stat().st_size - 1)
    async with running(path) as buffer:
        saved = numbers(await read_all(buffer))
        assert len(saved) >= ROWS - 8 - 2
        stats = buffer.stats().connections["cloud"]
        assert stats.delivered == 8
        assert stats.corrupt == ROWS - 8 - stats.pending
        await check(buffer)


async def test_random_damage_anywhere_never_keeps_it_from_working(tmp_path: Path) -> None:
    original = tmp_path / "original.db"
    await fill(original)
    for seed in range(25):
        rng = random.Random(seed)
        place = tmp_path / f"case-{seed}"
        place.mkdir()
        path = place / "b.db"
        shutil.copy(original, path)
        shutil.copy(original.with_name("original.db.lock"), path.with_name("b.db.lock"))
        for _ in range(rng.choice([1, 3, 20])):
            scribble(path, rng.randrange(path.stat().st_size - 64), rng.choice([1, 16, 64]), seed)
        async with running(path) as buffer:
            for n in range(100, 110):  # a read may find the damage first, or a write
                put(buffer, noise(n, 20_000))
                await buffer.flush()
            got = await read_in_spite_of_damage(buffer)
            assert got == sorted(set(got)), seed
            lost = 10 - len([n for n in got if n >= 100])  # what was written onto damaged pages
            assert lost <= buffer.stats().connections["cloud"].corrupt, seed
            assert adds_up(buffer.stats()), seed
            buffer.settle("cloud", 1, buffer.head, len(got), lane="live", outcome="delivered")
            await buffer.flush()
            await check(buffer)
        async with running(path) as buffer:
            assert buffer.stats().rows == 0


async def test_a_row_that_fails_its_checksum_is_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "b.db"
    async with running(path, connections=("one", "two")) as buffer:
        for n in range(0, 50, 10):
            put(buffer, *(sample(n + i) for i in range(10)))
            await buffer.flush()
        buffer.settle("two", 13, 16, 12, lane="live", outcome="delivered")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for seq in (20, 40):
            (data,) = db.execute("SELECT data FROM log WHERE seq = ?", (seq,)).fetchone()
            db.execute("UPDATE log SET data = ? WHERE seq = ?", (data[:40] + b"\x00" + data[41:], seq))
    async with running(path, connections=("one", "two")) as buffer:
        assert not (await buffer.verify()).ok
        assert numbers(await read_all(buffer)) == [*range(10), *range(20, 30), *range(40, 50)]
        await buffer.flush()
        assert buffer.cursor("one").islands == ((11, 20), (31, 40))
        stats = buffer.stats().connections
        assert (stats["one"].corrupt, stats["one"].evicted) == (60, 60)
        assert (stats["two"].corrupt, stats["two"].evicted, stats["two"].delivered) == (48, 48, 12)
        await check(buffer)
        assert numbers(await read_all(buffer)) == [*range(10), *range(20, 30), *range(40, 50)]
    assert len(errors(caplog)) == 2


@pytest.mark.parametrize(
    "change",
    [
        "data = (SELECT data FROM log WHERE seq = 30)",
        "readings = readings + 1",
        "skew = skew + 1000000",
        "boot = 'another'",
        "target = '!'",
    ],
)
async def test_a_row_that_decodes_well_but_is_not_the_one_we_wrote_is_not_believed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        for n in range(0, 50, 10):
            put(buffer, *(sample(n + i) for i in range(10)))
            await buffer.flush()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"UPDATE log SET {change} WHERE seq = 20")  # noqa: S608  # the constants above
    async with running(path) as buffer:
        assert numbers(await read_all(buffer)) == [*range(10), *range(20, 50)]
        await buffer.flush()
        assert buffer.stats().connections["cloud"].corrupt == 30


async def test_a_page_found_damaged_while_at_work_is_repaired_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        epoch = buffer.epoch
        for n in range(ROWS):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        scribble(path, 2 * 1024, path.stat().st_size - 60 * 1024)
        for n in range(ROWS, ROWS + 70):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
            if any(".corrupt-" in file.name for file in tmp_path.iterdir()):
                break
        got = await read_in_spite_of_damage(buffer)
        assert got[-1] == n
        assert got == sorted(set(got))
        assert buffer.epoch == epoch
        assert buffer.head == n + 1
        await check(buffer)
        stats = buffer.stats().connections["cloud"]
        assert stats.corrupt == n + 1 - stats.pending


async def test_a_file_that_was_moved_away_while_at_work_is_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        put(buffer, *(sample(n) for n in range(10)))
        await buffer.flush()
        path.rename(tmp_path / "elsewhere.db")
        put(buffer, sample(10))
        assert await buffer.flush() == 11
        assert numbers(await read_all(buffer)) == list(range(11))
        await check(buffer)
    async with running(path) as buffer:
        assert numbers(await read_all(buffer)) == list(range(11))
    assert "moved or deleted" in errors(caplog)[0]


async def test_a_deleted_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        put(buffer, sample(0))
        await buffer.flush()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        put(buffer, sample(1))
        assert await buffer.flush() == 2
    async with running(path) as buffer:
        assert numbers(await read_all(buffer)) == [0, 1]
        await check(buffer)


@pytest.mark.parametrize("damage", ["zeroed", "truncated", "gone", "scribbled"])
async def test_a_lost_journal_begins_a_new_epoch_because_its_numbers_were_in_use(tmp_path: Path, damage: str) -> None:
    path, wal = tmp_path / "b.db", tmp_path / "b.db-wal"
    async with running(path) as buffer:
        epoch = buffer.epoch
        put(buffer, sample(0))
        await buffer.flush()
    live = Buffer(path, BufferConfig(flush=BY_HAND), ["cloud"], boot=BOOT)
    await live.start()
    for n in range(1, 10):
        put(live, sample(n))
        await live.flush()
    kept = {name: (tmp_path / name).read_bytes() for name in ("b.db", "b.db-wal", "b.db.lock")}
    await live.stop()
    for name, content in kept.items():  # in place, so that it is the same file
        (tmp_path / name).write_bytes(content)
    match damage:
        case "zeroed":
            wal.write_bytes(bytes(len(kept["b.db-wal"])))
        case "truncated":
            cut(wal, 0.5)
        case "gone":
            wal.unlink()
        case _:
            scribble(wal, wal.stat().st_size // 3, 100)
    async with running(path) as buffer:
        assert buffer.epoch != epoch
        assert buffer.head == 10
        assert dict(buffer.cursor("cloud").lanes) == {}
        left = numbers(await read_all(buffer))
        assert left == list(range(len(left)))
        put(buffer, sample(10))
        await buffer.flush()
        assert numbers(await buffer.read(10)) == [10]
        await check(buffer)


async def test_a_copy_begins_a_new_epoch_and_the_original_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "b.db"
    epoch = await fill(path)
    shutil.copy(path, tmp_path / "copy.db")
    async with running(tmp_path / "copy.db") as buffer:
        assert buffer.epoch != epoch
        assert (buffer.head, buffer.stats().connections["cloud"].pending) == (ROWS, ROWS - 8)
    async with running(path) as buffer:
        assert buffer.epoch == epoch
    assert len(errors(caplog)) == 1


async def test_an_old_copy_in_the_place_of_the_file_begins_a_new_epoch_and_uses_no_number_twice(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    epoch = await fill(path)
    old = path.read_bytes()
    async with running(path) as buffer:
        put(buffer, sample(ROWS))
        await buffer.flush()
    path.write_bytes(old)
    async with running(path) as buffer:
        assert buffer.epoch != epoch
        put(buffer, sample(ROWS))
        assert await buffer.flush() == ROWS + 2
        await check(buffer)


async def test_a_journal_without_its_file_is_not_applied_to_a_new_one(tmp_path: Path) -> None:
    path, wal = tmp_path / "b.db", tmp_path / "b.db-wal"
    async with running(path) as buffer:
        put(buffer, *(sample(n) for n in range(10)))
        await buffer.flush()
        journal = wal.read_bytes()
    path.unlink()
    wal.write_bytes(journal)
    async with running(path) as buffer:
        put(buffer, sample(1))
        await buffer.flush()
        assert numbers(await read_all(buffer)) == [1]
        await check(buffer)


async def test_a_crash_in_the_middle_of_a_repair_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    await fill(path)
    path.rename(tmp_path / "b.db.new")  # as between the two renames
    async with running(path) as buffer:
        assert len(await read_all(buffer)) == ROWS - 8
        await check(buffer)


async def test_quarantined_files_do_not_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    for _ in range(4):
        await fill(path)
        cut(path, 0.5)
    async with running(path):
        pass
    assert len([file for file in tmp_path.iterdir() if ".corrupt-" in file.name]) == 2


async def test_a_newer_format_is_refused_with_a_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    await fill(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    buffer = Buffer(path, BufferConfig(), ["cloud"], boot=BOOT)
    with pytest.raises(
        ConfigError, match=rf"newer edged \(format {FORMAT + 1}; this one knows {FORMAT}\): update edged"
    ):
        await buffer.start()
    assert [file.name for file in tmp_path.iterdir() if "corrupt" in file.name] == []


async def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    before = path.read_bytes()
    buffer = Buffer(path, BufferConfig(), ["cloud"], boot=BOOT)
    with pytest.raises(ConfigError, match="another program"):
        await buffer.start()
    assert path.read_bytes()[100:] == before[100:]


async def test_an_empty_file_is_a_new_buffer(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    path.touch()
    async with running(path) as buffer:
        put(buffer, sample(1))
        assert await buffer.flush() == 1
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)


@pytest.mark.parametrize("leave", ["nothing", "an empty file"])
async def test_a_file_that_vanished_while_nobody_looked_is_told_of(
    leave: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "b.db"
    epoch = await fill(path)
    path.unlink()
    if leave == "an empty file":
        path.touch()
    async with running(path) as buffer:
        assert buffer.epoch != epoch
    assert len(errors(caplog)) == 1
    assert f"deleted or emptied after seq {ROWS}" in errors(caplog)[0]
    async with running(path):
        pass
    assert len(errors(caplog)) == 1
