from __future__ import annotations

import asyncio
import time
from functools import partial

from tests.support.fakebluez import FakeBluez
from tests.wire.ble.rig import TAG, device, heard, opened, ruuvi, until


async def test_every_advertisement_becomes_a_sample_with_its_own_time(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        job = bus.prepare("tag", ["temperature", "rssi"])
        assert not (await bus.poll(job)).samples
        times = []
        for number in range(3):
            times.append(time.time_ns() // 1000)
            bluez.advertise(TAG, {0x0499: ruuvi(number, 20 + number)}, rssi=-70 + number)
            await until(partial(heard, bus, number + 1))
            await asyncio.sleep(0.05)
        samples = (await bus.poll(job)).samples
        assert [list(sample.values) for sample in samples] == [[20.0, -70], [21.0, -69], [22.0, -68]]
        for sample, sent in zip(samples, times, strict=True):
            assert 0 <= sample.time - sent < 50_000
        assert not (await bus.poll(job)).samples
