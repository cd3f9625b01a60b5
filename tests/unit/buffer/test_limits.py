"""What the buffer gives up when it may not grow: exactly as configured, exactly counted, and said once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edged.buffer.log import Buffer
from edged.clock import mono_us, wall_us
from edged.config.model import BufferConfig
from edged.config.types import Duration, Size
from edged.model import Sample
from tests.unit.buffer.helpers import (
    BOOT,
    BY_HAND,
    adds_up,
    check,
    deliver,
    noise,
    numbers,
    put,
    read_all,
    running,
    sample,
)

MIB = 2**20


def disk_use(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(path.name + "*") if not file.name.endswith(".lock"))


def levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records if record.name == "edged.buffer"]


async def _try_flush(buffer: Buffer) -> None:
    """Flush, but do not wait for a disk that refuses."""
    flushing = asyncio.ensure_future(buffer.flush())
    while not flushing.done() and buffer.stats().alarm != "failing":
        await asyncio.sleep(0.01)
    if not flushing.done():
        flushing.cancel()


@pytest.mark.parametrize("size", [MIB, 3 * MIB])
@pytest.mark.parametrize("row", [300, 20_000])
async def test_the_file_never_grows_past_max_bytes_and_the_oldest_go(tmp_path: Path, size: int, row: int) -> None:
    path, config = tmp_path / "b.db", BufferConfig(flush=BY_HAND, max_bytes=Size(size), min_free=Size(0))
    async with running(path, config) as buffer:
        n = 0
        while n * row < 2 * size:
            for _ in range(1 + 20_000 // row):
                put(buffer, noise(n, row))
                n += 1
            await buffer.flush()
            assert disk_use(path) <= size
            assert adds_up(buffer.stats())
        await check(buffer)
        stats = buffer.stats()
        evicted = stats.connections["cloud"].evicted
        assert 0.4 * n < evicted < 0.8 * n
        assert numbers(await read_all(buffer)) == list(range(evicted, n))
        assert buffer.cursor("cloud").low == evicted
        assert (stats.alarm, stats.rejected) == ("full", 0)
    assert disk_use(path) <= size


async def test_being_full_is_said_once_and_so_is_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = BufferConfig(flush=BY_HAND, max_bytes=Size(MIB), min_free=Size(0))
    async with running(tmp_path / "b.db", config) as buffer:
        for n in range(100):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
        assert levels(caplog) == [logging.WARNING]
        assert "the oldest readings are dropped" in caplog.text
        assert "max_bytes" in buffer.stats().detail
        for batch in await read_all(buffer):
            deliver(buffer, batch)
        await buffer.flush()
        assert levels(caplog) == [logging.WARNING, logging.INFO]
        assert buffer.stats().alarm == buffer.stats().detail == ""
        await check(buffer)


async def test_eviction_counts_exactly_what_each_connection_had_not_settled(tmp_path: Path) -> None:
    config = BufferConfig(flush=BY_HAND, max_bytes=Size(MIB), min_free=Size(0))
    async with running(tmp_path / "b.db", config, ("none", "some", "ahead", "all")) as buffer:
        put(buffer, *(noise(n, 2000) for n in range(10)))
        await buffer.flush()
        buffer.settle("some", 1, 2, 2, lane="live", outcome="delivered")
        buffer.settle("some", 5, 7, 3, lane="live", outcome="delivered")
        buffer.settle("ahead", 8, 10, 3, lane="live", outcome="delivered")
        for n in range(10, 100):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
            buffer.settle("all", 1, buffer.head, buffer.head, lane="live", outcome="delivered")
            await check(buffer)
        evicted = buffer.stats().connections["none"].evicted
        assert evicted >= 10
        assert buffer.stats().connections["some"].evicted == evicted - 5
        assert buffer.stats().connections["ahead"].evicted == evicted - 3
        assert buffer.stats().connections["all"].evicted == 0


async def test_a_message_confirmed_after_its_eviction_is_not_counted_twice(tmp_path: Path) -> None:
    config = BufferConfig(flush=BY_HAND, max_bytes=Size(MIB), min_free=Size(0))
    async with running(tmp_path / "b.db", config) as buffer:
        for n in range(100):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
        before = buffer.stats().connections["cloud"]
        buffer.settle("cloud", 1, 3, 3, lane="live", outcome="delivered")
        await buffer.flush()
        after = buffer.stats().connections["cloud"]
        assert (after.delivered, after.evicted) == (0, before.evicted)
        await check(buffer)


async def test_drop_newest_refuses_and_counts_until_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "b.db"
    config = BufferConfig(flush=BY_HAND, max_bytes=Size(MIB), min_free=Size(0), when_full="drop-newest")
    async with running(path, config) as buffer:
        for n in range(100):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
            assert disk_use(path) <= MIB
        stats = buffer.stats()
        assert stats.connections["cloud"].evicted == 0
        assert stats.rejected_by == {"buffer_full": 100 - stats.stored}
        assert numbers(await read_all(buffer)) == list(range(stats.stored))
        await check(buffer)
        assert not buffer.put(noise(1, 10))
        for batch in (await read_all(buffer))[:20]:
            deliver(buffer, batch)
        await buffer.flush()
        assert put(buffer, noise(100, 20_000)) == 1
        await buffer.flush()
        assert numbers(await read_all(buffer))[-1] == 100
        assert levels(caplog) == [logging.WARNING, logging.INFO]


async def test_a_sample_larger_than_the_buffer_takes_is_rejected_alone(tmp_path: Path) -> None:
    config = BufferConfig(flush=BY_HAND, max_bytes=Size(MIB), min_free=Size(0))
    async with running(tmp_path / "b.db", config) as buffer:
        put(buffer, noise(1, 100), noise(2, 200_000), noise(3, 100))
        await buffer.flush()
        assert numbers(await read_all(buffer)) == [1, 3]
        assert buffer.stats().rejected_by == {"too_large": 1}
        await check(buffer)


async def test_a_disk_below_min_free_is_not_filled_further(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        for n in range(30):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
    size = path.stat().st_size
    config = BufferConfig(flush=BY_HAND, min_free=Size(2**60))  # more than any disk has
    async with running(path, config) as buffer:
        for n in range(30, 90):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
            assert path.stat().st_size <= size
            assert disk_use(path) <= size + 200_000  # the journal holds one transaction, not many
        stats = buffer.stats()
        assert stats.alarm == "full"
        assert "min_free" in stats.detail
        assert stats.connections["cloud"].evicted > 50
        assert numbers(await read_all(buffer))[-1] == 89
        await check(buffer)


async def test_that_there_is_no_room_for_dead_letters_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        put(buffer, *(noise(n, 20_000) for n in range(20)))
        await buffer.flush()
    async with running(path, BufferConfig(flush=BY_HAND, min_free=Size(2**60))) as buffer:
        for n in range(1, 6):
            buffer.settle("cloud", n, n, 1, lane="live", outcome="dead", reason="refused")
            await buffer.flush()
        assert buffer.stats().connections["cloud"].dead == 5
        assert await buffer.letters() == []
        await check(buffer)
    assert caplog.text.count("no room to keep") == 1


async def test_readings_older_than_max_age_expire_by_the_monotonic_clock_of_this_boot(tmp_path: Path) -> None:
    hour = 3_600_000_000
    wrong = 1_000_000  # a wall clock that was never set: 1970
    config = BufferConfig(flush=BY_HAND, max_age=Duration(3600))
    async with running(tmp_path / "b.db", config) as buffer:
        for age in (5 * hour, 2 * hour, hour // 2, 0):
            put(buffer, Sample("m", wrong, mono_us() - age, ("a", "b"), [1, 2]))
            await buffer.flush()
    async with running(tmp_path / "b.db", config) as buffer:
        stats = buffer.stats()
        assert stats.connections["cloud"].expired == 4
        assert stats.connections["cloud"].pending == 4
        assert buffer.cursor("cloud").low == 2
        await check(buffer)


async def test_what_became_too_old_while_the_gateway_was_off_is_not_there_when_it_starts(tmp_path: Path) -> None:
    hour = 3_600_000_000
    async with running(tmp_path / "b.db", BufferConfig(flush=BY_HAND)) as buffer:
        for age in (5 * hour, 2 * hour, hour // 2):
            put(buffer, Sample("m", wall_us() - age, mono_us() - age, ("a", "b"), [1, 2]))
            await buffer.flush()
    async with running(tmp_path / "b.db", BufferConfig(flush=BY_HAND, max_age=Duration(3600))) as buffer:
        stats = buffer.stats().connections["cloud"]
        assert (stats.expired, stats.pending, buffer.cursor("cloud").low) == (4, 2, 2)
        assert [batch.first for batch in await buffer.read(buffer.cursor("cloud").low)] == [3]


async def test_rows_of_an_earlier_boot_expire_by_wall_clock_unless_it_was_not_set(tmp_path: Path) -> None:
    day = 86_400_000_000
    config = BufferConfig(flush=BY_HAND, max_age=Duration(86_400))
    async with running(tmp_path / "b.db", BufferConfig(flush=BY_HAND)) as buffer:
        for time in (wall_us() - 3 * day, wall_us() - 2 * day, 1_000_000, wall_us() - 2 * day):
            put(buffer, Sample("m", time, mono_us(), ("a",), [1]))
            await buffer.flush()
    async with running(tmp_path / "b.db", config, boot="another boot"):
        pass
    async with running(tmp_path / "b.db", config, boot="another boot") as buffer:
        assert buffer.stats().connections["cloud"].expired == 2  # the one from 1970 holds the rest: its age is unknown
        await check(buffer)


async def test_a_program_that_keeps_the_file_open_for_reading_cannot_make_it_outgrow_its_limit(tmp_path: Path) -> None:
    path, config = tmp_path / "b.db", BufferConfig(flush=BY_HAND, max_bytes=Size(MIB), min_free=Size(0))
    async with running(path, config) as buffer:
        put(buffer, sample(1))
        await buffer.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM log").fetchall()
            n = 1
            while buffer.stats().alarm != "failing" and n < 50:
                n += 1
                put(buffer, noise(n, 20_000))
                await _try_flush(buffer)
                assert disk_use(path) <= MIB
            assert "another program" in buffer.stats().detail
            waiting = buffer.stats().waiting
            assert waiting > 0
        await buffer.flush()
        assert buffer.stats().alarm == ""
        assert numbers(await read_all(buffer)) == list(range(1, n + 1))
        await check(buffer)


async def test_a_lowered_limit_makes_the_file_smaller_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, BufferConfig(flush=BY_HAND, max_bytes=Size(8 * MIB))) as buffer:
        epoch = buffer.epoch
        for n in range(200):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
    assert path.stat().st_size > 3 * MIB
    async with running(path, BufferConfig(flush=BY_HAND, max_bytes=Size(2 * MIB), min_free=Size(0))) as buffer:
        assert disk_use(path) <= 2 * MIB
        left = numbers(await read_all(buffer))
        assert left == list(range(200 - len(left), 200))
        assert 40 < len(left) < 120
        assert buffer.stats().connections["cloud"].evicted == 200 - len(left)
        assert (buffer.epoch, buffer.head) == (epoch, 200)
        await check(buffer)
    assert [file.name for file in tmp_path.iterdir() if "corrupt" in file.name] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    if os.system(f"mount -t tmpfs -o size=4m tmpfs {place} 2>/dev/null"):  # noqa: S605  # our own path
        pytest.skip("this container may not mount")
    yield place
    os.system(f"umount -l {place}")  # noqa: S605  # our own path


def fill(disk: Path, leave: int = 0) -> Path:
    """Leave only so many bytes; returns the file to delete for more."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(file.tell() - leave)
    return ballast


async def test_a_full_disk_costs_nothing_but_memory_and_heals(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = BufferConfig(flush=Duration(0.02), min_free=Size(0), inbox_readings=1000, flush_readings=1000)
    async with running(small_disk / "b.db", config) as buffer:
        put(buffer, sample(0))
        await buffer.flush()
        ballast = fill(small_disk, leave=2**19)
        n = 0
        while buffer.stats().alarm != "failing" and n < 300:
            n += 1
            put(buffer, noise(n, 20_000))
            await _try_flush(buffer)
        assert buffer.stats().alarm == "failing"
        assert buffer.stats().waiting > 0
        assert adds_up(buffer.stats())
        ballast.unlink()
        await buffer.flush()
        assert buffer.stats().alarm == ""
        assert numbers(await read_all(buffer)) == list(range(n + 1))
        await check(buffer)
    assert levels(caplog) == [logging.WARNING, logging.INFO]


async def test_when_memory_is_full_too_the_oldest_are_dropped_and_counted(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = BufferConfig(flush=Duration(0.02), min_free=Size(0), inbox_readings=60, flush_readings=60)
    async with running(small_disk / "b.db", config) as buffer:
        put(buffer, sample(0))
        await buffer.flush()
        ballast = fill(small_disk)
        for n in range(1, 400):
            assert put(buffer, noise(n, 3000)) == 1  # polling never meets a closed door
            await _try_flush(buffer)
            assert adds_up(buffer.stats())
            assert buffer.stats().waiting <= 60
            async with asyncio.timeout(30):
                while n % 20 == 0 and buffer.stats().waiting > 45:  # until the oldest have made room
                    await asyncio.sleep(0.005)
        dropped = buffer.stats().rejected_by["inbox_full"]
        assert dropped >= 399 - 60
        ballast.unlink()
        await buffer.flush()
        assert numbers(await read_all(buffer)) == [0, *range(dropped + 1, 400)]
        assert buffer.stats().rejected_by == {"inbox_full": dropped}
        await check(buffer)
    assert caplog.text.count("the oldest are dropped") == 1


async def test_when_memory_is_full_too_new_readings_are_refused_if_so_configured(small_disk: Path) -> None:
    config = BufferConfig(
        flush=Duration(0.02), min_free=Size(0), inbox_readings=60, flush_readings=60, when_full="drop-newest"
    )
    async with running(small_disk / "b.db", config) as buffer:
        put(buffer, sample(0))
        await buffer.flush()
        ballast = fill(small_disk)
        taken = 0
        for n in range(1, 400):
            taken += put(buffer, noise(n, 3000))
            await _try_flush(buffer)
        stats = buffer.stats()
        assert stats.rejected_by == {"inbox_full": 399 - taken}
        assert stats.waiting == 60
        assert adds_up(stats)
        ballast.unlink()
        await buffer.flush()
        assert numbers(await read_all(buffer)) == list(range(taken + 1))
        await check(buffer)


async def test_a_missing_disk_at_start_is_said(tmp_path: Path) -> None:
    buffer = Buffer(Path("/proc/edged/b.db"), BufferConfig(), [], boot=BOOT)
    with pytest.raises(Exception, match="cannot be written"):
        await buffer.start()


async def test_what_grew_too_old_while_away_goes_with_the_first_commit_where_the_start_could_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, crashed = tmp_path / "b.db", tmp_path / "crashed.db"
    async with running(path, BufferConfig(flush=BY_HAND, max_bytes=Size(2**20))) as buffer:
        for n in range(3):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    with closing(sqlite3.connect(crashed, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchone()
        config = BufferConfig(flush=BY_HAND, max_bytes=Size(2**20), max_age=Duration(0.001))
        async with running(crashed, config) as buffer:
            assert buffer.stats().connections["cloud"].expired == 0
            assert "what has become too old is given up with the next commit" in caplog.text
            reader.execute("ROLLBACK")
            put(buffer, sample(3))
            await buffer.flush()
            assert buffer.stats().connections["cloud"].expired == 3
            await check(buffer)
