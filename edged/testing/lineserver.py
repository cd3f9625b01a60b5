"""A simulated line behind a simulated serial server: what comes over TCP goes onto the line, and back."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from edged.errors import ConfigError
from edged.media.settings import remote_address

from .line import Line

_ONCE = 4096


@asynccontextmanager
async def reachable(line: Line, bus: str, port: str, host: str) -> AsyncIterator[str]:
    """Serve an open line as its bus's `port` says, and yield what to write there.

    That is the line's own port, or, for `socket://`, exactly that address if it is this machine's own; else one on
    `host`. Raises ConfigError.
    """
    if "://" not in port:
        yield line.port
        return
    if not port.startswith("socket://"):
        raise ConfigError(f"bus {bus}: {port} cannot be simulated; try it with socket://")
    slave = os.open(line.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        connections: set[asyncio.Transport] = set()
        server, where = await _listen(lambda: _Connection(slave, connections), bus, port, host)
        try:
            yield where
        finally:
            server.close()
            asyncio.get_running_loop().remove_reader(slave)
            for transport in tuple(connections):
                transport.abort()
    finally:
        os.close(slave)


async def _listen(
    factory: Callable[[], asyncio.Protocol], bus: str, port: str, host: str
) -> tuple[asyncio.Server, str]:
    wanted, number = remote_address(port)
    loop = asyncio.get_running_loop()
    places = [(wanted, number)] if _is_here(wanted) else [(host, number), (host, 0)]
    for where in places:
        try:
            server = await loop.create_server(factory, *where)
        except OSError as exc:
            if where != places[-1]:
                continue
            raise ConfigError(
                f"bus {bus}: cannot listen on {where[0]}:{where[1]} ({exc.strerror or exc}): "
                f"give the bus another port above 1023, or stop what uses this one"
            ) from exc
        name = f"[{where[0]}]" if ":" in where[0] else where[0]
        return server, f"socket://{name}:{server.sockets[0].getsockname()[1]}"
    raise AssertionError


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Connection(asyncio.Protocol):
    """Who connected last gets what comes from the line."""

    def __init__(self, slave: int, connections: set[asyncio.Transport]) -> None:
        self._slave = slave
        self._connections = connections
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a connection's is one
        self._connections.add(self._transport)  # type: ignore[arg-type]  # the same
        asyncio.get_running_loop().add_reader(self._slave, self._readable)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._transport is not None:
            self._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the line is unplugged, or nobody takes it off
            os.write(self._slave, data)

    def _readable(self) -> None:
        data = b""
        with contextlib.suppress(BlockingIOError, OSError):
            data = os.read(self._slave, _ONCE)
        if not data:
            asyncio.get_running_loop().remove_reader(self._slave)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
