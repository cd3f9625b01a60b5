"""Our own RTU master, on any wire that carries bytes: here the TCP connection to a serial server.

RTU frames have no number, so that a late reply looks like the reply to the next request of the same shape (pymodbus
takes it for that). So after a request that was not answered properly, or was cancelled, nothing is sent until a late
reply would have come: until twice the time has passed that the device is given to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol, TypeVar

from edged.adapter import Reason, TransientError
from edged.media import FrameRing

from .config import ModbusRtuOverTcpBus
from .frame import RtuReplyParser, rtu_frame
from .link import NETWORK_FRAMES, Endpoint, Moment, now
from .pdu import DeviceFailureError, InvalidReplyError, RefusedError, Request

T = TypeVar("T")

_DUPLICATE_QUIET = 0.05
"""Seconds to listen after bytes that nobody asked for: more may follow."""
_UNREAD = 4096
"""Most bytes to keep that nobody reads; older ones are noise."""


class Wire(Protocol):
    """What the master needs of the medium. A serial port fits as well as a connection."""

    arrived: Moment
    """When the bytes came that were read last."""
    ring: FrameRing
    """What went over it lately."""

    async def open(self) -> None:
        """Be ready to write and read; nothing to do if it is. Raises TransientError `unreachable`."""
        ...

    def write(self, data: bytes) -> None:
        """Send, without waiting."""
        ...

    async def read(self) -> bytes:
        """Some bytes, as soon as there are any. Raises TransientError when the wire is gone."""
        ...

    def pending(self) -> bytes:
        """What has come and was not read yet; from now on it counts as read."""
        ...

    def close(self) -> None:
        """Forget everything under way. Idempotent."""
        ...


class RtuMaster:
    """A link that speaks RTU. One request is on the wire at a time."""

    def __init__(self, wire: Wire) -> None:
        self.arrived: Moment = (0, 0)
        self.foreign = 0
        self.news: list[str] = []
        self.ring = wire.ring
        self._wire = wire
        self._owed: RtuReplyParser | None = None
        """Would recognise the reply that may still come to a request that was given up."""
        self._quiet_until = 0.0

    async def exchange(self, unit: int, request: Request[T], within: float) -> T:
        """See `Link`. A failure takes twice as long as `within`, because of the silence after it."""
        await self._settle()
        await self._wire.open()
        if self._wire.pending():
            self.foreign += 1
            self._be_quiet(_DUPLICATE_QUIET)
            await self._settle()
            await self._wire.open()
        try:
            reply = await self._transact(unit, request, within)
        except TransientError:
            await self._settle()
            raise
        return request.parse(reply)

    async def close(self) -> None:
        """See `Link`."""
        self._wire.close()
        await asyncio.sleep(0)  # asyncio closes the socket in the next turn of its loop

    async def _transact(self, unit: int, request: Request[Any], within: float) -> bytes:
        parser = RtuReplyParser(unit, request)
        answered_by = asyncio.get_running_loop().time() + 2 * within
        try:
            self._wire.write(rtu_frame(unit, request.pdu))
            async with asyncio.timeout(within):
                while (reply := parser.feed(await self._wire.read())) is None:
                    pass
            self._validate(request, reply)
        except TimeoutError:
            self._give_up(parser, answered_by)
            if parser.received:
                raise InvalidReplyError(parser.complaint()) from None
            raise TransientError(f"no answer within {within:g} s", reason=Reason.TIMEOUT) from None
        except BaseException:
            self._give_up(parser, answered_by)
            raise
        self.arrived = self._wire.arrived
        if parser.skipped or parser.rest:
            self.foreign += 1
        if parser.rest:
            self._be_quiet(_DUPLICATE_QUIET)
        return reply

    def _validate(self, request: Request[Any], reply: bytes) -> None:
        """Find an invalid reply while it can still be given up. Raises InvalidReplyError."""
        with contextlib.suppress(RefusedError, DeviceFailureError):
            request.parse(reply)

    def _give_up(self, parser: RtuReplyParser, until: float) -> None:
        self._wire.close()
        self._owed = parser
        self._quiet_until = max(self._quiet_until, until)

    def _be_quiet(self, seconds: float) -> None:
        self._quiet_until = max(self._quiet_until, asyncio.get_running_loop().time() + seconds)

    async def _settle(self) -> None:
        """Listen, without sending, until no late reply is to be expected any more."""
        if self._quiet_until <= asyncio.get_running_loop().time():
            return
        try:
            async with asyncio.timeout_at(self._quiet_until):
                while asyncio.get_running_loop().time() < self._quiet_until:
                    await self._listen()
        except TimeoutError:
            pass
        self._owed = None

    async def _listen(self) -> None:
        try:
            await self._wire.open()
            data = await self._wire.read()
        except TransientError:
            self._wire.close()
            await asyncio.sleep(self._quiet_until - asyncio.get_running_loop().time())
            return
        if self._owed is None or self._owed.feed(data) is not None:
            self.foreign += 1


class TcpWire(asyncio.Protocol):
    """The bytes of one TCP connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.arrived: Moment = (0, 0)
        self.ring = FrameRing(NETWORK_FRAMES)
        self._endpoint = endpoint
        self._connection: _Connection | None = None

    async def open(self) -> None:
        """See `Wire`."""
        if self._connection is None or self._connection.lost:
            self.close()
            self._connection = await self._endpoint.open(self._connect)

    async def _connect(self, address: str) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self.ring), address, self._endpoint.port)
        return connection

    def write(self, data: bytes) -> None:
        """See `Wire`."""
        if self._connection is not None and self._connection.transport is not None:
            self.ring.add(now()[1], "tx", data)
            self._connection.transport.write(data)

    async def read(self) -> bytes:
        """See `Wire`."""
        connection = self._connection
        if connection is None:
            raise TransientError(f"there is no connection to {self._endpoint}", reason=Reason.UNREACHABLE)
        data = await connection.read()
        if not data:
            # The link itself works: it could be opened.
            raise TransientError(f"{self._endpoint} closed the connection", reason=Reason.PROTOCOL)
        self.arrived = connection.arrived
        return data

    def pending(self) -> bytes:
        """See `Wire`."""
        return self._connection.take() if self._connection is not None else b""

    def close(self) -> None:
        """See `Wire`."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.transport is not None:
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, ring: FrameRing) -> None:
        self.ring = ring
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.arrived: Moment = (0, 0)
        self._buffer = bytearray()
        self._reader: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a connection's is one

    def data_received(self, data: bytes) -> None:
        self.arrived = now()
        self.ring.add(self.arrived[1], "rx", data)
        self._buffer += data
        del self._buffer[:-_UNREAD]
        self._wake()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost = True
        self._wake()

    def take(self) -> bytes:
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def read(self) -> bytes:
        """What has come, or comes next; nothing once the connection is gone."""
        if not self._buffer and not self.lost:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self.take()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def rtu_over_tcp_links(config: ModbusRtuOverTcpBus) -> list[RtuMaster]:
    """The link of a bus behind a serial server: one, since the line behind it carries one request at a time."""
    return [RtuMaster(TcpWire(Endpoint(config.host, config.port, config.timeout)))]
