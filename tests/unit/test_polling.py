"""The scheduler: grid, fairness, silence, recovery. Time is virtual: what takes its time is the fake bus."""

from __future__ import annotations

import asyncio
import cmath
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from edged.adapter import Bus, BusConfig
from edged.config.types import Duration
from edged.errors import TransientError
from edged.model import Sample
from edged.polling import Assignment, BusPoller
from edged.testing.bus import FakeBus, FakeDevice

pytestmark = pytest.mark.virtual_time
CONFIG = BusConfig(adapter="fake", retry_min=Duration(0.05), retry_max=Duration(0.2))


class Run:
    """A poller at work on a fake bus."""

    def __init__(self, bus: FakeBus, assignments: Sequence[Assignment], config: BusConfig = CONFIG) -> None:
        self.bus = bus
        self.samples: list[Sample] = []
        self.poller = BusPoller("line", lambda: bus, config, assignments, self.samples.append)

    def qualities(self, device: str) -> list[str]:
        return [str(s.quality[0]) if s.quality else "good" for s in self.samples if s.device == device]

    async def until(self, device: str, quality: str, count: int = 1) -> None:
        while self.qualities(device).count(quality) < count:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(run: Run) -> AsyncIterator[Run]:
    task = asyncio.create_task(run.poller.run())
    try:
        yield run
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def every(seconds: float, *devices: str) -> list[Assignment]:
    return [Assignment(device, ("p", "q"), seconds, i / len(devices)) for i, device in enumerate(devices)]


async def test_deadlines_do_not_drift() -> None:
    device = FakeDevice(seconds=0.01)
    async with running(Run(FakeBus({"a": device}), every(0.05, "a"))):
        await asyncio.sleep(1.0)
    assert len(device.polls) >= 10
    # The polls' places in the period, as directions: they agree, but were the 10 ms of each poll added up, they would
    # go round and cancel each other out.
    directions = [cmath.exp(2j * math.pi * at / 0.05) for at in device.polls]
    assert abs(sum(directions)) / len(directions) > 0.6


async def test_devices_start_spread_over_the_period() -> None:
    devices = {name: FakeDevice() for name in "abcd"}
    async with running(Run(FakeBus(devices), every(0.4, *devices))) as run:
        for name in devices:
            await run.until(name, "good")
    starts = sorted(device.polls[0] for device in devices.values())
    assert starts[-1] - starts[0] > 0.2


async def test_a_long_period_does_not_delay_the_first_reading() -> None:
    async with running(Run(FakeBus({"a": FakeDevice()}), [Assignment("a", ("p",), 3600, 0.5)])) as run:
        async with asyncio.timeout(5):
            await run.until("a", "good")


async def test_an_overloaded_bus_starves_nobody_and_counts_overruns(caplog: pytest.LogCaptureFixture) -> None:
    devices = {"fast": FakeDevice(seconds=0.03), "slow": FakeDevice(seconds=0.03), "third": FakeDevice(seconds=0.03)}
    assignments = [Assignment("fast", ("p",), 0.02), Assignment("slow", ("p",), 0.1), Assignment("third", ("p",), 0.1)]
    with caplog.at_level(logging.WARNING):
        async with running(Run(FakeBus(devices), assignments)) as run:
            await asyncio.sleep(1.5)
            state = run.poller.state()
    assert all(len(device.polls) >= 8 for device in devices.values())
    assert {device.device for device in state.devices if device.overruns} >= {"fast"}
    assert len([record for record in caplog.records if "cannot keep up" in record.getMessage()]) == 1
    assert state.load > 0.8


async def test_a_silent_device_is_told_once_and_costs_the_others_its_share_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    devices = {"alive": FakeDevice(seconds=0.001), "dead": FakeDevice(silent=True, timeout=0.05)}
    with caplog.at_level(logging.INFO):
        async with running(Run(FakeBus(devices), every(0.02, *devices))) as run:
            await run.until("dead", "bad(timeout)")
            await asyncio.sleep(2.0)
    # Each attempt costs 50 ms; a tenth of two seconds is four of them, and one more for where the window begins.
    assert len(devices["dead"].polls) <= 6
    assert len([r for r in caplog.records if "dead does not answer" in r.getMessage()]) == 1


async def test_several_silent_devices_share_the_share() -> None:
    devices = {"alive": FakeDevice()} | {f"dead{i}": FakeDevice(silent=True, timeout=0.02) for i in range(5)}
    async with running(Run(FakeBus(devices), every(0.05, *devices))) as run:
        for name in list(devices)[1:]:
            await run.until(name, "bad(timeout)")
        before = sum(len(device.polls) for name, device in devices.items() if name != "alive")
        await asyncio.sleep(2.0)
        after = sum(len(device.polls) for name, device in devices.items() if name != "alive")
    assert after - before <= 2.0 * 0.1 / 0.02 + 2


async def test_a_device_that_returns_is_polled_at_full_rate_at_once(caplog: pytest.LogCaptureFixture) -> None:
    devices = {"alive": FakeDevice(), "back": FakeDevice(silent=True, timeout=0.01)}
    with caplog.at_level(logging.INFO):
        async with running(Run(FakeBus(devices), every(0.05, *devices))) as run:
            await run.until("back", "bad(timeout)")
            devices["back"].silent = False
            await run.until("back", "good", count=3)
    messages = [record.getMessage() for record in caplog.records if "back" in record.getMessage()]
    assert len(messages) == 2
    assert "answers again" in messages[1]


async def test_a_lone_device_is_probed_without_regard_to_the_share() -> None:
    device = FakeDevice(silent=True, timeout=0.05)
    async with running(Run(FakeBus({"a": device}), every(0.05, "a"))) as run:
        await run.until("a", "bad(timeout)", count=4)
    gaps = [b - a for a, b in zip(device.polls, device.polls[1:], strict=False)]
    assert max(gaps) < 1.0  # retry_max is 0.2 s; a tenth share would ask for 0.45 s and growing


async def test_every_point_of_a_silent_device_is_said_to_be_bad() -> None:
    device = FakeDevice(silent=True)
    assignments = [Assignment("a", ("p", "q"), 0.05), Assignment("a", ("r",), 0.2)]
    async with running(Run(FakeBus({"a": device}), assignments)) as run:
        await run.until("a", "bad(timeout)", count=2)
    assert {point for sample in run.samples for point in sample.points} == {"p", "q", "r"}
    assert all(value is None for sample in run.samples for value in sample.values)


async def test_a_lost_link_is_told_once_for_the_bus_and_all_devices_return_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    devices = {name: FakeDevice() for name in "abc"}
    with caplog.at_level(logging.INFO):
        async with running(Run(FakeBus(devices), every(0.05, *devices))) as run:
            for name in devices:
                await run.until(name, "good")
            run.bus.link_down = True
            for name in devices:
                await run.until(name, "bad(unreachable)", count=2)
            assert run.poller.state().health == "down"
            run.bus.link_down = False
            seen = len(run.samples)
            while {s.device for s in run.samples[seen:] if not s.quality} != set(devices):
                await asyncio.sleep(0.005)
            assert run.poller.state().health == "ok"
    assert [record.getMessage().split(":")[1].split()[0] for record in caplog.records] == ["no", "reachable"]


async def test_one_transaction_at_a_time_unless_the_bus_allows_more() -> None:
    for concurrency in (1, 3):
        devices = {name: FakeDevice(seconds=0.02) for name in "abcdef"}
        bus = FakeBus(devices, concurrency=concurrency)
        async with running(Run(bus, [Assignment(name, ("p",), 0.02) for name in devices])):
            await asyncio.sleep(0.3)
        assert bus.most_busy == concurrency


async def test_reading_out_of_turn_waits_for_the_bus() -> None:
    bus = FakeBus({"a": FakeDevice(seconds=0.02)})
    async with running(Run(bus, every(0.03, "a"))) as run:
        await run.until("a", "good")
        results = await run.poller.read_now("a")
        with pytest.raises(KeyError):
            await run.poller.read_now("nobody")
    assert [list(sample.values) for result in results for sample in result.samples] == [[1, 1]]
    assert bus.most_busy == 1


@pytest.mark.parametrize(("seconds", "finished"), [(1.0, True), (30.0, False)])
async def test_the_bus_is_not_closed_under_a_command_that_comes_to_an_end_soon(seconds: float, finished: bool) -> None:
    bus = FakeBus({"a": FakeDevice()})
    run = Run(bus, every(60, "a"))
    closed: list[int] = []
    begun = asyncio.Event()

    async def command() -> None:
        async with run.poller.turn():
            begun.set()
            await asyncio.sleep(seconds)
            closed.append(bus.closed)

    async with asyncio.TaskGroup() as group:
        async with running(run):
            await run.until("a", "good")
            group.create_task(command())
            await begun.wait()
            late = [group.create_task(_refused(run.poller.turn())), group.create_task(_refused_read(run.poller))]
            await asyncio.sleep(0)
        assert bus.closed == 1
    assert closed == [0 if finished else 1]
    assert [task.result() for task in late] == ["line is not open"] * 2, "nobody gets a bus that is closed"
    assert len(bus.devices["a"].polls) == 1


async def _refused(turn: AbstractAsyncContextManager[Bus]) -> str:
    with pytest.raises(TransientError) as caught:
        async with turn:
            pass
    return str(caught.value)


async def _refused_read(poller: BusPoller) -> str:
    with pytest.raises(TransientError) as caught:
        await poller.read_now("a")
    return str(caught.value)


async def test_a_poll_that_the_end_does_not_wait_for_is_counted() -> None:
    device = FakeDevice(seconds=30)
    async with running(Run(FakeBus({"a": device}), every(60, "a"))) as run, asyncio.timeout(5):
        while not device.polls:
            await asyncio.sleep(0.005)
    assert run.poller.cut_off == 1
    device.seconds = 0
    async with running(run), asyncio.timeout(5):
        await run.until("a", "good")
    assert run.poller.cut_off == 0


async def test_the_bus_is_closed_at_the_end_and_can_be_run_again() -> None:
    bus = FakeBus({"a": FakeDevice()})
    run = Run(bus, every(0.05, "a"))
    for times in (1, 2):
        async with running(run):
            await run.until("a", "good", count=times)
        assert bus.closed == times
