"""The server of the local API: a Unix socket, a bounded number of clients, each with a time-out."""

from __future__ import annotations

import asyncio
import logging
import pwd
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import h11

from edged.errors import ConfigError
from edged.httpd import begin, next_request, send

from .routes import ControlApi, answer

log = logging.getLogger("edged.control")

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
        request = await next_request(connection, reader)
        if request is None:
            return
        reply = await answer(
            self._api, request.method.decode(), request.target.decode("ascii", "replace"), _peer(writer)
        )
        kind = _LINES if reply.lines else _JSON
        begin(connection, writer, reply.status, kind)
        gone = asyncio.create_task(reader.read(), name="control client gone")
        sent = asyncio.create_task(send(connection, writer, reply.body), name="control reply")
        try:
            await asyncio.wait({gone, sent}, return_when=asyncio.FIRST_COMPLETED)
            if sent.done():
                sent.result()
        finally:
            gone.cancel()
            sent.cancel()
            await asyncio.wait({gone, sent})


def _peer(writer: asyncio.StreamWriter) -> str:
    """The name of the user at the other end, as the kernel knows it."""
    sock: socket.socket = writer.get_extra_info("socket")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


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
        raise ConfigError(
            f"the control socket {path} cannot be opened: {exc.strerror or exc}; name another place with --socket"
        ) from exc
    except ConfigError:
        listener.close()
        raise
    return listener
