"""A server that takes readings over HTTP, made of the standard library. It can misbehave in each phase of an answer."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import orjson

from edged.testing.audit import Audit
from tests.support.pki import Pki


@dataclass(frozen=True)
class Taken:
    """A request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    """Which connection it came over, counted from 1."""
    peer: str = ""
    """The name in the client's certificate."""

    def header(self, name: str) -> str:
        return next((text for known, text in self.headers if known.lower() == name.lower()), "")

    @property
    def plain(self) -> bytes:
        """The body, unpacked."""
        match self.header("content-encoding"):
            case "gzip":
                return gzip.decompress(self.body)
            case "deflate":
                return zlib.decompress(self.body)
        return self.body


@dataclass(frozen=True)
class Answer:
    """What is said to a request. `raw` instead of a proper answer; then the connection is closed."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None
    reset: bool = False
    """Instead of an answer, or after `raw`."""
    wait: float = 0.0
    """Seconds before the answer, unless the server is stopped."""


GOOD = Answer()


class HttpServer:
    """Listens on a port of its own while started; `answer` decides what each request is told."""

    def __init__(self, answer: Callable[[Taken], Answer] = lambda _: GOOD, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.taken: list[Taken] = []
        """Requests that were answered with 2xx, in the order of their coming."""
        self.requests: list[Taken] = []
        """All of them."""
        self.port = 0
        self.connections = 0
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://localhost:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._stopped.clear()
        self._server = _Threads(("127.0.0.1", self.port), self._handler())
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Reset what is connected, and listen no longer."""
        if self._server is None or self._thread is None:
            return
        self._stopped.set()
        self._server.shutdown()
        with self._lock:
            for one in self._open:
                reset(one)
        self._server.server_close()
        self._thread.join()
        self._server = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            number = 0

            def setup(self) -> None:
                if outer._tls is not None:
                    self.request.settimeout(5)
                    self.request = outer._tls.wrap_socket(self.request, server_side=True)
                with outer._lock:
                    outer.connections += 1
                    self.number = outer.connections
                    outer._open.add(self.request)
                super().setup()

            def finish(self) -> None:
                with outer._lock:
                    outer._open.discard(self.request)
                with contextlib.suppress(OSError):
                    super().finish()
                self.request.close()  # of TLS it is another one than that which the server closes

            def take(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                if len(body) < length:
                    self.close_connection = True
                    return
                one = Taken(self.command, self.path, list(self.headers.items()), body, self.number, _peer(self.request))
                with outer._lock:
                    outer.requests.append(one)
                    answer = outer.answer(one)
                    if answer.raw is None and not answer.reset and 200 <= answer.status < 300:
                        outer.taken.append(one)
                outer._stopped.wait(answer.wait)
                outer._say(self, answer)

            do_POST = do_PUT = do_PATCH = do_GET = take  # noqa: N815  # as the base class wants them

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _say(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.raw is not None:
            handler.wfile.write(answer.raw)
            handler.wfile.flush()
        if answer.raw is not None or answer.reset:
            handler.close_connection = True
            if answer.reset:
                reset(handler.connection)
            return
        handler.send_response(answer.status)
        if answer.status != 204:
            handler.send_header("Content-Length", str(len(answer.body)))
        for name, text in answer.headers.items():
            handler.send_header(name, text)
        handler.end_headers()
        handler.wfile.write(answer.body)


class _Threads(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke, or a handshake that was refused: it happened on purpose."""


def _peer(one: socket.socket) -> str:
    certificate = one.getpeercert() if isinstance(one, ssl.SSLSocket) else None
    subject: Any = certificate.get("subject", ()) if certificate else ()
    return next((text for part in subject for name, text in part if name == "commonName"), "")


def reset(one: socket.socket) -> None:
    """Cut a connection with a reset, whoever reads from it."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RD)  # a thread that reads lets it go
    with contextlib.suppress(OSError):
        os.close(one.detach())


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The URL of a server that does whatever `serve` does with a connection, as long as the context lasts."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.sleep(0)


def in_turn(*answers: Answer) -> Callable[[Taken], Answer]:
    """The first request is told the first, and so on; after the last one all is well."""
    left = list(answers)
    return lambda _: left.pop(0) if left else GOOD


def context_for(authority: Pki, names: str = "DNS:localhost", *, clients: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", names))
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.certificate)
    return context


def audit_of(taken: Iterable[Taken]) -> Audit:
    """What the messages prove: bodies in edged's own JSON."""
    audit = Audit()
    for one in taken:
        audit.take(orjson.loads(one.plain))
    return audit


def audit_of_headers(taken: Iterable[Taken]) -> Audit:
    """What the headers alone prove."""
    audit = Audit()
    for one in taken:
        told: dict[str, Any] = {
            name.lower().removeprefix("edged-"): text for name, text in one.headers if name.lower().startswith("edged-")
        }
        audit.take(told | {name: int(told[name]) for name in ("first", "seq", "prev", "readings")})
    return audit
