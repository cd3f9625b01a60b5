"""One connection to a server that speaks HTTP/1.1: one request at a time, and never another one's answer.

h11 knows the protocol; this is what it leaves open: connecting, time limits, and when a connection can be used again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h11

from edged.errors import TransientError
from edged.uplink.api import CLOSED, SILENT
from edged.uplink.dialects.http import Origin, Reply
from edged.uplink.links.reasons import clean
from edged.uplink.links.tls import explain

_PIECE = 16 * 1024
"""Bytes to hand over at a time: each must have left within the time limit."""
_LOOKED_AT = 4096
_READ = 1024 * 1024
"""Bytes of an answer's body: of those nobody looks at more, of these no more are read."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes = b""


class Names:
    """Looks names up. A look-up cannot be cancelled: never is a second one begun beside one that hangs."""

    def __init__(self) -> None:
        self._pending: asyncio.Future[Any] | None = None

    async def addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        """Where a host is. Raises OSError or UnicodeError."""
        if self._pending is None or self._pending.done():
            loop = asyncio.get_running_loop()
            self._pending = asyncio.ensure_future(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            self._pending.add_done_callback(_heard)
        found = await asyncio.shield(self._pending)
        return list(dict.fromkeys((address[0], address[1]) for *_, address in found))


def _heard(done: asyncio.Future[Any]) -> None:
    """Nobody may wait any more for how it ended."""
    if not done.cancelled():
        done.exception()


@dataclass(slots=True)
class Wire:
    """One connection."""

    origin: Origin
    tls: ssl.SSLContext | None
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: int = 0
    """Requests so far."""
    _http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))
    _answering: bool = False
    """Whether a byte of the current answer has come."""
    _watch: asyncio.Task[bytes] | None = None
    """While nothing is asked, nothing may come: this waits for it."""

    @classmethod
    async def open(
        cls, origin: Origin, names: Names, tls: ssl.SSLContext | None, server_name: str, limit: float
    ) -> Wire:
        """Connect. Raises OSError or UnicodeError. `limit`: seconds, shared by all addresses that the name has."""
        last: OSError | None = None
        name = (server_name or origin.host) if tls else None
        addresses = await names.addresses(origin.host, origin.port)
        for host, port in addresses:
            try:
                async with asyncio.timeout(limit / len(addresses)):
                    reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name)
            except ssl.SSLError:
                raise
            except OSError as exc:
                last = exc
            else:
                writer.transport.set_write_buffer_limits(0)  # so that draining tells that all has left
                return cls(origin, tls, reader, writer)
        raise last or OSError("it has no address")

    @property
    def version(self) -> str:
        """How it is protected, for people."""
        made = self.writer.get_extra_info("ssl_object")
        return f"HTTP/1.1, {made.version()}" if made else "HTTP/1.1, not encrypted"

    @property
    def untouched(self) -> bool:
        """Whether it has carried requests before, and nothing came back of the last: it may have been closed before."""
        return self.used > 1 and not self._answering

    def rest(self) -> None:
        """Nothing is asked for now."""
        self._watch = asyncio.create_task(self.reader.read(1), name="http idle connection")

    async def wake(self) -> bool:
        """Whether it can be used again: it was not closed, and nothing came unasked."""
        watch = self._watch
        if watch is None:
            return False
        for _ in range(3):  # what has come goes through the loop, the stream and the task before it is seen
            await asyncio.sleep(0)
        watch.cancel()
        await asyncio.wait([watch])
        self._watch = None
        if watch.cancelled():
            return True
        watch.exception()
        return False

    async def exchange(self, request: Request, limit: float) -> Reply:
        """The answer to a request. Raises TransientError (`silent` or `closed`) when there is none, and what TLS says.

        `limit`: seconds for each piece of the request to leave, and for the whole answer after that.
        """
        self.used += 1
        self._answering = False
        answer = asyncio.create_task(self._answer(), name="http answer")
        try:
            await self._send(request, limit, answer)
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError as exc:
            begun = "its answer did not end" if self._answering else "no answer came"
            raise TransientError(f"{begun} within {limit:g} s", reason=SILENT) from exc
        except ssl.SSLError as exc:
            raise explain(exc, str(self.origin)) from exc
        except OSError as exc:
            raise TransientError(f"the connection broke: {exc.strerror or exc}", reason=CLOSED) from exc
        except h11.ProtocolError as exc:
            what = "its answer is not HTTP, or incomplete" if self._answering else "it hung up without an answer"
            raise TransientError(f"{what} ({clean(str(exc))})", reason=CLOSED) from exc
        finally:
            if not answer.done():
                answer.cancel()
                await asyncio.wait([answer])
            _heard(answer)

    async def _send(self, request: Request, limit: float, answer: asyncio.Task[Reply]) -> None:
        """Write until all has left, the answer is there already, or the connection breaks: then the answer says so."""
        head = h11.Request(
            method=request.method, target=request.target,
            headers=[*request.headers, ("Content-Length", str(len(request.body)))],
        )  # fmt: skip
        pieces = [request.body[at : at + _PIECE] for at in range(0, len(request.body), _PIECE)]
        events = [head, *(h11.Data(data=piece) for piece in pieces), h11.EndOfMessage()]
        with suppress(ConnectionError):
            for event in events:
                if answer.done():
                    return
                self.writer.write(self._http.send(event) or b"")
                if self.writer.transport.get_write_buffer_size():
                    await self._leave(limit, answer)

    async def _leave(self, limit: float, answer: asyncio.Task[Reply]) -> None:
        """Wait until what was written has left, or the answer comes before. Raises TimeoutError and ConnectionError."""
        drained = asyncio.create_task(self.writer.drain(), name="http request")
        try:
            done, _ = await asyncio.wait([drained, answer], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if drained in done:
                drained.result()
            if not done:
                raise TimeoutError
        finally:
            drained.cancel()
            await asyncio.wait([drained])
            _heard(drained)

    async def _answer(self) -> Reply:
        """Read one whole answer; interim ones (1xx) are passed over."""
        head: h11.Response | None = None
        body = bytearray()
        size = 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self.reader.read(65_536)
                self._answering = self._answering or bool(data)
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                size += len(event.data)
                body += event.data[: max(0, _LOOKED_AT - len(body))]
                if size > _READ and head is not None:
                    return _reply(head, bytes(body))
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _reply(head, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("the connection was closed")

    def reusable(self) -> bool:
        """Whether another request may follow the one that was answered; makes it ready for that."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if self._http.trailing_data[0] or self.reader.at_eof():
            return False
        self._http.start_next_cycle()
        return True

    async def close(self) -> None:
        """Close it at once."""
        if self._watch is not None:
            await self.wake()
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()


def _reply(head: h11.Response, body: bytes) -> Reply:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers}
    return Reply(head.status_code, head.reason.decode("latin-1"), headers, body)
