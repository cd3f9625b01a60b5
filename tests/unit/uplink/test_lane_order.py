"""What was a backlog yesterday is none of the live lane's business today."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from edged.buffer.log import Buffer
from edged.buffer.store import open_reader, read_state
from edged.clock import boot_id, mono_us, wall_us
from edged.config.model import BufferConfig, GatewayConfig
from edged.config.types import Duration, Name
from edged.model import Sample
from edged.uplink.api import ConnectionContext, Message, Outcome
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from edged.uplink.forwarder import Forwarder
from tests.support.book import Receiver


class Picky(Receiver):
    """Says nothing of the backlog's messages until it is told to."""

    def __init__(self, *, takes_backlog: bool, strict: bool) -> None:
        super().__init__(strict=strict)
        self._takes_backlog = takes_backlog
        self.up.set()

    async def send(self, message: Message) -> Outcome:
        if not self._takes_backlog and b'"historical"' in message.payload:
            await self.lost()
        return await super().send(message)


def put(buffer: Buffer, number: int, age: float = 0.0, *, priority: bool = False) -> None:
    buffer.count(read=1)
    shift = int(age * 1e6)
    sample = Sample("d", wall_us() - shift, mono_us() - shift, ("n",), [number])
    assert buffer.put_first(sample, at_once=False) if priority else buffer.put(sample)


@asynccontextmanager
async def stopped(path: Path) -> AsyncIterator[Buffer]:
    """The buffer without a forwarder; what was put is stored at the end."""
    buffer = Buffer(path, BufferConfig(flush=Duration(1)), ["cloud"], boot=boot_id())
    await buffer.start()
    yield buffer
    await buffer.flush()
    await buffer.stop()


async def session(
    path: Path, *, takes_backlog: bool, until: int, fresh: int = 0, alarms: int = 0, strict: bool = False
) -> list[dict[str, object]]:
    """One run of buffer and forwarder, until so many messages have come; what they were."""
    buffer = Buffer(path, BufferConfig(flush=Duration(0.05)), ["cloud"], boot=boot_id())
    await buffer.start()
    link = Picky(takes_backlog=takes_backlog, strict=strict)
    config = MqttConnection(connector="mqtt", url="mqtt://nowhere", layout="samples")
    context = ConnectionContext("cloud", GatewayConfig(id=Name("g")), {}, lambda _: "")
    forwarder = Forwarder("cloud", CONNECTOR.encoder(config, context), link, buffer)
    task = asyncio.create_task(forwarder.run())
    while not forwarder.state().connected:
        await asyncio.sleep(0.001)
    for number in range(fresh):
        put(buffer, 100 + number)
    for number in range(2 * alarms):  # each between others, and after those before it have come
        put(buffer, number, priority=number % 2 == 1)
        await buffer.flush()
        while len(link.book.seqs("confirmed")) <= number:
            await asyncio.sleep(0.002)
    async with asyncio.timeout(20):
        while len(link.book.seqs("confirmed")) < until:
            await asyncio.sleep(0.005)
    await buffer.flush()
    task.cancel()
    await asyncio.wait([task])
    await buffer.stop()
    return [one.payload for one in link.book.arrivals()]


async def test_the_live_lane_does_not_go_back_to_what_a_backlog_left(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with stopped(path) as buffer:
        put(buffer, 0, age=60)
        for number in range(1, 8):
            put(buffer, number)  # fresh, but behind one that is not: all of it is backlog
    first = await session(path, takes_backlog=False, until=3, fresh=3)
    assert [(one["lane"], one["seq"]) for one in first] == [("live", 9), ("live", 10), ("live", 11)]
    async with stopped(path) as buffer:
        buffer.settle("cloud", 1, 1, 1, lane="historical", outcome="delivered")  # the one that is old came through
    second = await session(path, takes_backlog=True, until=7)
    assert [(one["lane"], one["seq"]) for one in second] == [("historical", seq) for seq in range(2, 9)]


async def test_what_went_ahead_is_passed_over_in_strict_order_too(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with stopped(path) as buffer:
        for number in range(8):
            put(buffer, number, age=60)  # so many that their lane does not come as far as what has priority
        await buffer.flush()
        for number in (8, 9):
            put(buffer, number, age=60, priority=True)
    first = await session(path, takes_backlog=False, until=2)
    assert [(one["lane"], one["seq"]) for one in first] == [("priority", 9), ("priority", 10)]
    async with stopped(path) as buffer:
        assert buffer.cursor("cloud").ahead == 10
    second = await session(path, takes_backlog=True, until=8, strict=True)
    assert [(one["lane"], one["seq"]) for one in second] == [("live", seq) for seq in range(1, 9)]
    async with stopped(path) as buffer:
        assert (buffer.cursor("cloud").low, buffer.cursor("cloud").islands) == (10, ())


def written_ahead(path: Path) -> int:
    """How many ranges of what was settled ahead are in the file."""
    with closing(open_reader(path)) as db:
        return len(read_state(db)[2].accounts["cloud"].ahead)


async def test_what_is_written_of_alarms_does_not_grow_with_their_number(tmp_path: Path) -> None:
    """Neither while they go ahead of a backlog that does not move, nor when nothing waits."""
    held_up, flowing = tmp_path / "held_up.db", tmp_path / "flowing.db"
    async with stopped(held_up) as buffer:
        put(buffer, 0, age=60)
    await session(held_up, takes_backlog=False, until=20, alarms=10)
    assert written_ahead(held_up) <= 1
    await session(flowing, takes_backlog=True, until=20, alarms=10)
    assert written_ahead(flowing) <= 1


async def test_what_an_older_edged_wrote_of_alarms_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with stopped(path) as buffer:
        for number in range(20):
            put(buffer, number, priority=number % 2 == 1)
            await buffer.flush()
        for seq in range(2, 21, 2):  # each for itself, as if nothing were known of what lies between them
            buffer.settle("cloud", seq, seq, 1, lane="priority", outcome="delivered", ahead_from=seq, in_place=False)
    assert written_ahead(path) == 10
    await session(path, takes_backlog=True, until=10)
    assert written_ahead(path) <= 1


async def test_the_first_message_of_a_run_does_not_name_one_that_was_refused(tmp_path: Path) -> None:
    """For a receiver it would be missing for ever."""
    path = tmp_path / "b.db"
    async with stopped(path) as buffer:
        for number in range(3):
            put(buffer, number)
        await buffer.flush()
        buffer.settle("cloud", 1, 1, 1, lane="live", outcome="delivered")
        buffer.settle("cloud", 2, 2, 1, lane="live", outcome="dead", reason="not-authorized")
    (sent,) = await session(path, takes_backlog=True, until=1)
    assert (sent["lane"], sent["seq"], sent["prev"]) == ("live", 3, 1)


async def test_where_the_live_lane_begins_is_judged_by_the_sample_there(tmp_path: Path) -> None:
    """Not by others in the same row."""
    path = tmp_path / "b.db"
    async with stopped(path) as buffer:
        put(buffer, 0, age=60)
        put(buffer, 1)
        await buffer.flush()
        buffer.settle("cloud", 1, 1, 1, lane="live", outcome="delivered")
    assert [one["lane"] for one in await session(path, takes_backlog=True, until=1)] == ["live"]
