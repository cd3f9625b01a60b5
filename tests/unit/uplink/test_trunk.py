"""One session for all flows of a connection: who dials, who speaks, and what happens when that one leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

import pytest

from edged.errors import TransientError
from edged.uplink.api import DELIVERED, Message, Outcome, Pacing, Verdict
from edged.uplink.trunk import Branch, Trunk

MESSAGE = Message("t", b"x")


class Wire:
    """A receiver that answers as told."""

    window = 8
    pacing = Pacing(retry_max=7.0)

    def __init__(self) -> None:
        self.down = False
        self.dialled = 0
        self.closed = 0
        self.told: list[str] = []
        self.served = 0
        self._cut: asyncio.Event = asyncio.Event()
        self.in_flight = self.most = 0

    async def connect(self, epoch: str) -> str:
        self.dialled += 1
        await asyncio.sleep(0.01)
        if self.down:
            raise TransientError("nobody there", reason="refused")
        self._cut = asyncio.Event()
        return f"session {epoch}"

    def cut(self) -> None:
        self._cut.set()

    def fits(self, message: Message) -> bool:
        return len(message.payload) < 10

    async def send(self, message: Message) -> Outcome:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await asyncio.sleep(0.01)
        self.in_flight -= 1
        self.told.append(message.topic)
        return DELIVERED

    async def announce(self) -> None:
        self.told.append("announced")

    async def report(self) -> None:
        self.told.append("reported")

    async def serve(self, slot: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self.served += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.served -= 1

    async def lost(self) -> str:
        await self._cut.wait()
        return "cut"

    async def close(self) -> None:
        self.closed += 1


def trunk_with(count: int) -> tuple[Wire, Trunk, list[Branch]]:
    wire = Wire()
    trunk = Trunk("cloud", wire, lambda: 5)
    return wire, trunk, [Branch(trunk, f"flow {i} to cloud", strict=False) for i in range(count)]


async def test_all_take_part_in_one_session_that_the_last_one_closes() -> None:
    wire, trunk, branches = trunk_with(3)
    assert await asyncio.gather(*(branch.connect("e") for branch in branches)) == ["session e"] * 3
    assert wire.dialled == 1
    assert trunk.opened
    for branch in branches:
        await branch.announce()
        await branch.report()
    assert wire.told == ["announced", "reported"]
    await branches[0].close()
    await branches[2].close()
    assert (await branches[0].send(MESSAGE)).verdict is Verdict.RETRY
    assert (await branches[1].send(MESSAGE)) is DELIVERED
    assert not wire.closed
    await branches[1].close()
    await branches[1].close()
    assert (wire.closed, trunk.opened) == (1, 0)


async def test_an_attempt_that_fails_is_one_attempt_and_told_once() -> None:
    wire, _, branches = trunk_with(4)
    wire.down = True
    ends = await asyncio.gather(*(branch.connect("e") for branch in branches), return_exceptions=True)
    assert [str(end) for end in ends] == ["nobody there"] * 4
    assert wire.dialled == 1
    assert [branch.tells for branch in branches] == [True, False, False, False]
    assert (branches[0].title, branches[0].waiting(), branches[0].pacing) == ("cloud", 5, wire.pacing)
    pacing = branches[1].pacing
    assert (pacing.step(3600 * 24 * 365), pacing.retry_steps[-1][0]) == (0.5, 7.0)


async def test_who_waits_for_a_session_comes_in_as_soon_as_there_is_one() -> None:
    wire, _, (leader, other) = trunk_with(2)
    waiting = asyncio.create_task(other.connect("e"))
    await asyncio.sleep(0.05)
    assert not wire.dialled, "only the leader dials"
    await leader.connect("e")
    assert await waiting == "session e"


async def test_where_the_leader_leaves_the_next_one_dials_speaks_and_serves() -> None:
    wire, trunk, (leader, second, third) = trunk_with(3)

    def slot() -> AbstractAsyncContextManager[None]:
        raise AssertionError

    waiting = asyncio.create_task(third.connect("e"))
    leader.withdraw()
    assert await second.connect("e") == await waiting == "session e"
    serving = [asyncio.create_task(branch.serve(slot)) for branch in (second, third)]
    losing = [asyncio.create_task(branch.lost()) for branch in (second, third)]
    await asyncio.sleep(0.05)
    assert wire.served == 1
    for task in (serving[0], losing[0]):
        task.cancel()
    await second.close()
    second.withdraw()
    await asyncio.sleep(0.05)
    assert (wire.served, wire.closed, trunk.speaks(third), third.tells) == (1, 0, True, True)
    wire.cut()
    assert await losing[1] == "cut"
    serving[1].cancel()
    await third.close()
    assert await third.connect("f") == "session f"
    await asyncio.wait([*serving, losing[0]])


async def test_while_a_session_ends_nobody_begins_the_next() -> None:
    wire, _, (leader, other) = trunk_with(2)
    await asyncio.gather(leader.connect("e"), other.connect("e"))
    wire.cut()
    assert await leader.lost() == await other.lost() == "cut"
    await leader.close()
    again = asyncio.create_task(leader.connect("f"))
    await asyncio.sleep(0.05)
    assert wire.dialled == 1, "the other one is still inside"
    await other.close()
    assert await again == "session f"
    assert wire.closed == 1


async def test_no_more_is_in_flight_than_the_receiver_allows() -> None:
    wire, _, branches = trunk_with(20)
    await asyncio.gather(*(branch.connect("e") for branch in branches))
    assert {branch.window for branch in branches} == {1}
    assert not branches[0].fits(Message("t", b"x" * 10))
    await asyncio.gather(*(branch.send(MESSAGE) for branch in branches))
    assert (wire.most, len(wire.told)) == (8, 20)


async def test_an_attempt_that_is_cancelled_leaves_the_way_free() -> None:
    wire, _, (leader, other) = trunk_with(2)
    task = asyncio.create_task(leader.connect("e"))
    await asyncio.sleep(0.001)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    leader.withdraw()
    assert await other.connect("e") == "session e"
    assert wire.dialled == 2


async def test_a_cancelled_wait_is_a_cancellation() -> None:
    _, _, (_, other) = trunk_with(2)
    task = asyncio.create_task(other.connect("e"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
