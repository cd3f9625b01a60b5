"""A TCP proxy that misbehaves on demand: what a bad network does to a connection, without one and without root."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

_HANDED_OVER = 0.01
"""Seconds between the last bytes and the reset, which would overtake them otherwise."""


class FaultProxy:
    """Forwards one local port to an upstream while its context lasts; each fault can be switched at any moment.

    `refuse()` resets what is connected and refuses what comes, as a stopped broker does. `blackhole()` swallows bytes
    in both directions and says nothing, as a dead modem does. `hold()` keeps them back, as a link does that is gone so
    shortly that TCP repeats them. `reset()` cuts what is connected once, `reset_after()` in the middle of a packet.
    `restore()` ends refusing, swallowing and holding. `delay` (seconds each way) and `rate` (bytes a second) make the
    link slow.
    """

    def __init__(self, host: str, port: int, *, listen: int = 0) -> None:
        self.upstream = (host, port)
        self.port = listen
        """Where it listens; the real port once the context is entered."""
        self.delay = 0.0
        self.rate: float | None = None
        self.accepted = 0
        """How many connections it has forwarded."""
        self.resets = 0
        """How many connections were cut because of `reset_after()`."""
        self._swallow = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._limit: dict[str, int] = {}
        """Direction → bytes that may still pass before the cut."""
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        """Bound as long as the context lasts, so that nobody else takes the port while it refuses."""

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.refuse()
        if self._socket is not None:
            self._socket.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _listen(self) -> None:
        if self._socket is None:
            with _bound(self.port) as probe:  # only a port that was asked for outlives the end of listening
                self.port = probe.getsockname()[1]
                self._socket = _bound(self.port)
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=self._socket.dup())

    async def refuse(self) -> None:
        """Reset every connection and accept none until `restore()`."""
        if self._server is not None and self._socket is not None:
            self._server.close()
            self._server = None
            self._socket.shutdown(socket.SHUT_RD)  # it listens no longer, but stays bound
        self.reset()

    def reset(self) -> None:
        """Cut every connection with a reset."""
        for writer in self._open:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def blackhole(self) -> None:
        """Swallow everything, also of new connections, until `restore()`. What was swallowed never arrives."""
        self._swallow = True

    def hold(self) -> None:
        """Keep everything back until `restore()`, which lets it arrive: late, but whole."""
        self._flowing.clear()

    def reset_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Once, when so many more bytes have gone to the upstream or come from it, cut every connection with a reset.

        The bytes before the cut arrive, those behind it never do. Counted from now on.
        """
        self._limit = {way: limit for way, limit in (("up", up), ("down", down)) if limit is not None}

    async def restore(self) -> None:
        """Be a faithful proxy again. Connections that lost bytes are cut, since TCP could not have lost them."""
        self._limit = {}
        self._flowing.set()
        if self._swallow:
            self._swallow = False
            self.reset()
        await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            self._tasks.add(task)
        self._open.add(writer)
        up: asyncio.StreamWriter | None = None
        try:
            answer, up = await asyncio.open_connection(*self.upstream)
            self._open.add(up)
            self.accepted += 1
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, up, "up"))
                group.create_task(self._pump(answer, writer, "down"))
        except OSError:
            pass  # the upstream refuses: so do we
        except asyncio.CancelledError:
            pass  # the context ends; asyncio's server would log a cancelled handler as an error
        finally:
            for one in (writer, up):
                if one is not None:
                    self._open.discard(one)
                    one.close()
            if task:
                self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        try:
            while data := await reader.read(65_536):
                if self.delay or self.rate:
                    await asyncio.sleep(self.delay + (len(data) / self.rate if self.rate else 0))
                await self._flowing.wait()
                if self._swallow:
                    continue
                room = self._limit.get(way, len(data))
                writer.write(data[:room])
                await writer.drain()
                if way in self._limit:
                    self._limit[way] = room - len(data)
                    if self._limit[way] <= 0:
                        self._limit = {}
                        self.resets += 1
                        await asyncio.sleep(_HANDED_OVER)
                        self.reset()
        except ConnectionError:
            pass  # one side is gone: tell the other
        writer.close()


def _bound(port: int) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    return one
