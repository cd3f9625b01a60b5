"""What those promise that are asked instead of sending."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest

from edged.errors import EdgedError
from edged.uplink.api import (
    Server,
)
from edged.uplink.connectors import load_server
from edged_modbus.exposed import ServedPoint
from tests.contract.rig import (
    SERVERS,
    check_line,
    context,
    left_open,
)
from tests.support.mosquitto import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto


def server_of(name: str, port: int) -> Server:
    connector = load_server(name)
    more: dict[str, Any] = {"points": {"chiller/supply": ServedPoint(input=0)}} if name == "modbus-server" else {}
    config = connector.connection_config(connector=name, **{"listen": f"127.0.0.1:{port}", **more})
    return connector.server(config, context())


async def run_once(server: Server, port: int) -> tuple[int, int, int]:
    """Serve some clients and end; what is left open."""
    assert not server.state().listening
    running = asyncio.create_task(server.run())
    await until(lambda: server.state().listening == f"127.0.0.1:{port}")
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    await until(lambda: server.state().clients == 3)
    clients[0][1].close()
    await until(lambda: server.state().clients == 2)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    for reader, writer in clients[1:]:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    await until(lambda: server.state().clients == 0)
    await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    return left_open()


@pytest.mark.parametrize("name", sorted(SERVERS))
async def test_a_server_listens_while_it_runs_and_leaves_nothing_behind(name: str) -> None:
    port = free_port()
    once = await run_once(server_of(name, port), port)
    again = await run_once(server_of(name, port), port)
    assert all(one <= then for one, then in zip(again, once, strict=True))


@pytest.mark.parametrize("name", sorted(SERVERS))
async def test_a_server_whose_port_is_taken_says_so_and_may_try_again(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = server_of(name, port)
        with pytest.raises(EdgedError, match=f"127.0.0.1:{port}") as caught:
            await server.run()
        check_line(caught.value)
    running = asyncio.create_task(server.run())
    await until(lambda: server.state().listening)
    running.cancel()
    await asyncio.wait([running])
