"""Stands before a broker and refuses messages of readings in its stead; all else passes."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import orjson

from tests.support.fakebroker import CONNECT, PUBLISH, make_puback, parse_publish, read_packet


class Refuser:
    """Answers the next messages of readings with the PUBACKs in `codes`, without handing them over."""

    def __init__(self, upstream: int) -> None:
        self.codes: list[int] = []
        self.refused: list[tuple[int, int]] = []
        """The first and the last sample of each message that was refused."""
        self.port = 0
        self._upstream = upstream
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        answers, up = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_up(reader, up, writer))
                group.create_task(self._pass_down(answers, writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # one side has ended
        except* asyncio.CancelledError:
            pass  # the context ends; asyncio's server would log a cancelled handler as an error
        finally:
            self._tasks.discard(task)
            up.close()
            writer.close()

    async def _pass_up(
        self, reader: asyncio.StreamReader, up: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        version = 5
        while True:
            kind, flags, body = await read_packet(reader)
            if kind == CONNECT:
                version = body[6]
            elif kind == PUBLISH and self.codes:
                message = parse_publish(flags, body, version, 0)
                if message.topic.endswith("/data"):
                    writer.write(make_puback(message.mid, self.codes.pop(0), version))
                    payload = orjson.loads(message.payload)
                    self.refused.append((payload.get("first", payload["seq"]), payload["seq"]))
                    continue
            up.write(_raw(kind, flags, body))
            await up.drain()

    async def _pass_down(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(_raw(*await read_packet(answers)))
            await writer.drain()


def _raw(kind: int, flags: int, body: bytes) -> bytes:
    size, length = bytearray(), len(body)
    while True:
        size.append(length & 127 | (128 if length > 127 else 0))  # MQTT's variable byte integer
        length >>= 7
        if not length:
            return bytes([kind << 4 | flags]) + size + body
