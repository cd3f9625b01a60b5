"""What a connection does not want any more, and what is kept although nobody waits for it."""

from __future__ import annotations

from pathlib import Path

from edged.buffer import offline, service
from edged.buffer.log import Buffer
from edged.clock import mono_us, wall_us
from edged.config.model import BufferConfig
from edged.config.types import Duration, Size
from edged.model import Sample
from edged.wallclock import UNCERTAIN, Era, KnownTimes
from tests.unit.buffer.helpers import BOOT, BY_HAND, check, deliver, noise, numbers, put, read_all, running, sample

HOUR = 3_600_000_000


def aged(number: int, age: int) -> Sample:
    return Sample("m", wall_us() - age, mono_us() - age, ("a", "b"), [number, 2])


async def test_readings_too_old_for_one_connection_expire_for_that_one_only(tmp_path: Path) -> None:
    path, config = tmp_path / "b.db", BufferConfig(flush=BY_HAND)
    async with running(path, config, ("impatient", "patient")) as buffer:
        for number, age in enumerate((5 * HOUR, 2 * HOUR, HOUR // 2, 0), 1):
            put(buffer, aged(number, age))
            await buffer.flush()
        buffer.settle("impatient", 1, 1, 2, lane="live", outcome="delivered")
    buffer = Buffer(path, config, ["impatient", "patient"], boot=BOOT, max_age={"impatient": 3600.0})
    await buffer.start()
    await buffer.stop()  # what is too old is given up in groups, at the latest at a stop
    stats = buffer.stats().connections
    assert (stats["impatient"].expired, stats["impatient"].pending, stats["impatient"].delivered) == (2, 4, 2)
    assert (stats["patient"].expired, stats["patient"].pending) == (0, 8)
    async with running(path, config, ("impatient", "patient")) as buffer:
        assert buffer.cursor("impatient").low == 2
        assert numbers(await read_all(buffer)) == [1, 2, 3, 4]
        await check(buffer)


async def test_thousands_of_old_rows_expire_at_once(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, BufferConfig(flush=BY_HAND)) as buffer:
        for number in range(1, 2302):
            put(buffer, aged(number, HOUR))
            if number % 20 == 0:
                await buffer.flush()
        buffer.settle("cloud", 5, 7, 6, lane="live", outcome="delivered")
    async with running(path, BufferConfig(flush=BY_HAND, max_age=Duration(60))):
        pass
    async with running(path, BufferConfig(flush=BY_HAND)) as buffer:
        stats = buffer.stats().connections["cloud"]
        assert (stats.expired, stats.delivered, stats.pending) == (2 * 2301 - 6, 6, 0)
        assert buffer.stats().rows == 0
        await check(buffer)


async def test_delivered_readings_stay_as_history_for_as_long_as_configured(tmp_path: Path) -> None:
    path, config = tmp_path / "b.db", BufferConfig(flush=BY_HAND, retention=Duration(3 * 3600))
    async with running(path, config) as buffer:
        for number, age in enumerate((5 * HOUR, 2 * HOUR, 0), 1):
            put(buffer, aged(number, age))
            await buffer.flush()
        for batch in await read_all(buffer):
            deliver(buffer, batch)
    async with running(path, config) as buffer:
        assert buffer.stats().rows == 2
        assert buffer.stats().connections["cloud"].pending == 0
        assert numbers(await read_all(buffer)) == [2, 3]
        await check(buffer)


async def test_expired_readings_are_history_too(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    config = BufferConfig(flush=BY_HAND, retention=Duration(3 * 3600), max_age=Duration(3600))
    async with running(path, config) as buffer:
        put(buffer, aged(1, 2 * HOUR), aged(2, 2 * HOUR))
        await buffer.flush()
    async with running(path, config) as buffer:
        assert buffer.stats().connections["cloud"].expired == 4
        assert numbers(await read_all(buffer)) == [1, 2]
        await check(buffer)


async def test_history_goes_before_anything_that_waits(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    config = BufferConfig(flush=BY_HAND, max_bytes=Size(2**20), min_free=Size(0), retention=Duration(86_400))
    async with running(path, config) as buffer:
        for n in range(100):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
            if n < 90:
                buffer.settle("cloud", 1, buffer.head, buffer.head, lane="live", outcome="delivered")
        stats = buffer.stats()
        assert stats.connections["cloud"].evicted == 0
        assert stats.alarm == ""  # nothing was given up
        assert 25 < stats.rows < 45
        assert numbers(await read_all(buffer))[-10:] == list(range(90, 100))
        await check(buffer)


async def test_without_connections_the_newest_readings_are_kept(tmp_path: Path) -> None:
    config = BufferConfig(flush=BY_HAND, max_bytes=Size(2**20), min_free=Size(0))
    async with running(tmp_path / "b.db", config, ()) as buffer:
        for n in range(100):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
        assert numbers(await read_all(buffer))[-1] == 99
        await check(buffer)
    async with running(tmp_path / "b.db", config, ("new",)) as buffer:
        assert buffer.stats().connections["new"].pending == buffer.stats().readings > 20
        put(buffer, sample(5))
        await buffer.flush()
        await check(buffer)


async def test_what_a_clock_before_1970_has_read_is_not_left_out(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, sample(0, time=-5))
        await buffer.flush()
        assert [one.time async for _, one in service.export(buffer, {})] == [-5]


async def test_an_export_shows_the_times_that_are_known_by_now(tmp_path: Path) -> None:
    """What was read before the clock was set is found at its right time, running or not; else it says what it is."""
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        put(buffer, sample(0, time=60_000_000))  # in 1970
        await buffer.flush()
        mono, now = mono_us(), wall_us()
        known = KnownTimes({BOOT: Era(mono, 0, mono, now - mono, now - mono)})
        put(buffer, sample(1))
        await buffer.flush()
        lately: dict[str, list[str]] = {"from": [str(now - 60_000_000)]}
        found = [(seq, one) async for seq, one in service.export(buffer, lately, known)]
        assert [seq for seq, _ in found] == [1, 2]
        assert now - 60_000_000 < found[0][1].time <= now <= found[1][1].time
        assert not any(one.quality for _, one in found)
        nobody = [one async for _, one in service.export(buffer, {"to": [str(now - 60_000_000)]}, KnownTimes({}))]
        assert [(one.time, set(one.quality.values())) for one in nobody] == [(60_000_000, {UNCERTAIN})]
        assert [one async for _, one in service.export(buffer, {"to": [str(now - 60_000_000)]}, known)] == []
    assert list(offline.export(path, lately, known)) == found
