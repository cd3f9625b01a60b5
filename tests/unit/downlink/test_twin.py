"""The twin: last reported and desired values, over restarts, and changes of monitored points."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edged.config.base import DeviceConfig, PointConfig
from edged.config.types import Name
from edged.downlink.api import Change
from edged.downlink.store import Desired, Store
from edged.model import GOOD, Quality, Sample, Value, bad
from edged.twin import KeptTwin

PLAIN, WATCHED = PointConfig(), PointConfig(monitor=True)
DEVICES = {"d": DeviceConfig(bus=Name("b"), points={Name("x"): PLAIN, Name("y"): WATCHED, Name("z"): PLAIN})}


def sample(time: int, quality: dict[int, Quality] | None = None, **values: Value) -> Sample:
    return Sample("d", time, time, tuple(values), tuple(values.values()), quality or {})


@asynccontextmanager
async def kept(folder: Path) -> AsyncIterator[KeptTwin]:
    store = Store(folder / "commands.db")
    await store.open()
    twin = KeptTwin(DEVICES, store)
    tasks = [asyncio.create_task(store.run()), asyncio.create_task(twin.run())]
    try:
        yield twin
        await twin.save()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await store.close()


async def test_the_newest_of_each_point_counts_whatever_the_shape_of_its_sample(tmp_path: Path) -> None:
    async with kept(tmp_path) as twin:
        for time in range(1, 100):
            twin.take(sample(time, x=time, y=-time))
            twin.take(Sample("d", time, time, ("xyz"[time % 3],), (1000 + time,)))
        known = await twin.device("d")
        assert {point: one.reported.value for point, one in known.items() if one.reported} == {
            "x": 1099, "y": -99, "z": 1098
        }  # fmt: skip


async def test_a_bad_reading_leaves_the_value_and_says_that_it_is_bad(tmp_path: Path) -> None:
    async with kept(tmp_path) as twin:
        twin.take(sample(1, x=5))
        twin.take(sample(2, {0: bad("timeout")}, x=None))
        reported = (await twin.device("d"))["x"].reported
        assert reported is not None
        assert (reported.value, reported.time, str(reported.quality)) == (5, 1, "bad(timeout)")
        twin.take(sample(3, x=6))
        reported = (await twin.device("d"))["x"].reported
        assert reported is not None
        assert (reported.value, reported.time, reported.quality) == (6, 3, GOOD)


async def test_after_a_restart_values_are_there_and_called_stale(tmp_path: Path) -> None:
    async with kept(tmp_path) as twin:
        twin.take(sample(1, x=5, y=6))
    async with kept(tmp_path) as twin:
        twin.take(sample(9, {0: bad("timeout")}, y=None))
        known = await twin.device("d")
        reported = {point: (one.reported.value, one.reported.time, str(one.reported.quality))
                    for point, one in known.items() if one.reported}  # fmt: skip
        assert reported == {"x": (5, 1, "uncertain(stale)"), "y": (6, 1, "bad(timeout)")}


async def test_what_was_desired_is_kept_and_points_that_are_gone_are_not(tmp_path: Path) -> None:
    async with kept(tmp_path) as twin:
        twin.desire(Desired("d", "x", 7, 3))
        twin.take(sample(1, x=5, gone=1))
        known = await twin.device("d")
        assert known.keys() == {"x"}
        assert known["x"].desired is not None
        assert known["x"].desired.value == 7
        assert not await twin.device("nobody")


async def test_changes_come_once_each_and_the_newest_where_nobody_takes_them(tmp_path: Path) -> None:
    seen: list[Change] = []

    async def watch(twin: KeptTwin) -> None:
        changes = twin.changes()
        while True:
            seen.append(await anext(changes))

    async with kept(tmp_path) as twin:
        watcher = asyncio.create_task(watch(twin))
        await asyncio.sleep(0)
        for time, value in enumerate([1, 1, 2, 2], 1):
            twin.take(sample(time, x=time, y=value))
            await asyncio.sleep(0.001)
        for time in range(10, 1000):
            twin.take(sample(time, y=time))
        twin.take(sample(1000, {0: bad("timeout")}, y=None))
        await asyncio.sleep(0.01)
        watcher.cancel()
        await asyncio.wait([watcher])
    assert [(one.point, one.now.value, str(one.now.quality)) for one in seen] == [
        ("y", 1, "good"), ("y", 2, "good"), ("y", None, "bad(timeout)"),
    ]  # fmt: skip
