"""Modbus lines behind a serial server in transparent mode, simulated as such."""

from __future__ import annotations

import asyncio
import socket

import pytest

import edged_modbus
from edged.adapter import Adapter, ConfigError, TransientError
from edged_modbus.config import ModbusDevice
from edged_modbus.point import ModbusPoint
from edged_modbus.serial_bus import ModbusAsciiBus, ModbusRtuBus
from tests.wire.serial.rig import Kind


def free_port() -> str:
    """An address nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"socket://127.0.0.1:{free.getsockname()[1]}"


def line(kind: Kind, port: str) -> tuple[Adapter, ModbusRtuBus | ModbusAsciiBus, dict[str, ModbusDevice]]:
    """A bus at such a port, with one device."""
    make, adapter = (ModbusAsciiBus, edged_modbus.ASCII) if kind == "ascii" else (ModbusRtuBus, edged_modbus.RTU)
    config = make(adapter=f"modbus-{kind}", port=port, baudrate=19_200)
    points = {f"p{i}": ModbusPoint(holding=i) for i in range(3)}
    return adapter, config, {"m": ModbusDevice(bus="b", unit=7, points=points)}  # type: ignore[arg-type]  # names


@pytest.mark.parametrize("kind", ["rtu", "ascii"])
async def test_line_behind_a_serial_server_is_simulated_there(kind: Kind) -> None:
    adapter, config, devices = line(kind, free_port())
    async with adapter.simulate({"b": (config, devices)}) as simulator:
        assert simulator.endpoints == {"b": config.port}
        for _ in range(2):  # who comes again is served again
            bus = adapter.open("b", config, devices)
            try:
                for _ in range(2):
                    (sample,) = (await bus.poll(bus.prepare("m", ["p0", "p1", "p2"]))).samples
                    assert [reading.quality.status for reading in sample.readings()] == ["good"] * 3
            finally:
                await bus.close()


async def test_server_that_goes_away_is_told_and_one_that_comes_back_is_used() -> None:
    adapter, config, devices = line("rtu", free_port())
    bus = adapter.open("b", config, devices)
    job = bus.prepare("m", ["p0"])
    try:
        for _ in range(2):
            async with adapter.simulate({"b": (config, devices)}):
                assert (await bus.poll(job)).samples
            await asyncio.sleep(0.05)
            with pytest.raises(TransientError, match=r"no connection to socket://.*serial server"):
                await bus.poll(job)
    finally:
        await bus.close()


async def test_taken_port_and_other_protocols_cannot_be_simulated_and_say_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        adapter, config, devices = line("rtu", f"socket://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConfigError, match="bus b: cannot listen on"):
            async with adapter.simulate({"b": (config, devices)}):
                pass
    adapter, config, devices = line("rtu", "rfc2217://127.0.0.1:4001")
    with pytest.raises(ConfigError, match=r"bus b: .* try it with socket://"):
        async with adapter.simulate({"b": (config, devices)}):
            pass
