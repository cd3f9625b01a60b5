"""The fault proxy does what its faults are called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edged.testing.proxy import FaultProxy


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def say(proxy: FaultProxy, *, patience: float = 5) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(b"hello")
        async with asyncio.timeout(patience):
            return await reader.read(100)
    finally:
        writer.close()


async def test_it_forwards_both_ways() -> None:
    async with echo() as port, FaultProxy("127.0.0.1", port) as proxy:
        assert await say(proxy) == b"hello"


async def test_refusing_and_restoring() -> None:
    async with echo() as port, FaultProxy("127.0.0.1", port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        await proxy.refuse()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await say(proxy)
        await proxy.restore()
        assert await say(proxy) == b"hello"


async def test_a_black_hole_says_nothing() -> None:
    async with echo() as port, FaultProxy("127.0.0.1", port) as proxy:
        proxy.blackhole()
        with pytest.raises(TimeoutError):
            await say(proxy, patience=0.2)
        await proxy.restore()
        assert await say(proxy) == b"hello"


async def test_delay_and_an_upstream_that_is_gone() -> None:
    async with echo() as port, FaultProxy("127.0.0.1", port) as proxy:
        proxy.delay = 0.05
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await say(proxy) == b"hello"
        assert loop.time() - began >= 0.1
        proxy.upstream = ("127.0.0.1", 1)
        assert await say(proxy) == b""


async def test_what_is_held_arrives_late_but_whole() -> None:
    async with echo() as port, FaultProxy("127.0.0.1", port) as proxy:
        proxy.hold()
        with pytest.raises(TimeoutError):
            await say(proxy, patience=0.2)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x")
        await proxy.restore()
        assert await reader.read(1) == b"x"
        writer.close()


async def test_a_reset_in_the_middle_of_a_packet_lets_just_so_many_bytes_pass() -> None:
    async with echo() as port, FaultProxy("127.0.0.1", port) as proxy:
        proxy.reset_after(down=3)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(3) == b"hel"
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        assert proxy.resets == 1
        assert await say(proxy) == b"hello"
