"""Thousands of requests on a line where nearly anything can happen to an answer.

Every register holds its unit and address, and the first one the number of the request that read it, so that a value
that is wrong, shifted, stale or another's is seen at once. EDGED_LONG=1 makes it 100,000 requests of each kind.
"""

from __future__ import annotations

import asyncio
import os
import time
from random import Random

import pytest

from edged.adapter import TransientError
from edged.testing.line import (
    corrupted,
    dead,
    dropped,
    late,
    noise_after,
    noise_before,
    noise_inside,
    sometimes,
    truncated,
    twice,
)
from tests.wire.serial.rig import Kind, Rig, rig

_LONG = bool(os.environ.get("EDGED_LONG"))
_SEED = int(os.environ.get("EDGED_SEED", "7"))
_REQUESTS = 100_000 if _LONG else 120
_PATIENCE = 20.0
"""Seconds. A unit that answers nothing but one kind of read is left alone for ten."""
_TIMEOUT = 0.003
_TURN_NOISE = 0.05
"""How often, where there is an echo, something else is heard before it."""
_LATE = (0.5, 1.0, 1.2, 1.5, 2.0, 3.0, 10.0, 30.0)
"""In time-outs. That the machine stalls for longer than one, too, must not matter."""

FAULTS = [
    *(noise(count) for noise in (noise_before, noise_inside, noise_after) for count in (1, 2, 5)),
    corrupted(1),
    *(truncated(count) for count in (1, 2, 9, 99)),
    *(dropped(count) for count in (1, 2, 5)),
    *(late(times * _TIMEOUT) for times in _LATE),
    dead(),
    twice(),
]
# CRC-16 finds any three wrong bits. The LRC of ASCII is a sum: two can cancel each other, and nobody can tell.
RTU_FAULTS = [*FAULTS, corrupted(2), corrupted(3)]


@pytest.mark.final
@pytest.mark.timeout(3600 if os.environ.get("EDGED_LONG") else 60)
@pytest.mark.parametrize("count", [10, 1])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("kind", ["rtu", "ascii", "rtu-over-tcp"])
async def test_random_faults_yield_no_wrong_value(kind: Kind, echo: bool, count: int) -> None:
    """With ten registers to be read at once, and with a single one, for which there is no shorter read."""
    async with rig(kind, baudrate=None, timeout=_TIMEOUT, seed=2 * _SEED + echo, count=count) as line:
        line.line.echo = echo
        line.line.fault = sometimes(0.4, *(FAULTS if kind == "ascii" else RTU_FAULTS))
        good = await _load(line, Random(_SEED))
        assert line.wrong == []
        line.line.fault = None
        line.line.before_echo = b""
        await asyncio.sleep(0.2)
        for unit in line.jobs:
            assert await _comes_back(line, unit), f"unit {unit} does not come back"
        assert line.wrong == []
        print(
            f"{kind}, echo {echo}, {count} registers: {line.line.requests} requests, "
            f"{good} good polls, {line.master.late} late answers"
        )
        assert good > _REQUESTS // 10


async def _comes_back(line: Rig, unit: int) -> bool:
    """A unit that owes many answers has to give some first, and a machine that stalls is later than the time-out."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if await line.poll(unit) is not None:
            return True
        await asyncio.sleep(_TIMEOUT)
    return False


async def _load(line: Rig, random: Random) -> int:
    good = 0
    while line.line.requests < _REQUESTS:
        unit = random.choice(list(line.jobs))
        chance = random.random()
        line.line.before_echo = b"\xfe" if random.random() < _TURN_NOISE else b""
        if chance < 0.1:
            await _write(line, unit, random.randrange(0x10000))
        elif chance < 0.15:
            task = asyncio.create_task(line.poll(unit))
            await asyncio.sleep(random.random() * 2 * _TIMEOUT)
            task.cancel()
            await asyncio.wait([task])
        else:
            good += await line.poll(unit) is not None
    return good


async def _write(line: Rig, unit: int, value: int) -> None:
    """What was confirmed was carried out, and by the right unit."""
    line.written.clear()
    address = len(line.jobs[unit].points) // 3
    try:
        await line.bus.write(f"u{unit}", f"p{address}", value)
    except TransientError:
        return
    pdu = bytes((6, 0, address)) + value.to_bytes(2, "big")
    if (unit, pdu) not in line.written:
        line.wrong.append(f"unit {unit} never got {value}")
