"""The server of the local API: a Unix socket, a bounded number of clients, each with a time-out."""

from __future__ import annotations

import asyncio
import logging
import pwd
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import h11

from edged.errors import ConfigError

from .routes import ControlApi, answer

log = logging.getLogger("edged.control")

_IDLE = 30.0
"""Seconds a client may take for its request, or to take what is sent to it."""
_CLIENTS = 32
"""How many clients may be connected at once."""
_JSON = "application/json"
_LINES = "application/x-ndjson"


class ControlServer:
    """Serves the API until cancelled."""

    def __init__(self, path: Path, api: ControlApi) -> None:
        self._path = path
        self._api = api
        self._clients = 0

    async def run(self, *, started: Callable[[], None] = lambda: None) -> None:
        """Listen and serve. Raises ConfigError when the socket cannot be had."""
        listener = _listen(self._path)
        server = await asyncio.start_unix_server(self._client, sock=listener)
        try:
            started()
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            server.close()
            self._path.unlink(missing_ok=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients > _CLIENTS:
                return
            await self._serve(reader, writer)
        except (OSError, TimeoutError, h11.RemoteProtocolError, h11.LocalProtocolError) as exc:
            log.debug("a client of the control socket went away: %s", exc)
        except asyncio.CancelledError:
            pass  # the daemon stops; asyncio's server would log a cancelled handler as an error
        finally:
            self._clients -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        async with asyncio.timeout(_IDLE):
            request = await _next_request(connection, reader)
        if request is None:
            return
        reply = await answer(
            self._api, request.method.decode(), request.target.decode("ascii", "replace"), _peer(writer)
        )
        kind = _LINES if reply.lines else _JSON
        head = h11.Response(
            status_code=reply.status, headers=[("content-type", kind), ("connection", "close"), ("server", "edged")]
        )
        writer.write(connection.send(head) or b"")
        gone = asyncio.create_task(reader.read(), name="control client gone")
        sent = asyncio.create_task(_send(connection, writer, reply.body), name="control reply")
        try:
            await asyncio.wait({gone, sent}, return_when=asyncio.FIRST_COMPLETED)
            if sent.done():
                sent.result()
        finally:
            gone.cancel()
            sent.cancel()
            await asyncio.wait({gone, sent})


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, body: AsyncIterator[bytes]) -> None:
    async for part in body:
        writer.write(connection.send(h11.Data(data=part)) or b"")
        async with asyncio.timeout(_IDLE):
            await writer.drain()
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    async with asyncio.timeout(_IDLE):
        await writer.drain()


def _peer(writer: asyncio.StreamWriter) -> str:
    """The name of the user at the other end, as the kernel knows it."""
    sock: socket.socket = writer.get_extra_info("socket")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


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


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, taking over one that a crashed daemon left. Raises ConfigError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1)
                if probe.connect_ex(str(path)) == 0:
                    raise ConfigError(
                        f"another edged already answers on {path}; stop it, or give this one its own socket"
                    )
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(_CLIENTS)
    except OSError as exc:
        listener.close()
        raise ConfigError(f"the control socket {path} cannot be opened: {exc.strerror or exc}") from exc
    except ConfigError:
        listener.close()
        raise
    return listener
