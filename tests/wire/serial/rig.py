"""A serial line whose registers tell which unit, address and request they belong to, and a bus that polls it."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import edged_modbus
from edged.adapter import PollResult, TransientError
from edged.testing.line import Burst, Line
from edged.testing.lineserver import reachable
from edged_modbus.bus import ModbusBus
from edged_modbus.config import ModbusDevice, ModbusRtuOverTcpBus
from edged_modbus.frame import rtu_frame
from edged_modbus.master import SerialMaster
from edged_modbus.point import ModbusPoint
from edged_modbus.serial_bus import ModbusAsciiBus, ModbusRtuBus
from edged_modbus.simline import responder
from tests.support.stalls import Stalls, stalls

Kind = Literal["rtu", "ascii", "rtu-over-tcp"]
_ADAPTERS = {"rtu": edged_modbus.RTU, "ascii": edged_modbus.ASCII, "rtu-over-tcp": edged_modbus.RTU_OVER_TCP}
GENERATION = 0
"""The register that holds the number of the request it was read by."""


def register(unit: int, address: int) -> int:
    """What every other register holds."""
    return unit << 8 | address & 0xFF


@dataclass
class Rig:
    """One line with its units, and the bus that polls them."""

    line: Line
    bus: ModbusBus
    jobs: dict[int, Any]
    written: list[tuple[int, bytes]]
    stalls: Stalls
    wrong: list[str] = field(default_factory=list)

    @property
    def master(self) -> SerialMaster:
        (link,) = self.bus._links  # the bus has no need to show its link
        assert isinstance(link, SerialMaster)
        return link

    async def poll(self, unit: int, *, probe: bool = False) -> PollResult | None:
        """Poll once and check every value that came; None if the device yielded nothing."""
        try:
            result = await self.bus.poll(self.jobs[unit], probe=probe)
        except TransientError:
            return None
        for sample in result.samples:
            for reading in sample.readings():
                if reading.quality.status == "good":
                    self._check(unit, reading.point, reading.value)
        return result

    def _check(self, unit: int, point: str, value: object) -> None:
        address = int(point[1:])
        expected = self.line.requests & 0xFFFF if address == GENERATION else register(unit, address)
        if value != expected:
            self.wrong.append(f"unit {unit} {point}: {value} instead of {expected}")

    async def polls_well(self, unit: int) -> None:
        """The next poll yields every value, and they are right; the next one again if the machine held it up."""
        result = await self.stalls.again(lambda: self._poll_whole(unit))
        assert self.wrong == []
        assert result is not None
        readings = [reading for sample in result.samples for reading in sample.readings()]
        assert len(readings) == len(self.jobs[unit].points)

    async def times_out(self, unit: int) -> None:
        """The next poll yields nothing, though the machine may hold us up until even a late answer is in time."""
        assert await self.stalls.again(lambda: self._poll_in_vain(unit))

    async def _poll_in_vain(self, unit: int) -> bool | None:
        return await self.poll(unit) is None or None

    async def _poll_whole(self, unit: int) -> PollResult | None:
        result = await self.poll(unit)
        samples = result.samples if result is not None else []
        good = [reading.quality.status == "good" for sample in samples for reading in sample.readings()]
        return result if good and all(good) else None


@asynccontextmanager
async def rig(
    kind: Kind = "rtu",
    *,
    baudrate: int | None = 19_200,
    units: Sequence[int] = (1, 2, 3),
    count: int = 10,
    timeout: float = 0.3,  # noqa: ASYNC109  # the devices', not this function's
    turnaround: float = 0.004,
    seed: int = 0,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """A line at `baudrate` (None: it takes no time) whose units have `count` registers configured, and more in fact."""
    written: list[tuple[int, bytes]] = []

    def answer(unit: int, pdu: bytes) -> bytes | None:
        if unit not in units:
            return None
        function = pdu[0]
        if function in {6, 16}:
            written.append((unit, pdu))
            return pdu[:5]
        start, number = struct.unpack(">HH", pdu[1:5]) if function == 3 else (0, 0)
        if function != 3 or start + number > 3 * count:
            return bytes((function | 0x80, 2 if function == 3 else 1))
        words = [register(unit, address) for address in range(start, start + number)]
        if start == GENERATION:
            words[0] = line.requests & 0xFFFF
        return struct.pack(f">BB{number}H", 3, 2 * number, *words)

    respond = responder(answer, units, ascii=kind == "ascii", turnaround=turnaround if baudrate else 0.0)
    points = {f"p{address}": ModbusPoint(holding=address, writable=True) for address in range(count)}
    devices = {f"u{unit}": ModbusDevice(bus="line", unit=unit, timeout=timeout, points=points) for unit in units}  # type: ignore[arg-type]  # a float is what a Duration is
    async with AsyncExitStack() as stack:
        held_up = await stack.enter_async_context(stalls())
        line = await stack.enter_async_context(Line(respond, baudrate=baudrate, seed=seed))
        common = {"adapter": f"modbus-{kind}", "baudrate": baudrate or 115_200, **settings}
        config: ModbusRtuOverTcpBus | ModbusAsciiBus | ModbusRtuBus
        if kind == "rtu-over-tcp":
            served = await stack.enter_async_context(reachable(line, "line", "socket://127.0.0.1:0", "127.0.0.1"))
            config = ModbusRtuOverTcpBus(host="127.0.0.1", port=int(served.rpartition(":")[2]), **common)
        else:
            config = (ModbusAsciiBus if kind == "ascii" else ModbusRtuBus)(port=line.port, **common)
        bus = _ADAPTERS[kind].open("line", config, devices)
        assert isinstance(bus, ModbusBus)
        jobs = {unit: bus.prepare(f"u{unit}", list(points)) for unit in units}
        try:
            yield Rig(line, bus, jobs, written, held_up)
        finally:
            await bus.close()


def changed(unit_offset: int = 0, function: int | None = None, count_offset: int = 0) -> Any:
    """A fault: a well-formed RTU reply, but of another unit, function or length."""

    def fault(_request: bytes, bursts: Sequence[Burst], _random: object) -> Sequence[Burst]:
        result = []
        for burst in bursts:
            unit, pdu = burst.data[0], burst.data[1:-2]
            if count_offset and pdu[0] == 3:
                words = pdu[2:] + b"\xee\xee" * count_offset if count_offset > 0 else pdu[2 : 2 * count_offset]
                pdu = bytes((3, len(words))) + words
            if function is not None:
                pdu = bytes((function,)) + pdu[1:]
            result.append(Burst(rtu_frame(unit + unit_offset, pdu), burst.after, burst.sender))
        return result

    return fault
