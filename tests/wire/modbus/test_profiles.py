"""Every shipped profile, rendered by the loader as in a configuration and polled from the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from edged.config.load import load
from edged.model import Reading
from edged.pipeline import DevicePipeline
from edged_modbus import TCP
from edged_modbus.config import ModbusDevice, ModbusTcpBus
from tests.support.modbus import HOST
from tests.support.mosquitto import free_port

FOLDER = TCP.profiles()
assert FOLDER is not None
_LEARNING = 5
"""Polls in which a unit's missing registers are found: the simulator has only those of the points."""
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModbusDevice]:
    """One device of each type, as a technician would write it."""
    written = "\n".join(
        f"  {name}: {{bus: b, unit: {unit}, profile: {name}, timeout: 5s, pause: 0}}"
        for unit, name in enumerate(NAMES, 1)
    )
    file: Path = tmp_path_factory.mktemp("profiles") / "edged.yaml"
    file.write_text(f"gateway: {{id: g}}\nbuses:\n  b: {{adapter: modbus-tcp, host: {HOST}}}\ndevices:\n{written}\n")
    loaded = load(file)
    assert not [str(problem) for problem in loaded.problems]
    assert loaded.config is not None
    return cast("dict[str, ModbusDevice]", {str(name): one for name, one in loaded.config.devices.items()})


async def test_every_profile_reads_its_simulated_device(devices: dict[str, ModbusDevice]) -> None:
    assert sorted(devices) == NAMES
    config = ModbusTcpBus(adapter="modbus-tcp", host=HOST, port=free_port())
    async with TCP.simulate({"b": (config, devices)}) as simulator:
        port = int(simulator.endpoints["b"].rpartition(":")[2])
        bus = TCP.open("b", ModbusTcpBus(adapter="modbus-tcp", host=HOST, port=port), devices)
        try:
            for name, device in devices.items():
                await _read(bus, name, device)
        finally:
            await bus.close()


async def _read(bus: Any, name: str, device: ModbusDevice) -> None:
    job = bus.prepare(name, [str(point) for point in device.points])
    pipeline = DevicePipeline(device.points)
    readings: list[Reading] = []
    for _ in range(_LEARNING):
        result = await bus.poll(job)
        readings = [reading for sample in result.samples for reading in pipeline.compute(sample).readings()]
        if all(reading.quality.status == "good" for reading in readings):
            break
    assert [str(one) for one in readings if one.quality.status != "good"] == [], name
    told = {reading.point for reading in readings}
    assert told >= {"inverter.W", "mppt.module_2.DCW"} if device.sunspec else told == set(device.points), name
