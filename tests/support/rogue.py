"""A Modbus server that does what its script says, however wrong: for tests of everything a peer can get wrong.

    async with Rogue([good, wrong_unit, good]) as server: ...

The script is one behaviour per request; the last one is repeated. Each behaviour turns a request into actions: bytes
are written, a number is a pause in seconds, CLOSE and RESET end the connection. `good` answers reads with registers
that hold their own address, and confirms writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self


class _End:
    """Ends the connection."""


CLOSE: Final = _End()
"""A FIN, after everything written was sent."""
RESET: Final = _End()
"""A RST."""
Action = bytes | float | _End


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in."""

    framing: Literal["tcp", "rtu"]
    tid: int
    unit: int
    pdu: bytes
    connection: int
    """The how-manieth connection it came on, from 1."""

    @property
    def function(self) -> int:
        return self.pdu[0]

    @property
    def start(self) -> int:
        return int.from_bytes(self.pdu[1:3], "big")

    @property
    def count(self) -> int:
        return int.from_bytes(self.pdu[3:5], "big")

    def frame(self, pdu: bytes, *, tid: int | None = None, unit: int | None = None, length: int | None = None) -> bytes:
        """A reply around this PDU, with whatever is given put in place of what would be right."""
        unit = self.unit if unit is None else unit
        if self.framing == "rtu":
            body = bytes([unit]) + pdu
            return body + crc(body)
        tid = self.tid if tid is None else tid
        return struct.pack(">HHHB", tid & 0xFFFF, 0, len(pdu) + 1 if length is None else length, unit) + pdu


Behaviour = Callable[[Request], Iterable[Action]]


def crc(body: bytes) -> bytes:
    """The CRC of the serial line, bit by bit as the specification draws it, sharing no table with what is tested."""
    value = 0xFFFF
    for byte in body:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


def right(request: Request) -> bytes:
    """The right reply's PDU: each register holds its own address; a bit is the parity of its address."""
    if request.function in {1, 2}:
        bits = [(request.start + i) % 2 for i in range(request.count)]
        packed = bytes(sum(bit << n for n, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8))
        return bytes([request.function, len(packed)]) + packed
    if request.function in {3, 4}:
        words = [(request.start + i) & 0xFFFF for i in range(request.count)]
        return bytes([request.function, 2 * request.count]) + struct.pack(f">{request.count}H", *words)
    if request.function in {5, 6, 22}:
        return request.pdu
    return request.pdu[:5]


def good(request: Request) -> Iterator[Action]:
    yield request.frame(right(request))


def silent(_request: Request) -> Iterator[Action]:
    yield from ()


def late(seconds: float) -> Behaviour:
    def behave(request: Request) -> Iterator[Action]:
        yield seconds
        yield request.frame(right(request))

    return behave


def refuse(code: int) -> Behaviour:
    return lambda request: [request.frame(bytes([request.function | 0x80, code]))]


def refuse_where(dead: Callable[[Request], bool], code: int = 2) -> Behaviour:
    """An exception for the requests that `dead` picks, the right reply for the others."""
    return lambda request: refuse(code)(request) if dead(request) else good(request)


def send(data: bytes) -> Behaviour:
    """These bytes, whatever was asked."""
    return lambda _request: [data]


def wrong_unit(request: Request) -> Iterator[Action]:
    yield request.frame(right(request), unit=request.unit ^ 1)


def wrong_transaction(request: Request) -> Iterator[Action]:
    yield request.frame(right(request), tid=request.tid + 1)


def wrong_protocol(request: Request) -> Iterator[Action]:
    frame = request.frame(right(request))
    yield frame[:2] + b"\x00\x07" + frame[4:]


def wrong_function(request: Request) -> Iterator[Action]:
    pdu = right(request)
    yield request.frame(bytes([pdu[0] ^ 7]) + pdu[1:])


def length_field(error: int) -> Behaviour:
    """A header whose length is wrong by `error`."""
    return lambda request: [request.frame(right(request), length=len(right(request)) + 1 + error)]


def byte_count(error: int) -> Behaviour:
    """A byte count that is wrong by `error`, and nothing else wrong."""

    def behave(request: Request) -> Iterator[Action]:
        pdu = right(request)
        yield request.frame(pdu[:1] + bytes([pdu[1] + error]) + pdu[2:])

    return behave


def registers(error: int) -> Behaviour:
    """So many registers more or fewer than asked for, in a reply that is consistent in itself."""

    def behave(request: Request) -> Iterator[Action]:
        count = request.count + error
        pdu = bytes([request.function, 2 * count]) + b"\x12\x34" * count
        yield request.frame(pdu)

    return behave


def dripping(pause: float = 0.001) -> Behaviour:
    """The right reply byte by byte."""

    def behave(request: Request) -> Iterator[Action]:
        for byte in request.frame(right(request)):
            yield bytes([byte])
            yield pause

    return behave


def cut(after: int, end: _End = CLOSE) -> Behaviour:
    """So many bytes of the right reply, then the end of the connection."""
    return lambda request: [request.frame(right(request))[:after], end]


def closing(_request: Request) -> Iterator[Action]:
    yield CLOSE


def truncated(request: Request) -> Iterator[Action]:
    """Half of the right reply, and then nothing."""
    frame = request.frame(right(request))
    yield frame[: len(frame) // 2]


def corrupt(request: Request) -> Iterator[Action]:
    """The right reply with one bit flipped in its data."""
    frame = bytearray(request.frame(right(request)))
    frame[-3] ^= 0x10
    yield bytes(frame)


def preceded_by(noise: bytes) -> Behaviour:
    return lambda request: [noise + request.frame(right(request))]


def twice(request: Request) -> Iterator[Action]:
    yield request.frame(right(request)) * 2


@dataclass
class Rogue:
    """The server. `requests` remembers everything it was asked."""

    script: list[Behaviour]
    framing: Literal["tcp", "rtu"] = "tcp"
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        connection = self.connections
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    request = await self._receive(reader, connection)
                    self.requests.append(request)
                    behaviour = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                    if not await self._act(behaviour(request), writer):
                        break
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader, connection: int) -> Request:
        if self.framing == "tcp":
            header = await reader.readexactly(7)
            tid, _protocol, length, unit = struct.unpack(">HHHB", header)
            return Request("tcp", tid, unit, await reader.readexactly(length - 1), connection)
        head = await reader.readexactly(7)
        match head[1]:
            case 15 | 16:
                rest = await reader.readexactly(head[6] + 2)
            case 22:
                rest = await reader.readexactly(3)
            case 43:
                rest = b""
            case _:
                rest = await reader.readexactly(1)
        frame = head + rest
        assert crc(frame[:-2]) == frame[-2:], "the request has a wrong CRC"
        return Request("rtu", 0, frame[0], frame[1:-2], connection)

    async def _act(self, actions: Iterable[Action], writer: asyncio.StreamWriter) -> bool:
        for action in actions:
            if isinstance(action, bytes):
                writer.write(action)
                await writer.drain()
            elif isinstance(action, float | int):
                await asyncio.sleep(action)
            else:
                if action is RESET:
                    writer.transport.abort()
                return False
        return True
