"""The local API: HTTP/1.1 on a Unix socket, for `edged status`, `edged tail`, `edged read` and whoever may open it.

    GET  /v1/status         what the daemon is doing (JSON)
    GET  /v1/tail           live samples, one JSON object a line, until the client goes; ?device=NAME filters
    POST /v1/read/DEVICE    poll a device once, out of turn (JSON)
    GET  /v1/buffer/export  stored samples, one JSON object a line; ?from=&to=&device= choose (microseconds since 1970)
    GET  /v1/buffer/ACTION  stats, verify, letters (JSON)
    POST /v1/buffer/ACTION  retry, purge, replay, repair, vacuum (JSON); ?connection=&id=&from=&to=&device=

Who may use it is decided by the permissions of the socket file (mode 0660). HTTP itself is parsed by h11.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import orjson

from edged.adapter import PollResult
from edged.buffer import service
from edged.buffer.log import Buffer
from edged.clock import iso
from edged.errors import ConfigError, EdgedError
from edged.hub import Hub
from edged.model import Sample

log = logging.getLogger("edged.control")

_IDLE = 30.0
"""Seconds a client may take for its request, or to take what is sent to it."""
_CLIENTS = 32
"""How many clients may be connected at once."""
_JSON = "application/json"
_LINES = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class ControlApi:
    """What the API gives access to."""

    status: Callable[[], Mapping[str, Any]]
    read: Callable[[str], Awaitable[list[PollResult]]]
    """Raises KeyError for an unknown device, EdgedError when it fails."""
    hub: Hub
    buffer: Callable[[], Buffer] | None = None


def sample_record(sample: Sample) -> dict[str, Any]:
    """A sample as one JSON object: time as text, values by point, quality where it is not good."""
    record: dict[str, Any] = {
        "device": sample.device,
        "time": iso(sample.time),
        "values": dict(zip(sample.points, sample.values, strict=True)),
    }
    if sample.quality:
        record["quality"] = {sample.points[i]: str(quality) for i, quality in sample.quality.items()}
    return record


def poll_record(result: PollResult) -> dict[str, Any]:
    """The result of a read as one JSON object: raw words, decoded samples, and what was learnt."""
    return {
        "samples": [sample_record(sample) for sample in result.samples],
        "raw": [asdict(raw) for raw in result.raw],
        "transactions": result.transactions,
        "notes": list(result.notes),
    }


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
        status, kind, body = await self._answer(request.method.decode(), request.target.decode("ascii", "replace"))
        head = h11.Response(
            status_code=status, headers=[("content-type", kind), ("connection", "close"), ("server", "edged")]
        )
        writer.write(connection.send(head) or b"")
        gone = asyncio.create_task(reader.read(), name="control client gone")
        sent = asyncio.create_task(_send(connection, writer, body), name="control reply")
        try:
            await asyncio.wait({gone, sent}, return_when=asyncio.FIRST_COMPLETED)
            if sent.done():
                sent.result()
        finally:
            gone.cancel()
            sent.cancel()
            await asyncio.wait({gone, sent})

    async def _answer(self, method: str, target: str) -> tuple[int, str, AsyncIterator[bytes]]:
        url = urlsplit(target)
        match method, url.path.strip("/").split("/"):
            case "GET", ["v1", "status"]:
                return 200, _JSON, _one(self._api.status())
            case "GET", ["v1", "tail"]:
                return 200, _LINES, self._tail(parse_qs(url.query).get("device", []))
            case "POST", ["v1", "read", device]:
                return await self._read(unquote(device))
            case "GET", ["v1", "buffer", "export"] if self._api.buffer:
                return 200, _LINES, _export(self._api.buffer(), parse_qs(url.query))
            case (("GET" | "POST"), ["v1", "buffer", action]) if self._api.buffer and action in service.ACTIONS:
                if (method == "GET") == (action in service.LOOKS):
                    return await _ask(self._api.buffer(), action, parse_qs(url.query))
        return 404, _JSON, _one({"error": f"there is no {method} {url.path}"})

    async def _read(self, device: str) -> tuple[int, str, AsyncIterator[bytes]]:
        try:
            results = await self._api.read(device)
        except KeyError:
            return 404, _JSON, _one({"error": f"there is no enabled device {device!r}"})
        except EdgedError as exc:
            return 502, _JSON, _one({"error": str(exc)})
        return 200, _JSON, _one([poll_record(result) for result in results])

    async def _tail(self, devices: list[str]) -> AsyncIterator[bytes]:
        with self._api.hub.subscribe() as samples:
            missed = 0
            yield b""  # the head goes out before the first sample comes
            async for sample in samples:
                if devices and sample.device not in devices:
                    continue
                if samples.missed > missed:
                    yield orjson.dumps({"missed": samples.missed - missed}, option=orjson.OPT_APPEND_NEWLINE)
                    missed = samples.missed
                yield orjson.dumps(sample_record(sample), option=orjson.OPT_APPEND_NEWLINE)


async def _ask(buffer: Buffer, action: str, options: service.Options) -> tuple[int, str, AsyncIterator[bytes]]:
    try:
        return 200, _JSON, _one(await service.perform(buffer, action, options))
    except EdgedError as exc:
        return 409, _JSON, _one({"error": str(exc)})


async def _export(buffer: Buffer, options: service.Options) -> AsyncIterator[bytes]:
    yield b""
    try:
        async for seq, sample in service.export(buffer, options):
            yield orjson.dumps({"seq": seq, **sample_record(sample)}, option=orjson.OPT_APPEND_NEWLINE)
    except EdgedError as exc:
        yield orjson.dumps({"error": str(exc)}, option=orjson.OPT_APPEND_NEWLINE)


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, body: AsyncIterator[bytes]) -> None:
    async for part in body:
        writer.write(connection.send(h11.Data(data=part)) or b"")
        async with asyncio.timeout(_IDLE):
            await writer.drain()
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    async with asyncio.timeout(_IDLE):
        await writer.drain()


async def _one(record: Any) -> AsyncIterator[bytes]:
    yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


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
