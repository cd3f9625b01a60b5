"""A poll that is cancelled, at whatever moment, leaves nothing behind that a later poll could take for its own.

Each reply holds the address that was asked for and the number of the request, so that a reply to any other request is
told from the right one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edged.adapter import TransientError
from edged_modbus.point import ModbusPoint
from tests.support import rogue
from tests.support.modbus import HOST, device, holding, opened, values
from tests.support.rogue import Action, Request, Rogue
from tests.support.stalls import stalls

PAIRS = {
    f"{what}{start}": ModbusPoint(holding=start + i)
    for start in range(0, 4000, 1000)
    for i, what in enumerate(("address", "number"))
}
WITHIN = 0.04


class Line:
    """A serial server and one slow device. What the device answers goes to whoever is connected by then."""

    def __init__(self, seed: int) -> None:
        self.number = 0
        self._random = random.Random(seed)
        self._requests: asyncio.Queue[bytes] = asyncio.Queue()
        self._writer: asyncio.StreamWriter | None = None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while request := await reader.read(8):
                self._requests.put_nowait(request)
        writer.close()

    async def answer(self) -> None:
        while True:
            request = await self._requests.get()
            self.number += 1
            body = self._reply(request)
            await asyncio.sleep(self._random.choice([0, 0, 0.001, 0.01, 1.5 * WITHIN]))
            if self._writer is not None and not self._writer.is_closing():
                self._writer.write(body + rogue.crc(body))

    def _reply(self, request: bytes) -> bytes:
        if request[1] != 3:
            return bytes([1, request[1] | 0x80, 1])
        address = request[2:4] if int.from_bytes(request[2:4], "big") % 1000 == 0 else b""
        words = address + struct.pack(">H", self.number & 0xFFFF) + bytes(246)
        return bytes([1, 3, 2 * request[5]]) + words[: 2 * request[5]]


@contextlib.asynccontextmanager
async def serial_line(seed: int) -> AsyncIterator[tuple[Line, int]]:
    line = Line(seed)
    server = await asyncio.start_server(line.connected, HOST, 0)
    task = asyncio.create_task(line.answer())
    try:
        yield line, server.sockets[0].getsockname()[1]
    finally:
        task.cancel()
        server.close()


async def _try_to_confuse(bus: object, number: object, seed: int, rounds: int) -> int:
    """Poll different addresses of one shape, cancel some at random moments, check the others. Returns how many came."""
    chance = random.Random(seed)
    jobs = [bus.prepare("m", [f"address{start}", f"number{start}"]) for start in range(0, 4000, 1000)]  # type: ignore[attr-defined]  # a bus
    right = 0
    for _ in range(rounds):
        which = chance.randrange(4)
        task = asyncio.create_task(bus.poll(jobs[which]))  # type: ignore[attr-defined]  # the same
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 1.5 * WITHIN * chance.choice([0.02, 1]))
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
                continue
        with contextlib.suppress(TransientError):
            result = await task
            read, last = values(result), number()  # type: ignore[operator]  # counts
            # Where one of the two was late they are read apart from then on: then the last request is not the number's.
            address, count = read.get(f"address{1000 * which}", 1000 * which), read.get(f"number{1000 * which}", last)
            assert address == 1000 * which, "a reply to another request was published"
            assert isinstance(count, int)
            assert last - max(result.transactions, 1) < count <= last, "an old reply was published"
            right += bool(read)
    return right


@pytest.mark.parametrize("seed", range(4))
async def test_tcp_never_publishes_the_reply_to_a_cancelled_request(seed: int) -> None:
    chance = random.Random(seed)

    def behave(request: Request) -> list[Action]:
        words = struct.pack(">HH", request.start, len(server.requests) & 0xFFFF)
        return [chance.choice([0, 0, 0, 0.001, 0.01, 1.5 * WITHIN]), request.frame(b"\x03\x04" + words)]

    async with Rogue([behave]) as server, opened("tcp", server.port, device(PAIRS, timeout=WITHIN)) as bus:
        assert await _try_to_confuse(bus, lambda: len(server.requests), seed, 100) > 20


@pytest.mark.parametrize("seed", range(3))
async def test_rtu_never_publishes_the_reply_to_a_cancelled_request(seed: int) -> None:
    async with (
        serial_line(seed) as (line, port),
        opened("rtu-over-tcp", port, device(PAIRS, timeout=WITHIN)) as bus,
    ):
        assert await _try_to_confuse(bus, lambda: line.number, seed, 40) > 3


@pytest.mark.parametrize(("kind", "framing"), [("tcp", "tcp"), ("rtu-over-tcp", "rtu")])
async def test_a_cancellation_is_never_swallowed_whichever_step_it_meets(kind: str, framing: str) -> None:
    """Cancel after one, two, three … turns of the loop, so that it meets every step of a poll and the reply itself."""
    server = Rogue([rogue.good], framing=framing)  # type: ignore[arg-type]  # parametrised
    points = holding(5)
    async with server, opened(kind, server.port, device(points, timeout=0.02)) as bus, stalls() as held_up:
        job = bus.prepare("m", ["h5"])
        met = 0

        async def read() -> dict[str, Any] | None:
            with contextlib.suppress(TransientError):
                return values(await bus.poll(job))
            return None

        for turns in range(40):
            for connected in (False, True):
                if connected:
                    assert await held_up.again(read) == {"h5": 5}
                else:
                    await bus.close()
                before = held_up.count
                task = asyncio.create_task(bus.poll(job))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if task.cancel():
                    met += 1
                    with pytest.raises(asyncio.CancelledError):
                        await task
                elif not task.exception() or held_up.count == before:
                    assert values(task.result()) == {"h5": 5}
        assert met > 10
        assert await held_up.again(read) == {"h5": 5}


async def test_a_time_out_around_a_poll_is_one() -> None:
    async with Rogue([rogue.silent]) as server, opened("tcp", server.port, device(holding(1), timeout=30)) as bus:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await bus.poll(bus.prepare("m", ["h1"]))


async def test_a_task_group_ends_polls_that_wait() -> None:
    async def fail() -> None:
        await asyncio.sleep(0.02)
        raise ValueError("a sibling fails")

    async with Rogue([rogue.silent]) as server, opened("tcp", server.port, device(holding(1), timeout=30)) as bus:
        job = bus.prepare("m", ["h1"])

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(bus.poll(job))
                group.create_task(fail())

        with pytest.raises(ExceptionGroup, match="unhandled errors"):
            await asyncio.wait_for(both(), 5)


async def test_closing_twice_and_without_a_connection_is_fine() -> None:
    async with Rogue([rogue.good]) as server:
        async with opened("tcp", server.port, device(holding(1))) as bus:
            await bus.close()
            assert values(await bus.poll(bus.prepare("m", ["h1"]))) == {"h1": 1}
            await bus.close()
            await bus.close()
        await asyncio.sleep(0.02)
        assert server.open == 0
