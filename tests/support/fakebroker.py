"""A broker made of raw bytes, for what mosquitto cannot be made to do: refuse versions, go silent, lie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

CONNECT, CONNACK, PUBLISH, PUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 12, 14
OK = b"\x20\x03\x00\x00\x00"
"""CONNACK of MQTT 5: success, no session, no properties."""
OK_311 = b"\x20\x02\x00\x00"
REFUSED_311 = b"\x20\x02\x00\x01"
"""CONNACK of MQTT 3.1.1: unacceptable protocol version."""


def connack(code: int = 0, properties: bytes = b"") -> bytes:
    """A CONNACK of MQTT 5."""
    body = bytes([0, code, len(properties)]) + properties
    return bytes([CONNACK << 4, len(body)]) + body


@dataclass(frozen=True, slots=True)
class Published:
    """A PUBLISH that came."""

    topic: str
    payload: bytes
    mid: int
    retain: bool
    session: int
    """The number of the connection it came on, from 0."""


@dataclass
class FakeBroker:
    """Answers as it is told while its context lasts."""

    connack: Callable[[int, int], bytes | None] = lambda _number, version: OK if version == 5 else OK_311
    """(number of the connection, protocol version) → what to answer; b"" hangs up, None says nothing."""
    puback: Callable[[Published], int | None] = lambda _: 0
    """Reason code for a message; None says nothing, -1 hangs up."""
    published: list[Published] = field(default_factory=list)
    connects: list[int] = field(default_factory=list)
    """The protocol versions of the CONNECTs that came."""
    pings: int = 0
    port: int = 0

    async def __aenter__(self) -> Self:
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        self.hang_up()
        await asyncio.sleep(0.01)

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.close()

    def say(self, data: bytes) -> None:
        """Send raw bytes to every client."""
        for writer in self._writers:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._session(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, version = len(self.connects), 5
        while True:
            kind, flags, body = await read_packet(reader)
            answer: bytes | None = None
            if kind == CONNECT:
                version = body[6]
                self.connects.append(version)
                answer = self.connack(number, version)
                if answer == b"":
                    return
            elif kind == PUBLISH:
                message = parse_publish(flags, body, version, number)
                self.published.append(message)
                code = self.puback(message)
                if code == -1:
                    return
                if code is not None:
                    answer = make_puback(message.mid, code, version)
            elif kind == PINGREQ:
                self.pings += 1
                answer = b"\xd0\x00"
            elif kind == DISCONNECT:
                return
            if answer:
                writer.write(answer)
                await writer.drain()


def make_puback(mid: int, code: int, version: int) -> bytes:
    """A PUBACK."""
    body = mid.to_bytes(2, "big") + (bytes([code, 0]) if version == 5 else b"")
    return bytes([PUBACK << 4, len(body)]) + body


def parse_publish(flags: int, body: bytes, version: int, session: int) -> Published:
    """What a PUBLISH says."""
    length = int.from_bytes(body[:2], "big")
    topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
    mid, rest = int.from_bytes(rest[:2], "big"), rest[2:]
    if version == 5:
        size = shift = at = 0
        while True:
            size |= (rest[at] & 127) << shift
            shift += 7
            at += 1
            if not rest[at - 1] & 128:
                break
        rest = rest[at + size :]
    return Published(topic, bytes(rest), mid, bool(flags & 1), session)


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """(kind, flags, all behind the length) of the next packet. Raises IncompleteReadError at the end."""
    first = (await reader.readexactly(1))[0]
    size = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return first >> 4, first & 15, await reader.readexactly(size)
