"""What was a backlog yesterday is none of the live lane's business today."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edged.buffer.log import Buffer
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
    path: Path, *, takes_backlog: bool, until: int, fresh: int = 0, strict: bool = False
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


async def test_where_the_live_lane_begins_is_judged_by_the_sample_there(tmp_path: Path) -> None:
    """Not by others in the same row."""
    path = tmp_path / "b.db"
    async with stopped(path) as buffer:
        put(buffer, 0, age=60)
        put(buffer, 1)
        await buffer.flush()
        buffer.settle("cloud", 1, 1, 1, lane="live", outcome="delivered")
    assert [one["lane"] for one in await session(path, takes_backlog=True, until=1)] == ["live"]
