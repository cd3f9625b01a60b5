"""A lane that has an end reads ahead; what it gets is the log in order, whatever the disk does."""

from __future__ import annotations

import asyncio

import pytest

from edged.buffer.batch import Batch
from edged.errors import TransientError
from edged.model import Sample
from edged.uplink.api import Lane
from edged.uplink.lanes import Route
from edged.uplink.pages import Pages


class Log:
    """Batches of two samples, one to a page; every so many reads the disk refuses."""

    def __init__(self, head: int, *, refuses: int = 0) -> None:
        self.head = head
        self.reads: list[int] = []
        self._refuses = refuses

    async def read(
        self, after: int, *, through: int | None = None, max_readings: int = 0, target: str = ""
    ) -> list[Batch]:
        assert max_readings > 0
        assert target == ""
        self.reads.append(after)
        await asyncio.sleep(0)
        if self._refuses and len(self.reads) % self._refuses == 0:
            raise TransientError("the disk refuses", reason="disk")
        last = self.head if through is None else through
        if after >= last:
            return []
        return [Batch(after + 1, tuple(Sample("d", 0, 0, ("n",), [seq]) for seq in (after + 1, after + 2)), "boot", 2)]


async def walk(log: Log, route: Route) -> tuple[list[int], int]:
    """(Every seq in the order in which the lane got it, how often the disk refused)."""
    pages, seen, refused = Pages(log.read, route, lambda: log.head), list[int](), 0
    try:
        while route.reached < (route.through or log.head):
            try:
                head, batches = await pages.next()
            except TransientError:
                refused += 1
                continue
            assert head == log.head
            for batch in batches:
                seen += range(batch.first, batch.last + 1)
                route.reached = batch.last
                await asyncio.sleep(0.001)  # it is being sent
    finally:
        pages.close()
    return seen, refused


@pytest.mark.parametrize("through", [None, 12])
@pytest.mark.parametrize("refuses", [0, 2, 3])
async def test_a_lane_gets_the_whole_log_in_order(through: int | None, refuses: int) -> None:
    log = Log(12, refuses=refuses)
    seen, refused = await walk(log, Route(Lane.HISTORICAL, 0, through))
    assert seen == list(range(1, 13))
    assert (refused > 0) == (refuses > 0)


async def test_the_next_page_is_read_while_this_one_is_being_sent() -> None:
    log, route = Log(12), Route(Lane.HISTORICAL, 0, 12)
    pages = Pages(log.read, route, lambda: log.head)
    _, batches = await pages.next()
    await asyncio.sleep(0.001)
    assert (batches[-1].last, log.reads) == (2, [0, 2])
    pages.close()


async def test_a_lane_without_end_reads_nothing_before_it_is_asked_to() -> None:
    log, route = Log(12), Route(Lane.LIVE, 0)
    pages = Pages(log.read, route, lambda: log.head)
    await pages.next()
    await asyncio.sleep(0.001)
    assert log.reads == [0]
    pages.close()


@pytest.mark.parametrize(("refuses", "waits"), [(0, False), (2, False), (2, True)])
async def test_a_page_that_nobody_wants_any_more_is_let_go(refuses: int, waits: bool) -> None:
    log, route = Log(12, refuses=refuses), Route(Lane.HISTORICAL, 0, 12)
    pages = Pages(log.read, route, lambda: log.head)
    await pages.next()
    if waits:
        await asyncio.sleep(0.001)  # until it has been refused
    pages.close()
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if "page" in task.get_name()]
