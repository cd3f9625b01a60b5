"""A serial bus under the scheduler, as the daemon runs it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import edged_modbus
from edged.adapter import Name, Sample
from edged.polling import Assignment, BusPoller
from edged.testing.line import Line
from edged_modbus.config import ModbusDevice
from edged_modbus.point import ModbusPoint
from edged_modbus.serial_bus import ModbusRtuBus
from edged_modbus.simline import responder
from tests.support.stalls import stalls


async def test_replugging_is_picked_up_within_a_second_and_costs_nothing_meanwhile(tmp_path: Path) -> None:
    def answer(_unit: int, pdu: bytes) -> bytes:
        return bytes((3, 2 * pdu[4])) + bytes(2 * pdu[4]) if pdu[0] == 3 else bytes((pdu[0] | 0x80, 1))

    respond = responder(answer, (1, 2), ascii=False)
    devices = {
        f"d{unit}": ModbusDevice(bus=Name("b"), unit=unit, points={Name("p"): ModbusPoint(holding=0)})
        for unit in (1, 2)
    }  # fmt: skip
    good = asyncio.Event()
    bad = asyncio.Event()

    def emit(sample: Sample) -> None:
        (good if sample.values[0] is not None else bad).set()

    async with Line(respond, baudrate=19_200, link=tmp_path / "port") as line:
        config = ModbusRtuBus(adapter="modbus-rtu", port=line.port, baudrate=19_200)
        work = [Assignment(name, ["p"], every=0.05) for name in devices]
        poller = BusPoller("b", lambda: edged_modbus.RTU.open("b", config, devices), config, work, emit)
        running = asyncio.create_task(poller.run())
        try:
            for _ in range(2):
                await _within(20, good)
                bad.clear()
                line.unplug()
                await _within(20, bad)
                cpu = time.process_time()
                await asyncio.sleep(1.0)
                assert time.process_time() - cpu < 0.2
                good.clear()
                async with stalls() as held_up:
                    line.plug()
                    began = time.monotonic()
                    await _within(20, good)
                assert time.monotonic() - began < 1.0 + held_up.seconds
        finally:
            running.cancel()
            await asyncio.wait([running])


async def _within(seconds: float, event: asyncio.Event) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()
