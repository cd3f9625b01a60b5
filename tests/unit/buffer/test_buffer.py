from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from edged.buffer.codec import decode_batch
from edged.buffer.log import Buffer
from edged.config.model import BufferConfig
from edged.config.types import Duration
from edged.errors import ConfigError, TransientError
from edged.model import Sample
from tests.unit.buffer.helpers import BOOT, BY_HAND, adds_up, check, deliver, numbers, put, read_all, running, sample


async def test_a_flushed_sample_is_read_back_as_it_was_put(tmp_path: Path) -> None:
    given = [sample(n) for n in range(1, 101)]
    async with running(tmp_path / "b.db") as buffer:
        assert put(buffer, *given) == 100
        assert await buffer.flush() == 100
        batches = await buffer.read(0)
    async with running(tmp_path / "b.db") as buffer:
        again = await buffer.read(0)
    assert [(b.first, b.last, b.readings, b.boot) for b in batches] == [(1, 100, 300, BOOT)]
    assert [(b.first, b.last, b.readings, b.boot) for b in again] == [(1, 100, 300, BOOT)]
    for batch in (*batches, *again):
        for one, two in zip(batch.samples, given, strict=True):
            assert (one.device, one.time, one.mono, one.points) == (two.device, two.time, two.mono, two.points)
            assert list(one.values) == list(two.values)


async def test_a_sample_is_visible_only_once_it_is_durable(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, sample(1))
        assert buffer.head == 0
        assert await buffer.read(0) == []
        assert buffer.stats().waiting == 3
        await buffer.flush()
        assert buffer.head == 1
        assert buffer.stats().waiting == 0
        assert numbers(await buffer.read(0)) == [1]


async def test_the_timer_flushes_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db", BufferConfig(flush=Duration(0.05))) as buffer:
        for n in (1, 2, 3):
            put(buffer, sample(n))
            assert await asyncio.wait_for(buffer.wait_beyond(n - 1), 10) == n


async def test_many_readings_are_flushed_before_the_timer(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db", BufferConfig(flush=BY_HAND, flush_readings=30)) as buffer:
        put(buffer, *(sample(n) for n in range(1, 11)))
        assert await asyncio.wait_for(buffer.wait_beyond(0), 10) == 10


async def test_what_the_file_has_and_nobody_was_told_of_yet_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        put(buffer, *map(sample, range(1, 6)))
        await buffer.flush()
    async with running(path) as buffer:  # anew, so that nothing of it is in memory
        put(buffer, *map(sample, range(6, 11)))
        flushing = asyncio.create_task(buffer.flush())
        for _ in range(2):  # it asks for the flush; the writer gets it
            await asyncio.sleep(0)
        with closing(sqlite3.connect(path)) as looking:
            while looking.execute("SELECT max(seq) FROM log").fetchone() != (10,):
                time.sleep(0.001)  # noqa: ASYNC251  # the writer's word must not be heard before the read is asked for
        assert numbers(await buffer.read(0)) == [1, 2, 3, 4, 5]
        assert await flushing == 10
        assert numbers(await read_all(buffer)) == list(range(1, 11))


async def test_numbers_go_on_after_a_restart_even_if_all_rows_are_gone(tmp_path: Path) -> None:
    epochs = set()
    for start in (0, 10, 20):
        async with running(tmp_path / "b.db") as buffer:
            assert buffer.head == start
            epochs.add(buffer.epoch)
            put(buffer, *(sample(n) for n in range(10)))
            await buffer.flush()
            (batch,) = await buffer.read(start)
            assert (batch.first, batch.last) == (start + 1, start + 10)
            deliver(buffer, batch)
            await buffer.flush()
            await check(buffer)
        assert buffer.stats().rows == 0
    assert len(epochs) == 1
    assert len(epochs.pop()) == 16


async def test_a_page_holds_at_least_one_batch_and_no_more_readings_than_asked(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        for n in range(10):
            put(buffer, *(sample(10 * n + i) for i in range(10)))
            await buffer.flush()
    async with running(tmp_path / "b.db") as cold:
        put(cold, *(sample(100 + i) for i in range(10)))
        await cold.flush()
        for buffer, after in ((cold, 0), (cold, 100)):
            assert [b.first for b in await buffer.read(after, max_readings=1)] == [after + 1]
        assert [b.first for b in await cold.read(0, max_readings=60)] == [1, 11]
        assert [b.first for b in await cold.read(5, max_readings=30)] == [1]
        assert [b.first for b in await cold.read(0, through=11)] == [1, 11]
        assert [b.first for b in await cold.read(100, through=100)] == []
        assert await cold.read(110) == []
        assert numbers(await read_all(cold)) == list(range(110))


async def test_recent_batches_come_from_memory(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        given = sample(1)
        put(buffer, given)
        await buffer.flush()
        assert (await buffer.read(0))[0].samples[0] is given
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("buffer-read")]


async def test_every_reading_is_found_wherever_memory_ends_and_the_disk_begins(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db", BufferConfig(flush=BY_HAND, flush_readings=9)) as buffer:
        for n in range(1, 31):
            put(buffer, sample(n))
            await buffer.flush()
        for after in range(30):
            assert numbers(await buffer.read(after, max_readings=1)) == [after + 1]


async def test_memory_does_not_grow_with_the_backlog(tmp_path: Path) -> None:
    config = BufferConfig(flush=BY_HAND, flush_readings=60)
    async with running(tmp_path / "b.db", config) as buffer:
        for n in range(200):
            put(buffer, *(sample(5 * n + i) for i in range(5)))
            await buffer.flush()
        assert (await buffer.read(0))[0].first == 1
        tail = buffer._tail._batches  # nothing else shows what is kept in memory
        assert sum(batch.readings for batch in tail) <= 2 * config.flush_readings
        assert numbers(await read_all(buffer)) == list(range(1000))


async def test_settles_in_any_order_move_the_cursor_and_count_once(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, *(sample(n) for n in range(1, 31)))
        await buffer.flush()
        for first in (11, 1, 11, 1):
            buffer.settle("cloud", first, first + 4, 15, lane="live", outcome="delivered")
        assert buffer.cursor("cloud").low == 5
        assert buffer.cursor("cloud").islands == ((11, 15),)
        await buffer.flush()
        stats = buffer.stats().connections["cloud"]
        assert (stats.delivered, stats.pending) == (30, 60)
        await check(buffer)
        buffer.settle("cloud", 4, 12, 27, lane="historical", outcome="delivered")  # overlaps both
        await buffer.flush()
        assert buffer.stats().connections["cloud"].delivered == 45
        await check(buffer)
    async with running(tmp_path / "b.db") as buffer:
        state = buffer.cursor("cloud")
        assert (state.low, state.islands, dict(state.lanes)) == (15, (), {"live": 15, "historical": 12})
        assert adds_up(buffer.stats())


async def test_settles_become_durable_together_and_the_forwarder_can_tell(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, *(sample(n) for n in range(1, 11)))
        await buffer.flush()
        put(buffer, sample(11))
        for n in range(1, 11):
            buffer.settle("cloud", n, n, 3, lane="live", outcome="delivered")
        assert buffer.durable("cloud") == 10
        buffer.request_commit()
        await asyncio.wait_for(buffer.saved("cloud", 1), 10)
        assert buffer.durable("cloud") == 0
        assert buffer.stats().connections["cloud"].delivered == 30
        assert buffer.stats().waiting == 3  # the sample waits for its flush: small rows wear out the flash


async def test_settles_that_are_too_scattered_wait_in_memory_and_are_not_lost(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, *(sample(n, 1) for n in range(1, 1001)))
        await buffer.flush()
        for n in range(2, 1001, 2):
            buffer.settle("cloud", n, n, 1, lane="live", outcome="delivered")
        await buffer.flush()
        assert buffer.durable("cloud") == 0  # or they would keep the lane that fills the gaps from going on
        assert buffer.stats().connections["cloud"].delivered == 256
        assert len(buffer.cursor("cloud").islands) == 500
        await check(buffer)
        for n in range(1, 1001, 2):
            buffer.settle("cloud", n, n, 1, lane="live", outcome="delivered")
        await buffer.flush()
        assert buffer.cursor("cloud").low == 1000
        assert buffer.durable("cloud") == 0
        assert buffer.stats().connections["cloud"].delivered == 1000
        await check(buffer)


async def test_a_crash_forgets_no_more_than_256_confirmations_however_scattered_they_are(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, *(sample(n, 1) for n in range(1, 1601)))
        await buffer.flush()
        for begin in range(2, 1601, 200):
            for n in range(begin, begin + 200, 2):
                buffer.settle("cloud", n, n, 1, lane="live", outcome="delivered")
            await buffer.flush()
        assert buffer.stats().connections["cloud"].delivered == 800 - 256
        await check(buffer)


async def test_what_a_connection_cannot_have_settled_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, sample(1))
        with pytest.raises(ValueError, match="last sample is 0"):
            buffer.settle("cloud", 1, 1, 3, lane="live", outcome="delivered")
        await buffer.flush()
        with pytest.raises(KeyError):
            buffer.settle("nobody", 1, 1, 3, lane="live", outcome="delivered")


async def test_a_slow_connection_keeps_what_a_fast_one_has_settled(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db", connections=("fast", "slow")) as buffer:
        put(buffer, *(sample(n) for n in range(1, 11)))
        await buffer.flush()
        deliver(buffer, (await buffer.read(0))[0], "fast")
        await buffer.flush()
        await check(buffer)
    async with running(tmp_path / "b.db", connections=("fast", "slow")) as buffer:
        assert buffer.stats().rows == 1
        deliver(buffer, (await buffer.read(0))[0], "slow")
        await check(buffer)
    assert buffer.stats().rows == 0
    assert adds_up(buffer.stats())


async def test_rows_beyond_a_gap_leave_when_all_have_settled_them(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db", connections=("one", "two")) as buffer:
        for n in range(1, 6):
            put(buffer, sample(n))
            await buffer.flush()
        for connection in ("one", "two"):
            for n in (2, 4, 5):
                buffer.settle(connection, n, n, 3, lane="live", outcome="delivered")
    async with running(tmp_path / "b.db", connections=("one", "two")) as buffer:
        assert buffer.stats().rows == 2
        assert numbers(await read_all(buffer)) == [1, 3]
        await check(buffer)


async def test_a_new_connection_begins_at_the_oldest_row_and_a_removed_one_is_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path / "b.db", connections=("old", "third")) as buffer:
        for n in range(1, 6):
            put(buffer, sample(n))
            await buffer.flush()
        for n in (1, 3):
            for connection in ("old", "third"):
                buffer.settle(connection, n, n, 3, lane="live", outcome="delivered")
    async with running(tmp_path / "b.db", connections=("new", "third")) as buffer:
        assert buffer.cursor("new").low == 1
        assert buffer.cursor("new").islands == ((3, 3),)
        stats = buffer.stats()
        assert stats.connections["new"].stored_for == stats.connections["new"].pending == 9
        assert stats.removed["old"].delivered == 6
        await check(buffer)
        for n in (2, 4, 5):
            for connection in ("new", "third"):
                buffer.settle(connection, n, n, 3, lane="live", outcome="delivered")
        await buffer.flush()
        assert buffer.cursor("new").low == 5
        await check(buffer)
    assert [r.getMessage() for r in caplog.records if "old" in r.getMessage()] == [
        "connection old is no longer configured: 9 readings no longer wait for it"
    ]
    async with running(tmp_path / "b.db", connections=("new", "third")) as buffer:
        assert buffer.stats().removed == {}


async def test_without_connections_rows_stay(tmp_path: Path) -> None:
    for start in (0, 5):
        async with running(tmp_path / "b.db", connections=()) as buffer:
            put(buffer, *(sample(n) for n in range(start, start + 5)))
            await buffer.flush()
            assert numbers(await read_all(buffer)) == list(range(start + 5))
            await check(buffer)


async def test_the_counters_of_the_pipeline_survive_with_the_samples_they_belong_to(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        buffer.count(read=10, suppressed=6, rejected=1, reason="range")
        buffer.put(sample(1))
        stats = buffer.stats()
        assert (stats.read, stats.suppressed, stats.rejected, stats.waiting) == (10, 6, 1, 3)
        assert adds_up(stats)
        await buffer.flush()
        assert adds_up(buffer.stats())
    async with running(tmp_path / "b.db") as buffer:
        stats = buffer.stats()
        assert (stats.read, stats.stored, stats.suppressed, stats.rejected_by) == (10, 3, 6, {"range": 1})
        assert adds_up(stats)


async def test_the_inbox_is_bounded_and_what_it_refuses_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = BufferConfig(flush=BY_HAND, flush_readings=30, inbox_readings=30)
    async with running(tmp_path / "b.db", config) as buffer:
        assert put(buffer, *(sample(n) for n in range(15))) == 10  # no await: nothing can have been written meanwhile
        stats = buffer.stats()
        assert (stats.waiting, stats.rejected_by) == (30, {"inbox_full": 15})
        assert adds_up(stats)
        await buffer.flush()
        assert put(buffer, sample(99)) == 1
        await buffer.flush()
        assert numbers(await read_all(buffer)) == [*range(10), 99]
        await check(buffer)
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


async def test_a_sample_that_cannot_be_stored_is_rejected_and_the_others_are_kept(tmp_path: Path) -> None:
    poison = Sample("m", 1, 1, ("a", "b"), [1, 2**70])
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, sample(1), sample(2), poison, sample(3), sample(4))
        await buffer.flush()
        assert numbers(await read_all(buffer)) == [1, 2, 3, 4]
        assert buffer.stats().rejected_by == {"unencodable": 2}
        await check(buffer)


async def test_dead_letters_are_counted_and_kept_with_their_reason(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, *(sample(n) for n in range(1, 11)))
        await buffer.flush()
        buffer.settle("cloud", 3, 5, 9, lane="live", outcome="dead", reason="too_large", detail="limit 1 kB")
        buffer.settle("cloud", 3, 5, 9, lane="live", outcome="dead", reason="too_large", detail="limit 1 kB")
        await buffer.flush()
        assert buffer.stats().connections["cloud"].dead == 9
        await check(buffer)
    with closing(sqlite3.connect(tmp_path / "b.db")) as db:
        rows = db.execute("SELECT connection, first, last, readings, reason, detail, boot, data FROM dead_letters")
        ((*what, boot, data),) = rows.fetchall()
    assert what == ["cloud", 3, 5, 9, "too_large", "limit 1 kB"]
    assert numbers([decode_batch(data, 3, boot, 9)]) == [3, 4, 5]


async def test_pending_tells_how_much_waits_and_since_when(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        assert asdict(await buffer.pending("cloud")) == {"readings": 0, "samples": 0, "oldest_age": 0.0}
        put(buffer, sample(1, time=1_700_000_000_000_000), sample(2))
        await buffer.flush()
        waiting = await buffer.pending("cloud")
        assert (waiting.readings, waiting.samples) == (6, 2)
        assert waiting.oldest_age > 86_400
        buffer.settle("cloud", 1, 1, 3, lane="live", outcome="delivered")
        await buffer.flush()
        waiting = await buffer.pending("cloud")
        assert (waiting.readings, waiting.samples) == (3, 1)
        assert waiting.oldest_age < 60
    async with running(tmp_path / "b.db") as buffer:
        assert (await buffer.pending("cloud")).samples == 1


async def test_waiting_for_more_ends_when_there_is_more(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        waiter = asyncio.create_task(buffer.wait_beyond(0))
        await asyncio.sleep(0)
        assert not waiter.done()
        put(buffer, sample(1))
        await buffer.flush()
        assert await asyncio.wait_for(waiter, 10) == 1


async def test_stopping_makes_everything_durable(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, *(sample(n) for n in range(5)))
        await buffer.flush()
        deliver(buffer, (await buffer.read(0))[0])
        put(buffer, *(sample(n) for n in range(5, 9)))
    assert not buffer.put(sample(9))
    await buffer.stop()  # a second time is harmless
    with pytest.raises(TransientError):
        await buffer.flush()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.db", "b.db.lock"]  # the journal is in the database
    async with running(tmp_path / "b.db") as buffer:
        assert buffer.cursor("cloud").low == 5
        assert numbers(await read_all(buffer)) == [5, 6, 7, 8]
        await check(buffer)


async def test_one_buffer_serves_one_process(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db"):
        second = Buffer(tmp_path / "b.db", BufferConfig(), ["cloud"], boot=BOOT)
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            await second.start()
    async with running(tmp_path / "b.db"):
        pass


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    buffer = Buffer(tmp_path / "file" / "b.db", BufferConfig(), [], boot=BOOT)
    with pytest.raises(ConfigError, match="cannot be written"):
        await buffer.start()


async def test_missing_directories_are_made(tmp_path: Path) -> None:
    async with running(tmp_path / "state" / "edged" / "b.db"):
        assert (tmp_path / "state" / "edged" / "b.db").exists()


async def test_failed_ends_with_a_proper_stop(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        guard = asyncio.create_task(buffer.failed())
        await asyncio.sleep(0)
        assert not guard.done()
    await asyncio.wait_for(guard, 10)


async def test_an_unexpected_failure_of_the_writer_surfaces(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db", BufferConfig(flush=BY_HAND), ["cloud"], boot=BOOT)
    await buffer.start()
    guard = asyncio.create_task(buffer.failed())
    buffer.put(SimpleNamespace(values=[1]))  # type: ignore[arg-type]  # no sample at all: a bug in our own code
    with pytest.raises(TransientError, match="stopped"):
        await buffer.flush()
    with pytest.raises(AttributeError):
        await asyncio.wait_for(guard, 10)
    await buffer.stop()


async def test_stats_are_plain_json(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, sample(1))
        await buffer.flush()
        stats = buffer.stats()
        assert json.loads(json.dumps(asdict(stats)))["connections"]["cloud"]["pending"] == 3
        assert stats.file_bytes > 0
        assert stats.commits == 1


async def test_counts_alone_do_not_cost_a_write_each_flush(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db", BufferConfig(flush=Duration(0.01))) as buffer:
        put(buffer, sample(1))
        await asyncio.wait_for(buffer.wait_beyond(0), 10)
        commits = buffer.stats().commits
        for _ in range(20):
            buffer.count(read=3, suppressed=3)
            await asyncio.sleep(0.01)
        assert buffer.stats().commits == commits
        assert adds_up(buffer.stats())
        put(buffer, sample(2))  # but they go with the next samples, at once
        await asyncio.wait_for(buffer.wait_beyond(1), 10)
        assert buffer.stats().suppressed == 60
    async with running(tmp_path / "b.db") as buffer:
        assert (buffer.stats().suppressed, buffer.stats().read) == (60, 66)
