from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from edged.adapter import Name, Sample, TransientError
from edged_ble.bus import Bus
from edged_ble.config import BleBus, BleDevice
from edged_ble.job import BleJob
from edged_ble.radio import Pace

TAG = "CB:B8:33:4C:88:4F"
QUICK = Pace(start=2.0, stop=1.0, retry=0.05, rarest=0.2, hung=0.5, look=0.2, off=0.05)


def ruuvi(number: int = 205, celsius: float = 24.3) -> bytes:
    """The vector of the specification (docs.ruuvi.com, data format 5), with another number and temperature."""
    data = bytearray.fromhex("0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F")
    data[1:3] = round(celsius / 0.005).to_bytes(2, "big", signed=True)
    data[16:18] = number.to_bytes(2, "big")
    return bytes(data)


def device(**settings: Any) -> BleDevice:
    return BleDevice(bus=Name("radio"), **({"address": TAG, "decoder": "ruuvi"} | settings))


@asynccontextmanager
async def opened(config: BleBus | None = None, pace: Pace = QUICK, **devices: BleDevice) -> AsyncIterator[Bus]:
    """A bus with quick pauses, closed at the end."""
    bus = Bus("radio", config or BleBus(adapter="ble"), devices, pace=pace)
    try:
        yield bus
    finally:
        await bus.close()


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for a state of the system."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.01)


def heard(bus: Bus, count: int, name: str = "tag") -> bool:
    """Whether so many measurements came. The only look inside: what was heard is not fetched by it."""
    return bus._listeners[name].count >= count


async def polled(bus: Bus, job: BleJob) -> list[Sample]:
    """The samples of the next poll that has any. A device that was silent is so until it is heard."""
    found: list[Sample] = []
    end = time.monotonic() + 15
    while not found:
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.01)
        try:
            found = list((await bus.poll(job)).samples)
        except TransientError as exc:
            if exc.reason != "stale":
                raise
    return found
