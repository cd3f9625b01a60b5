"""Long outages with the pauses of production: readings are back within ten seconds of what was gone.

The pauses between attempts have grown to their longest after seven seconds, so eight stand for any number. The soak
(`make soak` sets EDGED_SOAK) takes sixty, and all three kinds of outage.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from edged.adapter import Duration, Sample
from edged.polling import Assignment, BusPoller
from edged_ble.bus import Bus
from edged_ble.config import BleBus
from tests.support.fakebluez import FakeBluez
from tests.support.privatebus import PrivateBus
from tests.wire.ble.rig import TAG, device, ruuvi

SOAK = "EDGED_SOAK" in os.environ
OUTAGE = 60.0 if SOAK else 8.0
WITHIN = 10.0

soak = pytest.mark.skipif(not SOAK, reason="takes two minutes: EDGED_SOAK=1")


class Watched:
    """One sensor that advertises all the time, and what the scheduler made of it."""

    def __init__(self, bluez: FakeBluez) -> None:
        self.bluez = bluez
        self.samples: list[Sample] = []
        self._number = 0

    async def _advertise(self) -> None:
        while True:
            self._number += 1
            if self.bluez.running:
                self.bluez.advertise(TAG, {0x0499: ruuvi(self._number)})
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def polled(self) -> AsyncIterator[None]:
        config = BleBus(adapter="ble")
        spec = device(every=Duration(0.5))
        poller = BusPoller(
            "radio",
            lambda: Bus("radio", config, {"tag": spec}),
            config,
            [Assignment("tag", ["temperature", "rssi"], 0.5)],
            self.samples.append,
        )
        tasks = [asyncio.create_task(poller.run()), asyncio.create_task(self._advertise())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def until(self, *, good: bool, seconds: float) -> float:
        """Until the newest sample is so; how long that took."""
        self.samples.clear()
        began = time.monotonic()
        while not (self.samples and (None not in self.samples[-1].values) is good):
            assert time.monotonic() - began < seconds, "it never came"
            await asyncio.sleep(0.02)
        return time.monotonic() - began


async def outage(bluez: FakeBluez, begin: Callable[[], object], end: Callable[[], Awaitable[object]]) -> None:
    watched = Watched(bluez)
    async with watched.polled():
        await watched.until(good=True, seconds=20)
        begin()
        await watched.until(good=False, seconds=20)
        assert str(watched.samples[-1].quality[0]) == "bad(unreachable)"
        await asyncio.sleep(OUTAGE)
        await end()
        took = await watched.until(good=True, seconds=45)
    assert took < WITHIN


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_readings_are_back_soon_after_a_long_outage_of_bluetoothd(bluez: FakeBluez) -> None:
    await outage(bluez, bluez.stop, bluez.start)


@soak
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_readings_are_back_soon_after_a_long_outage_of_dbus(dbus: PrivateBus) -> None:
    bluez = await FakeBluez().start()

    def begin() -> None:
        bluez.stop()
        dbus.stop()

    async def end() -> None:
        dbus.start()
        await bluez.start()

    await outage(bluez, begin, end)
    bluez.stop()


@soak
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_readings_are_back_soon_after_the_radio_was_blocked(bluez: FakeBluez) -> None:
    async def end() -> None:
        bluez.block("hci0", on=False)

    await outage(bluez, lambda: bluez.block("hci0", on=True), end)


@soak
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_readings_are_back_soon_after_bluetoothd_hung_and_was_restarted(bluez: FakeBluez) -> None:
    """The longest pauses of all: nobody else may be kept waiting by a radio that does not answer."""

    def begin() -> None:
        bluez.stop()
        bluez.hang.add("StartDiscovery")
        restarting.append(asyncio.create_task(bluez.start()))

    async def end() -> None:
        await restarting[0]
        bluez.stop()
        bluez.hang.clear()
        await bluez.start()

    restarting: list[asyncio.Task[FakeBluez]] = []
    await outage(bluez, begin, end)
