"""What the servers that speak HTTP/1.1 have in common: one request, one reply, and the end of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import h11

IDLE = 30.0
"""Seconds a client may take for its request, or to take what is sent to it."""


async def next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """What a client asks, its body left out; None if it goes away before.

    Raises h11.RemoteProtocolError, TimeoutError, OSError.
    """
    async with asyncio.timeout(IDLE):
        return await _next_request(connection, reader)


async def _next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65_536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed):
            return None


def begin(
    connection: h11.Connection, writer: asyncio.StreamWriter, status: int, kind: str,
    headers: Sequence[tuple[str, str]] = (),
) -> None:  # fmt: skip
    """Begin a reply of this content type."""
    head = [("content-type", kind), ("connection", "close"), ("server", "edged"), *headers]
    writer.write(connection.send(h11.Response(status_code=status, headers=head)) or b"")


async def send(connection: h11.Connection, writer: asyncio.StreamWriter, body: AsyncIterator[bytes]) -> None:
    """The body and the end of a reply. Raises TimeoutError when the client does not take it, OSError."""
    async for part in body:
        writer.write(connection.send(h11.Data(data=part)) or b"")
        async with asyncio.timeout(IDLE):
            await writer.drain()
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    async with asyncio.timeout(IDLE):
        await writer.drain()
