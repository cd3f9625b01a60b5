"""The wiring doctor against the simulator's faults, on real pseudo terminals at the pace of a real line."""

from __future__ import annotations

import asyncio
from typing import Any

from edged.adapter import load_adapter
from edged.doctor.listen import listen, pieces_of
from edged.doctor.wiring import Finding, LineFacts, classify
from edged.testing.line import FAULTS, sometimes
from edged_modbus.config import ModbusPoint

EXPECTED = {
    "noise-before": "stray-before",
    "noise-inside": "noise",
    "noise-after": "stray-after",
    "corrupted": "noise",
    "truncated": "cut-off",
    "dropped": "lost-bytes",
    "paused": "pauses",
    "late": "late",
    "dead": "silence",
    "twice": "duplicate-unit",
    "duplicate-unit": "duplicate-unit",
    "wrong-baud": "wrong-baud",
    "wrong-parity": "wrong-parity",
    "swapped": "swapped",
    "echo": "echo",
    "second-master": "second-master",
    "none": None,
}
"""Fault of the simulator → what the doctor is to say first."""

FOREIGN = bytes.fromhex("010300000001840a")


async def diagnose(faults: list[str], share: float = 1.0) -> dict[str, list[Finding]]:
    """What the doctor finds on lines with these faults, all at once."""
    adapter: Any = load_adapter("modbus-rtu")
    buses: dict[str, tuple[Any, dict[str, Any]]] = {}
    for fault in faults:
        devices = {
            f"{fault}-{unit}": adapter.device_config(
                bus=fault, unit=unit, timeout=0.25, retries=0, points=_points(unit),
            )
            for unit in (1, 7)
        }  # fmt: skip
        buses[fault] = (adapter.bus_config(adapter="modbus-rtu", port="/dev/null", baudrate=19200), devices)
    async with adapter.simulate(buses) as simulator:
        for fault in faults:
            line = simulator.lines[fault]
            line.echo = fault == "echo"
            line.fault = sometimes(share, FAULTS[fault]) if fault in FAULTS else None
        found = await asyncio.gather(*(_on_line(adapter, simulator.lines[one], one, buses[one][1]) for one in faults))
    return dict(zip(faults, found, strict=True))


def _points(unit: int) -> dict[str, Any]:
    return {f"p{i}": ModbusPoint(holding=10 * unit + i) for i in range(8)}


async def _on_line(adapter: Any, line: Any, fault: str, devices: dict[str, Any]) -> list[Finding]:
    config = adapter.bus_config(adapter="modbus-rtu", port=line.port, baudrate=19200)
    bus = adapter.open(fault, config, devices)
    chatter = asyncio.create_task(_other_master(line)) if fault == "second-master" else None
    try:
        await listen(bus, devices, seconds=6, rounds=8)
    finally:
        if chatter:
            chatter.cancel()
        await bus.close()
    (pieces,) = pieces_of(bus)
    return classify(adapter.annotate(pieces, config.character), LineFacts(baudrate=19200, timeout=0.25))


async def _other_master(line: Any) -> None:
    while True:
        await asyncio.sleep(0.05)
        line.second_master(FOREIGN)


async def _misnamed(faults: list[str]) -> dict[str, list[Finding]]:
    found = await diagnose(faults)
    named = {fault: found[fault][0].code if found[fault] else None for fault in faults}
    return {fault: found[fault] for fault, code in named.items() if code != EXPECTED[fault]}


async def test_each_fault_of_the_simulator_is_named() -> None:
    assert set(FAULTS) | {"echo", "second-master", "none"} == set(EXPECTED)
    wrong = await _misnamed(list(EXPECTED))
    if wrong:  # a machine that stalls may make a line look worse than it is, but not the same one again
        wrong = await _misnamed(list(wrong))
    assert 10 * len(wrong) <= len(EXPECTED), wrong
