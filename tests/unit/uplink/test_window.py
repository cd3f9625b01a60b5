from __future__ import annotations

import asyncio

from edged.uplink.api import Lane
from edged.uplink.pace import Pace
from edged.uplink.window import Window

LIVE, OLD, FIRST, AGAIN = Lane.LIVE, Lane.HISTORICAL, Lane.PRIORITY, Lane.REPLAY


async def takes(window: Window, lane: Lane) -> bool:
    """Whether the lane gets a slot now."""
    task = asyncio.ensure_future(window.take(lane))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if task.done():
        return True
    task.cancel()
    await asyncio.wait([task])
    return False


async def fill(window: Window, lane: Lane) -> int:
    count = 0
    while await takes(window, lane):
        count += 1
    return count


async def test_one_lane_alone_has_the_whole_window() -> None:
    window = Window(20, 0.5, lambda: 0)
    window.open(LIVE)
    assert await fill(window, LIVE) == 20
    window.give_back(LIVE)
    assert await fill(window, LIVE) == 1


async def test_two_lanes_have_their_shares_and_one_that_ends_leaves_its_share_to_the_other() -> None:
    window = Window(20, 0.25, lambda: 0)
    window.open(LIVE)
    window.open(OLD)
    assert (await fill(window, OLD), await fill(window, LIVE)) == (5, 15)
    for _ in range(5):
        window.give_back(OLD)
    window.close(OLD)
    assert await fill(window, LIVE) == 5


async def test_confirmations_that_the_disk_does_not_know_take_slots_and_make_it_be_told() -> None:
    unsaved = 0
    window = Window(4, 0.5, lambda: unsaved)
    window.open(LIVE)
    assert await fill(window, LIVE) == 4
    assert not window.starved.is_set()
    for _ in range(2):
        window.give_back(LIVE)
    unsaved = 2
    assert not await takes(window, LIVE)
    assert window.starved.is_set()
    waiting = asyncio.ensure_future(window.take(LIVE))
    await asyncio.sleep(0)
    unsaved = 0
    window.changed()
    await waiting


async def test_a_window_of_one_serves_both_lanes_in_turn() -> None:
    window = Window(1, 0.5, lambda: 0)
    window.open(LIVE)
    window.open(OLD)
    served: list[Lane] = []

    async def lane(kind: Lane) -> None:
        for _ in range(3):
            await window.take(kind)
            served.append(kind)
            await asyncio.sleep(0)
            window.give_back(kind)

    async with asyncio.timeout(5):
        await asyncio.gather(lane(LIVE), lane(OLD))
    assert served[:4] in ([LIVE, OLD, LIVE, OLD], [OLD, LIVE, OLD, LIVE])


async def test_under_suspicion_a_message_is_alone_in_flight() -> None:
    window = Window(10, 0.5, lambda: 0)
    for lane in (LIVE, OLD):
        window.open(lane)
        window.be_careful(lane)
    assert await fill(window, LIVE) == 1
    assert window.alone(LIVE)
    assert not await takes(window, OLD)
    window.trust(LIVE)
    assert not await takes(window, OLD)
    window.give_back(LIVE)
    assert await fill(window, OLD) == 1
    assert not await takes(window, LIVE)
    window.trust(OLD)
    assert await fill(window, LIVE) == 5


async def test_idle_waits_until_nothing_is_in_flight() -> None:
    window = Window(2, 0.5, lambda: 0)
    window.open(LIVE)
    await window.take(LIVE)
    idle = asyncio.ensure_future(window.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    window.give_back(LIVE)
    await asyncio.wait_for(idle, 5)


async def test_a_slot_is_kept_free_for_what_has_priority_and_it_comes_next() -> None:
    window = Window(10, 0.5, lambda: 0)
    for lane in (LIVE, FIRST):
        window.open(lane)
    assert await fill(window, LIVE) == 9
    assert await takes(window, FIRST)
    waiting = [asyncio.ensure_future(window.take(lane)) for lane in (LIVE, FIRST)]
    await asyncio.sleep(0)
    window.give_back(LIVE)
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.done() for task in waiting] == [False, True]
    window.give_back(LIVE)
    await asyncio.wait_for(waiting[0], 5)


async def test_what_has_priority_leaves_a_slot_to_those_who_wait() -> None:
    window = Window(5, 0.5, lambda: 0)
    for lane in (LIVE, FIRST):
        window.open(lane)
    waiting = asyncio.ensure_future(window.take(LIVE))
    await waiting
    assert await fill(window, FIRST) == 4
    window.give_back(FIRST)
    later = asyncio.ensure_future(window.take(LIVE))
    await asyncio.wait_for(later, 5)


async def test_backlog_and_replay_have_one_share_together_and_take_turns() -> None:
    window = Window(20, 0.5, lambda: 0)
    for lane in (LIVE, OLD, AGAIN):
        window.open(lane)
    assert await fill(window, OLD) == 10
    assert not await takes(window, AGAIN)
    assert await fill(window, LIVE) == 10
    waiting = [asyncio.ensure_future(window.take(lane)) for lane in (OLD, OLD, AGAIN)]
    await asyncio.sleep(0)
    window.give_back(OLD)
    window.give_back(OLD)
    await asyncio.wait_for(waiting[2], 5)
    assert [task.done() for task in waiting[:2]].count(True) == 1
    waiting[1].cancel()
    await asyncio.wait(waiting)


async def test_the_backlog_has_no_more_than_its_pace_allows() -> None:
    pace = Pace(10)
    window = Window(20, 0.5, lambda: 0, pace)
    for lane in (LIVE, OLD):
        window.open(lane)
    assert await fill(window, OLD) == pace.slots < 10
    for second in range(20):
        window.heard(second, 0.01)
    window.changed()
    assert await fill(window, OLD) > 0
    assert pace.slots == 10
