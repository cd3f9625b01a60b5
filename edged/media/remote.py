"""A serial port behind a network: plain TCP, or RFC 2217 as pyserial speaks it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edged.errors import TransientError
from edged.model import Reason

from .settings import LineSettings, remote_address

if TYPE_CHECKING:
    import serial

_READ = 4096
_READ_TIMEOUT = 0.2
"""How long the reading thread of RFC 2217 may take to notice that it is to end."""


async def open_socket(
    settings: LineSettings, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]
) -> SocketPort:
    """Connect to `socket://…`. Raises TransientError `unreachable`."""
    host, number = remote_address(settings.port)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(settings.connect_timeout):
            _, port = await loop.create_connection(lambda: SocketPort(settings.port, on_data, on_lost), host, number)
    except (OSError, TimeoutError) as exc:
        raise _no_connection(settings, exc) from exc
    return port


def _no_connection(settings: LineSettings, exc: OSError | ValueError) -> TransientError:
    if isinstance(exc, TimeoutError):
        why = f"within {settings.connect_timeout:g} s"
    else:
        why = f"({getattr(exc, 'strerror', None) or exc})"
    return TransientError(
        f"no connection to {settings.port} {why}: is the serial server on, are address and port right?",
        reason=Reason.UNREACHABLE,
    )


class SocketPort(asyncio.Protocol):
    """The bytes of one TCP connection to a serial server."""

    def __init__(self, where: str, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self.where = where
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._on_data = on_data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Notice within half a minute when the other side has vanished without a word."""
        self._transport = transport  # type: ignore[assignment]  # a connection's is one
        sock: socket.socket = transport.get_extra_info("socket")
        # Keep-alives are not sent while something waits for its acknowledgement, which could last a quarter of an hour.
        options = {"NODELAY": 1, "KEEPIDLE": 10, "KEEPINTVL": 5, "KEEPCNT": 3, "USER_TIMEOUT": 25_000}
        for option, value in options.items():
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{option}"), value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        """Hand on."""
        self._on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell, unless we closed it."""
        if self._transport is not None:
            self._transport = None
            why = f" ({exc})" if exc else ""
            self._on_lost(f"{self.where} closed the connection{why}: does it allow only one, is it restarting?")

    def write(self, data: bytes) -> None:
        """Hand bytes to the kernel."""
        if self._transport is not None:
            self._transport.write(data)

    def sent(self) -> bool:
        """Nobody tells when a serial server has sent."""
        return True

    def set_rts(self, *, level: bool) -> None:
        """There is no such wire."""

    def errors(self) -> None:
        """Unknown."""

    def discard_output(self) -> None:
        """Too late."""

    def reconfigure(self, settings: LineSettings) -> None:
        """The server has its own settings."""

    def catch_up(self) -> bool:
        """Read what is there, past the event loop; whether there was anything. It tells when the other side is gone."""
        if self._transport is None:
            return False
        try:
            data = os.read(self._transport.get_extra_info("socket").fileno(), _READ)
        except OSError:
            return False
        if data:
            self._on_data(data)
        return bool(data)

    def close(self) -> None:
        """End the connection at once."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()


def open_rfc2217(settings: LineSettings) -> serial.SerialBase:
    """Connect and negotiate the line's settings. Blocks. Raises TransientError `unreachable`."""
    import serial  # noqa: PLC0415  # only who has such a port pays for it

    try:
        return serial.serial_for_url(
            settings.port,
            baudrate=settings.baudrate,
            bytesize=settings.bytesize,
            parity=settings.parity[0].upper(),
            stopbits=settings.stopbits,
            xonxoff=settings.xonxoff,
            rtscts=settings.rtscts,
            timeout=_READ_TIMEOUT,
        )
    except (OSError, ValueError) as exc:
        raise _no_connection(settings, exc) from exc


class Rfc2217Port:
    """pyserial's RFC 2217 client. It blocks, so that one thread reads and one writes."""

    def __init__(
        self, port: serial.SerialBase, where: str, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]
    ) -> None:
        self.where = where
        self._port = port
        self._on_data = on_data
        self._on_lost = on_lost
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._writer = ThreadPoolExecutor(1, f"write {where}")
        threading.Thread(target=self._read, name=f"read {where}", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Give bytes to the writing thread."""
        if not self._closed:
            self._writer.submit(self._write, data)

    def sent(self) -> bool:
        """Nobody tells when a serial server has sent."""
        return True

    def set_rts(self, *, level: bool) -> None:
        """Ask the server to set the wire."""
        self._writer.submit(setattr, self._port, "rts", level)

    def errors(self) -> None:
        """Unknown."""

    def discard_output(self) -> None:
        """Too late."""

    def reconfigure(self, settings: LineSettings) -> None:
        """Have the server change its line, after what was written."""
        shape = {"bytesize": settings.bytesize, "parity": settings.parity[0].upper(), "stopbits": settings.stopbits}
        if not self._closed:
            self._writer.submit(self._shape, {"baudrate": settings.baudrate, **shape})

    def catch_up(self) -> bool:
        """The event loop reads by itself."""
        return False

    def close(self) -> None:
        """End the connection, in the background: the threads notice by themselves."""
        if not self._closed:
            self._closed = True
            self._writer.submit(self._close)
            self._writer.shutdown(wait=False)

    def _read(self) -> None:
        try:
            while not self._closed:
                data = self._port.read(1)
                if data and (more := self._port.in_waiting):
                    data += self._port.read(more)
                if data:
                    self._in_loop(self._deliver, data)
        except OSError as exc:
            self._in_loop(self._lost, str(exc))

    def _write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except OSError as exc:
            self._in_loop(self._lost, str(exc))

    def _shape(self, settings: dict[str, object]) -> None:
        try:
            self._port.apply_settings(settings)
        except (OSError, ValueError) as exc:
            self._in_loop(self._lost, str(exc))

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._port.close()

    def _in_loop(self, call: Callable[..., None], argument: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is interested any more
            self._loop.call_soon_threadsafe(call, argument)

    def _deliver(self, data: bytes) -> None:
        if not self._closed:
            self._on_data(data)

    def _lost(self, why: str) -> None:
        if not self._closed:
            self.close()
            self._on_lost(f"{self.where} closed the connection ({why})")
