"""`when_full: thin`: a full buffer loses resolution before it loses time, and counts each reading it gives up."""

from __future__ import annotations

import random
from pathlib import Path

from edged.buffer.batch import Batch
from edged.buffer.log import Buffer
from edged.buffer.thin import THINNED
from edged.clock import mono_us
from edged.config.model import BufferConfig
from edged.config.types import Duration, Size
from edged.model import Sample
from tests.unit.buffer.helpers import BY_HAND, adds_up, check, deliver, put, read_all, running

MIB = 2**20
SECOND = 1_000_000
START = 1_795_219_200 * SECOND
WIDTH = 20
POINTS = tuple(f"register {i}" for i in range(WIDTH))
THIN = BufferConfig(flush=BY_HAND, max_bytes=Size(MIB), min_free=Size(0), when_full="thin")


def reading(number: int, rng: random.Random) -> Sample:
    """The values of one second."""
    values = [rng.random() * 100 for _ in POINTS]
    return Sample("meter", START + number * SECOND, mono_us(), POINTS, values)


async def fill(buffer: Buffer, path: Path, seconds: int, begin: int = 0, rows_of: int = 20) -> None:
    rng = random.Random(begin)
    for n in range(begin, begin + seconds):
        assert put(buffer, reading(n, rng)) == 1
        if n % rows_of == rows_of - 1:
            await buffer.flush()
            files = [file for file in path.parent.glob(path.name + "*") if not file.name.endswith(".lock")]
            assert sum(file.stat().st_size for file in files) <= MIB
            assert adds_up(buffer.stats())


def seqs(batches: list[Batch]) -> list[int]:
    return [batch.first + i for batch in batches for i in range(len(batch.samples))]


async def test_the_oldest_is_thinned_before_anything_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, THIN, ("cloud", "late")) as buffer:
        seconds = 0
        while buffer.stats().connections["cloud"].thinned < 50_000:
            await fill(buffer, path, 200, seconds)
            seconds += 200
        stats = buffer.stats()
        assert stats.alarm == "full"
        assert "thinned" in stats.detail
        for account in stats.connections.values():
            assert account.evicted == account.thinned
            assert account.pending == seconds * WIDTH - account.thinned
        await check(buffer)
        batches = await read_all(buffer)
        assert seqs(batches) == list(range(1, seconds + 1))  # every number is still there
        readings = [one for batch in batches for sample in batch.samples for one in sample.readings()]
        assert len(readings) == stats.connections["cloud"].pending
        minutes = {one.time // (60 * SECOND) for one in readings}
        assert len(minutes) >= seconds // 60  # and every minute of every point
        assert readings[0].quality == THINNED
        assert readings[-1].quality.status == "good"


async def test_rows_with_priority_between_the_others_do_not_keep_them_from_being_thinned(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, THIN) as buffer:
        rng, alarms = random.Random(1), 0
        while buffer.stats().connections["cloud"].thinned < 20_000:
            for _ in range(4):
                assert put(buffer, reading(buffer.head, rng)) == 1
            buffer.count(read=1)
            alarms += 1
            assert buffer.put_first(Sample("alarm", START, mono_us(), ("alarm",), [alarms]), at_once=False)
            await buffer.flush()
        account = buffer.stats().connections["cloud"]
        assert account.evicted == account.thinned
        batches = await read_all(buffer)
        assert [one.values[0] for batch in batches if batch.target for one in batch.samples] == list(
            range(1, alarms + 1)
        )
        assert seqs(batches) == list(range(1, buffer.head + 1))
        await check(buffer)


async def test_what_is_thin_already_is_dropped_in_the_end_and_all_adds_up(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    config = BufferConfig(
        flush=BY_HAND, max_bytes=Size(MIB), min_free=Size(0), when_full="thin", thin_interval=Duration(20)
    )
    async with running(path, config) as buffer:
        seconds = 0
        while buffer.stats().connections["cloud"].evicted == buffer.stats().connections["cloud"].thinned:
            await fill(buffer, path, 500, seconds)
            seconds += 500
        stats = buffer.stats().connections["cloud"]
        assert stats.thinned > 0
        await check(buffer)
        left = seqs(await read_all(buffer))
        assert left == list(range(left[0], seconds + 1))
        assert buffer.cursor("cloud").low == left[0] - 1


async def test_counters_are_exact_where_connections_have_settled_different_parts(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, THIN, ("none", "some", "all")) as buffer:
        await fill(buffer, path, 400)
        for first in range(3, 300, 10):
            buffer.settle("some", first, first + 4, 5 * WIDTH, lane="live", outcome="delivered")
        seconds = 400
        while buffer.stats().connections["none"].thinned < 50_000:
            buffer.settle("all", 1, buffer.head, buffer.head * WIDTH, lane="live", outcome="delivered")
            await fill(buffer, path, 200, seconds)
            await check(buffer)
            seconds += 200
        stats = buffer.stats().connections
        assert stats["some"].delivered == 30 * 5 * WIDTH
        assert 0 < stats["some"].thinned < stats["none"].thinned
        # A message that was under way when its readings were thinned: what was given up is not counted twice.
        buffer.settle("none", 1, 400, 400 * WIDTH, lane="live", outcome="delivered")
        await buffer.flush()
        await check(buffer)
        assert 0 < buffer.stats().connections["none"].delivered < 400 * WIDTH
    async with running(path, THIN, ("none", "some", "all")) as buffer:
        await check(buffer)


async def test_reading_on_over_joined_rows_repeats_nothing(tmp_path: Path) -> None:
    """Thinning joins rows; one that was read before must not come again with them."""
    path = tmp_path / "b.db"
    async with running(path, THIN) as buffer:
        await fill(buffer, path, 400)
        (batch,) = await buffer.read(0, max_readings=1)
        after = batch.last
        seconds = 400
        while buffer.stats().connections["cloud"].thinned < 50_000:
            await fill(buffer, path, 200, seconds)
            seconds += 200
        following = await buffer.read(after)
        assert following[0].first == after + 1
        assert following[0].last > after + 20  # it is a joined one
        assert following[0].readings == sum(len(sample.values) for sample in following[0].samples)
        for one in await read_all(buffer):
            deliver(buffer, one)
        await buffer.flush()
        await check(buffer)
        assert buffer.stats().connections["cloud"].pending == 0


async def test_readings_too_far_apart_to_be_thinned_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, THIN) as buffer:
        rng = random.Random(1)
        for n in range(8000):
            put(buffer, reading(n * 60, rng))
            if n % 100 == 99:
                await buffer.flush()
        stats = buffer.stats().connections["cloud"]
        assert stats.evicted > stats.thinned == 0
        await check(buffer)
