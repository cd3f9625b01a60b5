"""Our master against pymodbus' serial server, and pymodbus' client against our simulated line."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

import edged_modbus
from edged.adapter import Bus, Job, Name, Value
from edged_modbus.config import ModbusDevice
from edged_modbus.point import ModbusPoint
from edged_modbus.serial_bus import ModbusAsciiBus, ModbusRtuBus
from tests.wire.serial.rig import Kind, register, rig


def _pass_on(here: int, there: int) -> None:
    os.write(there, os.read(here, 4096))


@asynccontextmanager
async def null_modem() -> AsyncIterator[tuple[str, str]]:
    """Two ports that are connected with each other."""
    loop = asyncio.get_running_loop()
    pairs = [os.openpty() for _ in range(2)]
    for (master, slave), (other, _) in (pairs, pairs[::-1]):
        tty.setraw(slave)
        loop.add_reader(master, _pass_on, master, other)
    try:
        yield os.ttyname(pairs[0][1]), os.ttyname(pairs[1][1])
    finally:
        for master, slave in pairs:
            loop.remove_reader(master)
            os.close(slave)
            os.close(master)


@pytest.mark.parametrize("kind", ["rtu", "ascii"])
async def test_our_master_reads_and_writes_what_pymodbus_serves(kind: Kind) -> None:
    make, adapter = (
        (ModbusRtuBus, edged_modbus.RTU) if kind == "rtu" else (ModbusAsciiBus, edged_modbus.ASCII)
    )  # fmt: skip
    async with null_modem() as (ours, theirs):
        framer = FramerType.RTU if kind == "rtu" else FramerType.ASCII
        data = SimData(0, count=100, values=list(range(1000, 1100)), datatype=DataType.REGISTERS)
        server = ModbusSerialServer(SimDevice(7, simdata=[data]), framer=framer, port=theirs)
        await server.serve_forever(background=True)
        points = {Name(f"p{i}"): ModbusPoint(holding=i, writable=True) for i in range(20)}
        device = ModbusDevice(bus=Name("b"), unit=7, points=points)
        bus = adapter.open("b", make(adapter=f"modbus-{kind}", port=ours), {"d": device})
        try:
            job = bus.prepare("d", list(points))
            assert list((await bus.poll(job)).samples[0].values) == list(range(1000, 1020))
            await bus.write("d", "p3", 77)
            assert (await bus.poll(job)).samples[0].values[3] == 77
        finally:
            await bus.close()
            await server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus left it so


@pytest.mark.parametrize("kind", ["rtu", "ascii"])
async def test_pymodbus_reads_what_our_simulated_line_serves(kind: Kind) -> None:
    async with rig(kind) as line:
        framer = FramerType.RTU if kind == "rtu" else FramerType.ASCII
        client = AsyncModbusSerialClient(line.line.port, framer=framer, baudrate=19_200)
        assert await client.connect()
        try:
            reply = await client.read_holding_registers(1, count=5, device_id=2)
            assert reply.registers == [register(2, address) for address in range(1, 6)]
        finally:
            client.close()


async def values(bus: Bus, job: Job) -> dict[str, Value]:
    """By point: reads that lie apart in time come as samples of their own."""
    samples = (await bus.poll(job)).samples
    return {point: value for sample in samples for point, value in zip(sample.points, sample.values, strict=True)}


@pytest.mark.parametrize("kind", ["rtu", "ascii"])
async def test_simulated_bus_appears_where_the_configuration_says(kind: Kind, tmp_path: Path) -> None:
    make, adapter = (ModbusRtuBus, edged_modbus.RTU) if kind == "rtu" else (ModbusAsciiBus, edged_modbus.ASCII)
    config = make(adapter=f"modbus-{kind}", port=str(tmp_path / "line-a"), baudrate=115_200)
    points = {Name("t"): ModbusPoint(holding=4, unit="°C"), Name("w"): ModbusPoint(holding=9, writable=True)}
    devices = {
        name: ModbusDevice(bus=Name("b"), unit=unit, points=points) for unit, name in enumerate(("one", "two"), 1)
    }
    async with adapter.simulate({"b": (config, devices)}) as simulator:
        assert simulator.endpoints == {"b": config.port}
        bus = adapter.open("b", config, devices)
        try:
            job = bus.prepare("two", ["t", "w"])
            first = (await values(bus, job))["t"]
            assert isinstance(first, int)
            assert 18 <= first <= 26
            await bus.write("two", "w", 4711)
            assert (await values(bus, job))["w"] == 4711
            assert simulator.state()["requests"] >= 3
        finally:
            await bus.close()
