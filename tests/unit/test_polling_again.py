from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edged.adapter import BusConfig, Job, Plan, PollResult, Sample, Value
from edged.polling import Assignment, BusPoller


@dataclass(frozen=True)
class OneJob:
    device: str
    points: tuple[str, ...]


class Mailbox:
    """A bus whose device sends by itself; the third look finds something."""

    concurrency = 1

    def __init__(self) -> None:
        self.looks: list[float] = []

    def prepare(self, device: str, points: Sequence[str]) -> OneJob:
        return OneJob(device, tuple(points))

    def plan(self, job: Job) -> Plan:
        return Plan()

    async def poll(self, job: Job, *, probe: bool = False, raw: bool = False) -> PollResult:
        self.looks.append(time.monotonic())
        if len(self.looks) < 3:
            return PollResult([], again=0.05)
        return PollResult([Sample(job.device, 1, 1, job.points, [1])])

    async def write(self, device: str, point: str, value: Value) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        pass


async def test_what_comes_by_itself_need_not_wait_for_the_next_period() -> None:
    bus, samples = Mailbox(), asyncio.Queue[Sample]()
    poller = BusPoller(
        "box", lambda: bus, BusConfig(adapter="any"), [Assignment("d", ["p"], 3600.0)], samples.put_nowait
    )
    running = asyncio.create_task(poller.run())
    async with asyncio.timeout(30):
        await samples.get()
    await asyncio.sleep(0.3)
    running.cancel()
    await asyncio.wait({running})
    assert len(bus.looks) == 3, "afterwards it waits for its turn"
    assert all(later - earlier >= 0.049 for earlier, later in zip(bus.looks, bus.looks[1:], strict=False))
    assert poller.state().overruns == 0
