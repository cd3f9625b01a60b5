"""What a person asks of the buffer: send again, forget, repair, make small. The counters add up through all of it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edged.buffer import offline, service
from edged.buffer.log import Buffer
from edged.config.model import BufferConfig
from edged.config.types import Duration, Size
from edged.errors import ConfigError, PermanentError, TransientError
from edged.model import Sample
from tests.unit.buffer.helpers import BY_HAND, check, deliver, noise, numbers, put, read_all, running, sample

HISTORY = BufferConfig(flush=BY_HAND, retention=Duration(86_400 * 365))
BOTH = ("cloud", "local")
T0 = 1_795_219_200_000_000
SECOND = 1_000_000


async def ask(buffer: Buffer, action: str, **options: Sequence[object]) -> dict[str, Any]:
    found = await service.perform(buffer, action, {name: [str(one) for one in many] for name, many in options.items()})
    await check(buffer)
    return found


async def fill(buffer: Buffer, count: int, connection: str = "") -> None:
    """One row a sample, one second after the other, all settled for that connection."""
    for n in range(count):
        put(buffer, sample(n, time=T0 + n * SECOND))
        await buffer.flush()
    if connection:
        for batch in await read_all(buffer):
            deliver(buffer, batch, connection)
        await buffer.flush()


async def test_refused_readings_are_listed_and_sent_again_to_their_connection_only(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db", connections=BOTH) as buffer:
        await fill(buffer, 10)
        buffer.settle("cloud", 1, 3, 9, lane="live", outcome="dead", reason="too_large", detail="refused: x")
        buffer.settle("cloud", 4, 10, 21, lane="live", outcome="delivered")
        buffer.settle("local", 1, 10, 30, lane="live", outcome="delivered")
        await buffer.flush()
        (letter,) = (await ask(buffer, "letters"))["letters"]
        assert (letter["connection"], letter["first"], letter["last"], letter["readings"]) == ("cloud", 1, 3, 9)
        assert (letter["reason"], letter["detail"]) == ("too_large", "refused: x")
        assert (await ask(buffer, "letters", connection=["local"]))["letters"] == []
        for action in ("retry", "purge"):
            told = await ask(buffer, action, id=[99, letter["id"] + 1])
            assert (told["letters"], told["skipped"]) == (0, {"`edged buffer dead list` shows no such number": 2})
        assert await ask(buffer, "retry", id=[letter["id"]]) == {"letters": 1, "readings": 9, "skipped": {}}
        stats = buffer.stats()
        assert (stats.stored, stats.head) == (30, 13)
        cloud, local = stats.connections["cloud"], stats.connections["local"]
        assert (cloud.stored_for, cloud.delivered, cloud.dead, cloud.pending) == (30, 21, 0, 9)
        assert (local.stored_for, local.delivered, local.pending) == (30, 30, 0)
        assert buffer.cursor("local").low == 13
        (batch,) = await buffer.read(10)
        assert (batch.first, batch.last, numbers([batch]), batch.replay) == (11, 13, [0, 1, 2], True)
        deliver(buffer, batch)
        await buffer.flush()
        assert buffer.stats().connections["cloud"].delivered == 30
        assert (await ask(buffer, "letters"))["letters"] == []


async def test_letters_survive_a_restart_between_refusal_and_retry_and_can_be_refused_again(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        await fill(buffer, 5)
        buffer.settle("cloud", 1, 5, 15, lane="live", outcome="dead", reason="refused")
    async with running(path) as buffer:
        assert (await ask(buffer, "retry"))["readings"] == 15
    async with running(path) as buffer:
        (batch,) = await read_all(buffer)
        assert batch.replay
        buffer.settle("cloud", batch.first, batch.last, batch.readings, lane="live", outcome="dead", reason="again")
        await buffer.flush()
        (letter,) = (await ask(buffer, "letters"))["letters"]
        assert (letter["reason"], letter["readings"]) == ("again", 15)
        assert await ask(buffer, "purge", connection=["cloud"]) == {"letters": 1, "skipped": {}}
        assert buffer.stats().connections["cloud"].dead == 15
        assert (await ask(buffer, "letters"))["letters"] == []


async def test_the_letters_of_a_connection_are_those_of_its_flows_and_a_wrong_name_is_told(tmp_path: Path) -> None:
    path, places = tmp_path / "b.db", ("cloud/hot", "cloud/all", "cloudy")
    async with running(path, connections=places) as buffer:
        await fill(buffer, 1)
        for place in places:
            buffer.settle(place, 1, 1, 3, lane="live", outcome="dead", reason="refused")
        await buffer.flush()
        for name, count in (("", 3), ("cloud", 2), ("cloud/all", 1), ("cloudy", 1)):
            assert len((await ask(buffer, "letters", connection=[name]))["letters"]) == count
        for action in ("letters", "retry", "purge"):
            with pytest.raises(ConfigError, match=r"knows no connection 'clod'; it has cloud/all, cloud/hot, cloudy"):
                await ask(buffer, action, connection=["clod"])
        assert (await ask(buffer, "retry", connection=["cloud"]))["letters"] == 2
        assert (await ask(buffer, "purge", connection=["cloudy"]))["letters"] == 1
    assert offline.look(path, "letters", {"connection": ["cloud"]}) == {"letters": []}
    with pytest.raises(ConfigError, match="knows no connection 'clod'"):
        offline.look(path, "letters", {"connection": ["clod"]})


@pytest.mark.parametrize("moment", ["99999999999999999999999", "-99999999999999999999999", "1e9", "now"])
async def test_a_time_that_is_none_is_told(tmp_path: Path, moment: str) -> None:
    async with running(tmp_path / "b.db") as buffer:
        for name in ("from", "to"):
            with pytest.raises(ConfigError, match="microseconds since 1970"):
                await service.perform(buffer, "replay", {"connection": ["cloud"], name: [moment]})
            with pytest.raises(ConfigError, match="microseconds since 1970"):
                _ = [one async for one in service.export(buffer, {name: [moment]})]


async def test_letters_of_a_connection_that_is_gone_stay(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        await fill(buffer, 1)
        buffer.settle("cloud", 1, 1, 3, lane="live", outcome="dead", reason="refused")
    async with running(path, connections=("other",)) as buffer:
        found = await ask(buffer, "retry")
        assert found["skipped"] == {"connection cloud is no longer configured": 1}
        assert len((await ask(buffer, "letters"))["letters"]) == 1


async def test_a_past_time_is_sent_again_to_one_connection(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db", HISTORY, BOTH) as buffer:
        await fill(buffer, 20, "cloud")
        options: dict[str, list[object]] = {"connection": ["cloud"], "from": [T0 + 5 * SECOND]}
        options["to"] = [T0 + 15 * SECOND]
        assert await ask(buffer, "replay", **options) == {"readings": 30, "rows": 10}
        again = await buffer.read(20)
        assert numbers(again) == list(range(5, 15))
        assert all(batch.replay for batch in again)
        stats = buffer.stats().connections
        assert (stats["cloud"].stored_for, stats["cloud"].delivered, stats["cloud"].pending) == (90, 60, 30)
        assert (stats["local"].stored_for, stats["local"].pending) == (60, 60)
        for batch in again:
            deliver(buffer, batch)
        found = await ask(buffer, "replay", connection=["local"], begin=[T0])
        assert found["readings"] == 0  # all of it waits for local anyway
        assert (await ask(buffer, "replay", **options, device=["meter-1"]))["readings"] == 3 * 3
    async with running(tmp_path / "b.db", HISTORY, (*BOTH, "new")) as buffer:
        assert buffer.stats().connections["new"].pending == 60  # not what was put back for cloud
        await check(buffer)


async def test_a_replay_that_has_no_room_is_refused_as_a_whole(tmp_path: Path) -> None:
    config = BufferConfig(flush=BY_HAND, retention=Duration(10**6), max_bytes=Size(2**20), min_free=Size(0))
    async with running(tmp_path / "b.db", config) as buffer:
        for n in range(30):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
            buffer.settle("cloud", 1, n + 1, n + 1, lane="live", outcome="delivered")
        await buffer.flush()
        with pytest.raises(PermanentError, match=r"no room for 0\.[0-9] MiB"):
            await service.perform(buffer, "replay", {"connection": ["cloud"]})
        assert buffer.stats().connections["cloud"].pending == 0
        await check(buffer)


async def test_what_is_asked_wrongly_is_said(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db", HISTORY, ["cloud"], boot="x")
    with pytest.raises(TransientError, match="stopped"):
        await service.perform(buffer, "vacuum", {})
    async with running(tmp_path / "b.db", HISTORY) as buffer:
        with pytest.raises(ConfigError, match="no connection 'clout'; it has cloud"):
            await service.perform(buffer, "replay", {"connection": ["clout"]})
        with pytest.raises(ConfigError, match="microseconds"):
            await service.perform(buffer, "replay", {"connection": ["cloud"], "from": ["yesterday"]})
        with pytest.raises(ConfigError, match="number"):
            await service.perform(buffer, "retry", {"id": ["one"]})


async def test_vacuum_gives_the_free_space_back_and_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, connections=BOTH) as buffer:
        for n in range(200):
            put(buffer, noise(n, 20_000))
            await buffer.flush()
        buffer.settle("cloud", 1, 2, 2, lane="live", outcome="dead", reason="refused")
        for name in BOTH:
            buffer.settle(name, 3, 190, 188, lane="live", outcome="delivered")
        await buffer.flush()
    async with running(path, connections=BOTH) as buffer:
        epoch, head = buffer.epoch, buffer.head
        found = await ask(buffer, "vacuum")
        assert found["after"] < found["before"] // 4
        assert (buffer.epoch, buffer.head) == (epoch, head)
        assert numbers(await read_all(buffer)) == [0, 1, *range(190, 200)]
        assert len((await ask(buffer, "letters"))["letters"]) == 1
        put(buffer, sample(200))
        assert await buffer.flush() == 201
        await check(buffer)
    assert not [file for file in tmp_path.iterdir() if "corrupt" in file.name]


async def test_vacuum_of_a_full_buffer_loses_nothing(tmp_path: Path) -> None:
    config = BufferConfig(flush=BY_HAND, max_bytes=Size(2**20), min_free=Size(0))
    async with running(tmp_path / "b.db", config) as buffer:
        for n in range(600):
            put(buffer, noise(n, (300, 3000, 20_000)[n % 3]))
            await buffer.flush()
        assert buffer.stats().alarm == "full"
        before = numbers(await read_all(buffer))
        await ask(buffer, "vacuum")
        assert numbers(await read_all(buffer)) == before
        for n in range(600, 630):
            put(buffer, noise(n, 3000))
            await buffer.flush()
        await check(buffer)


async def test_vacuum_needs_free_disk(tmp_path: Path) -> None:
    config = BufferConfig(flush=BY_HAND, min_free=Size(2**60))
    async with running(tmp_path / "b.db", config) as buffer:
        with pytest.raises(TransientError, match="MiB of free disk"):
            await service.perform(buffer, "vacuum", {})


async def test_repair_leaves_a_sound_file_and_mends_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        await fill(buffer, 10)
        assert (await ask(buffer, "repair"))["found"] == []
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE log SET data = x'00' WHERE seq = 4")
    assert offline.look(path, "verify", {})["problems"] == ["samples 4 to 4 are damaged"]
    async with running(path) as buffer:
        found = await ask(buffer, "repair")
        assert (found["ok"], found["found"]) == (True, ["samples 4 to 4 are damaged"])
        assert buffer.stats().connections["cloud"].corrupt == 3
        assert numbers(await read_all(buffer)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


async def test_export_gives_all_readings_once_in_order(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, HISTORY) as buffer:
        await fill(buffer, 120, "cloud")
        await service.perform(buffer, "replay", {"connection": ["cloud"]})
        exported = [seq async for seq, _ in service.export(buffer, {})]
        assert exported == list(range(1, 121))
        part = {"from": [str(T0 + 50 * SECOND)], "to": [str(T0 + 60 * SECOND)], "device": ["meter-2"]}
        assert [seq async for seq, _ in service.export(buffer, part)] == [51, 55, 59]
    assert [seq for seq, _ in offline.export(path, part)] == [51, 55, 59]
    assert [seq for seq, _ in offline.export(path, {})] == exported


async def test_a_stopped_buffer_is_looked_at_without_changing_it(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, HISTORY, BOTH) as buffer:
        await fill(buffer, 10, "cloud")
        live = await service.perform(buffer, "verify", {})
    before = path.read_bytes()
    assert offline.look(path, "verify", {}) == live
    stats = offline.look(path, "stats", {})
    assert stats["connections"]["cloud"]["delivered"] == 30
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="there is no buffer"):
        offline.look(tmp_path / "nothing.db", "stats", {})
    (tmp_path / "text").write_text("no database" * 1000)
    with pytest.raises(TransientError, match="cannot be read"):
        offline.look(tmp_path / "text", "stats", {})


async def test_a_file_of_the_first_format_is_looked_at_as_it_is(tmp_path: Path) -> None:
    kept = Path(__file__).parents[2] / "cases" / "buffer" / "format-1.db"
    path = tmp_path / kept.name  # even looking puts files beside a database in WAL mode
    shutil.copy2(kept, path)
    assert offline.look(path, "verify", {})["ok"]
    assert len(list(offline.export(path, {}))) == 25
    assert len(offline.look(path, "letters", {})["letters"]) == 1


async def test_without_a_list_of_connections_those_in_the_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, HISTORY, BOTH) as buffer:
        await fill(buffer, 3)
    buffer = Buffer(path, HISTORY, None, boot="x")
    await buffer.start()
    assert set(buffer.stats().connections) == set(BOTH)
    await buffer.stop()
    async with running(path, HISTORY, BOTH) as buffer:
        assert buffer.stats().connections["local"].pending == 9


def test_an_aged_sample_is_chosen_by_its_own_time() -> None:
    one = Sample("d", 5, 5, ("a",), [1])
    assert service.choice({"from": ["5"], "to": ["6"]}).takes(one)
    assert not service.choice({"from": ["0"], "to": ["5"]}).takes(one)
    assert not service.choice({}).takes(Sample("d", 5, 5, (), []))


async def test_connections_come_and_go_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path, connections=BOTH) as buffer:
        await fill(buffer, 4)
        buffer.settle("cloud", 1, 2, 6, lane="live", outcome="delivered")
        buffer.settle("local", 1, 4, 12, lane="live", outcome="delivered")
        await buffer.serve(("cloud", "new"), {})
        assert buffer.cursor("cloud").low == 2
        assert buffer.cursor("new").low == 0
        with pytest.raises(KeyError):
            buffer.cursor("local")
        buffer.settle("new", 1, 4, 12, lane="live", outcome="delivered")
        await buffer.flush()
        stats = buffer.stats().connections
        assert {name: (one.stored_for, one.delivered, one.pending) for name, one in stats.items()} == {
            "cloud": (12, 6, 6), "new": (12, 12, 0),
        }  # fmt: skip
        assert (await buffer.verify()).ok
    async with running(path, connections=("cloud", "new")) as buffer:
        assert (buffer.cursor("cloud").low, buffer.cursor("new").low) == (2, 4)
