"""Listens on a port, admits clients, bounds and counts them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from edged.errors import ConfigError
from edged.uplink.api import ServerState
from edged.uplink.listening import ListeningConnection

log = logging.getLogger("edged.uplink")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]
"""Serves one client, whose address is the third argument, until it goes."""


class Listener:
    """Listens, admits clients and counts; what they ask is for `serve` to answer."""

    def __init__(self, name: str, config: ListeningConnection, serve: Serve) -> None:
        self._name = name
        self._config = config
        self._serve = serve
        self._clients: set[asyncio.StreamWriter] = set()
        self._listening = self._detail = ""
        self.requests = 0
        self.refused = 0

    def state(self) -> ServerState:
        """See `edged.uplink.api.Server`."""
        return ServerState(self._listening, len(self._clients), self.requests, self.refused, self._detail)

    async def run(self) -> None:
        """See `edged.uplink.api.Server`."""
        host, port = self._config.address
        try:
            server = await asyncio.start_server(self._client, host, port)
        except OSError as exc:
            self._detail = f"cannot listen on {self._config.listen}: {os.strerror(exc.errno) if exc.errno else exc}"
            hint = "; the service may not use ports below 1024: take another, such as 1502"
            raise ConfigError(self._detail + (hint if isinstance(exc, PermissionError) else "")) from exc
        self._listening, self._detail = self._config.listen, ""
        log.info("%s: listening on %s", self._name, self._listening)
        try:
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self._listening = ""
            server.close()
            for writer in self._clients:
                writer.transport.abort()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = str(writer.get_extra_info("peername", ("?",))[0])
        crowded = len(self._clients) >= self._config.max_clients
        if crowded or not self._config.admits(peer):
            why = "there are `max_clients` already" if crowded else "`allow` does not name it"
            log.warning("%s: %s may not connect: %s", self._name, peer, why)
            writer.close()
            return
        self._clients.add(writer)
        try:
            await self._serve(reader, writer, peer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as exc:
            log.debug("%s: %s went away: %s", self._name, peer, exc)
        except asyncio.CancelledError:
            pass  # the server stops; asyncio would log a cancelled handler as an error
        finally:
            self._clients.discard(writer)
            writer.close()
