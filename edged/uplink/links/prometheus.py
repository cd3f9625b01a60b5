"""Answers HTTP requests for the metrics of the connector `prometheus`."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Mapping

import h11

from edged.config.base import DeviceConfig
from edged.downlink.api import TwinPoint
from edged.httpd import begin, next_request, send
from edged.uplink.api import ConnectionContext, ServerState
from edged.uplink.dialects.prometheus import CONTENT_TYPE, exposed_health, exposed_readings
from edged.uplink.links.listener import Listener
from edged.uplink.listening import ListeningConnection

_PATH = "/metrics"
_PLAIN = "text/plain; charset=utf-8"
_OK = 200


class PrometheusServer:
    """Answers clients; see `edged.uplink.api.Server`."""

    def __init__(self, config: ListeningConnection, context: ConnectionContext, token: str) -> None:
        self._context = context
        self._expected = f"Bearer {token}".encode() if token else b""
        self._listener = Listener(context.name, config, self._serve)

    def state(self) -> ServerState:
        """See `edged.uplink.api.Server`."""
        return self._listener.state()

    async def run(self) -> None:
        """See `edged.uplink.api.Server`."""
        await self._listener.run()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _peer: str) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            request = await next_request(connection, reader)
            if request is None:
                return
            self._listener.requests += 1
            status, text = self._verdict(request)
            if status != _OK:
                self._listener.refused += 1
            begin(connection, writer, status, CONTENT_TYPE if status == _OK else _PLAIN)
            head = request.method == b"HEAD"
            await send(connection, writer, _nothing() if head else self._metrics() if not text else _said(text))
        except h11.ProtocolError:
            self._listener.refused += 1

    def _verdict(self, request: h11.Request) -> tuple[int, str]:
        """HTTP status, and what to say if that is not 200."""
        given = dict(request.headers).get(b"authorization", b"")
        if self._expected and not hmac.compare_digest(given, self._expected):
            return 401, "this gateway wants a bearer token: set `authorization: {credentials: …}` in Prometheus\n"
        if request.method not in {b"GET", b"HEAD"}:
            return 405, "only GET\n"
        if request.target.partition(b"?")[0].decode("ascii", "replace") != _PATH:
            return 404, f"the metrics are under {_PATH}\n"
        return _OK, ""

    async def _metrics(self) -> AsyncIterator[bytes]:
        known = [one async for one in self._known()]
        for text in exposed_readings(known):
            if text:
                yield text.encode()
            await asyncio.sleep(0)  # many devices must not hold up the polls
        for text in exposed_health(self._context.status()):
            if text:
                yield text.encode()

    async def _known(self) -> AsyncIterator[tuple[str, DeviceConfig, Mapping[str, TwinPoint]]]:
        twin = self._context.twin
        for name, device in list(self._context.devices.items()):
            if twin is not None and device.enabled:
                yield name, device, await twin.device(name)


async def _said(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
