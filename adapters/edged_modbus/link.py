"""What a link is, and how to get hold of the machine at its other end.

A link carries one request at a time to a unit and brings back the reply that belongs to it, or says why there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from edged.adapter import Reason, TransientError
from edged.media import FrameRing

from .pdu import Request

T = TypeVar("T")
NETWORK_FRAMES = 256
"""So many pieces are kept of what went over each connection."""
Moment = tuple[int, int]
"""Wall clock and monotonic clock at one moment, microseconds."""


class Link(Protocol):
    """A way to the units of one bus. Connects, and connects again, by itself."""

    arrived: Moment
    """When the last reply was complete."""
    foreign: int
    """Frames that were no reply to the request under way (late, from another unit, of another shape), ever."""
    ring: FrameRing
    """What went over it lately."""
    news: list[str]
    """What a person should know once about the line. Whoever tells it takes it out."""

    async def exchange(self, unit: int, request: Request[T], within: float) -> T:
        """What the unit's reply to the request says.

        Raises TransientError: `timeout` (none came within so many seconds), `unreachable` or `protocol`; RefusedError
        or DeviceFailureError if the reply is an exception. However it ends, a reply that comes later is never taken for
        the reply to another request.
        """
        ...

    async def close(self) -> None:
        """Give the connection back. Idempotent; the next exchange opens a new one."""
        ...


def now() -> Moment:
    """The moment of the call."""
    return time.time_ns() // 1000, time.monotonic_ns() // 1000


def hexdump(data: bytes, most: int = 12) -> str:
    """The beginning of some bytes, for messages."""
    return data[:most].hex(" ") + (" …" if len(data) > most else "")


class Endpoint:
    """Where a bus is found: a host, which may have to be looked up, and a port.

    One per bus. A resolver that hangs occupies one thread, however often somebody wants to connect meanwhile.
    """

    def __init__(self, host: str, port: int, timeout: float, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self.host, self.port, self.timeout = host, port, timeout
        self._kind = kind
        self._lookup: asyncio.Task[list[str] | OSError] | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def open(self, attempt: Callable[[str], Awaitable[T]]) -> T:
        """The first success of `attempt` among the host's addresses.

        Raises TransientError `unreachable`, with what to try, for whatever stands in the way.
        """
        try:
            async with asyncio.timeout(self.timeout):
                return await self._first(await self._addresses(), attempt)
        except TimeoutError as exc:
            raise TransientError(self._too_long(), reason=Reason.UNREACHABLE) from exc
        except OSError as exc:
            raise TransientError(self._explain(exc), reason=Reason.UNREACHABLE) from exc

    def close(self) -> None:
        """Forget a look-up that is under way."""
        if self._lookup is not None:
            self._lookup.cancel()
            self._lookup = None

    async def _first(self, addresses: Sequence[str], attempt: Callable[[str], Awaitable[T]]) -> T:
        for address in addresses[:-1]:
            with contextlib.suppress(OSError):
                return await attempt(address)
        return await attempt(addresses[-1])

    async def _addresses(self) -> list[str]:
        try:
            return [str(ipaddress.ip_address(self.host))]
        except ValueError:
            pass
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._resolve(), name=f"look up {self.host}")
        found = await asyncio.shield(self._lookup)
        if isinstance(found, OSError):
            raise found
        return found

    async def _resolve(self) -> list[str] | OSError:
        """The addresses, or what went wrong: it may end when nobody is waiting any more."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=self._kind)
        except OSError as exc:
            return exc
        finally:
            self._lookup = None
        if self._kind == socket.SOCK_DGRAM:
            # Nothing refuses a datagram in time to try the next address, and devices have IPv4 first of all.
            found = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def _too_long(self) -> str:
        if self._lookup is not None:
            return (
                f"the name server does not say within {self.timeout:g} s where {self.host!r} is: "
                f"check it, or give an IP address"
            )
        return f"no connection to {self} within {self.timeout:g} s: is it on, is the cable in, is the address right?"

    def _explain(self, exc: OSError) -> str:
        if isinstance(exc, socket.gaierror):
            return f"there is no host {self.host!r} ({exc.strerror}): check the spelling, or give an IP address"
        if isinstance(exc, ssl.SSLCertVerificationError):
            return (
                f"{self} has a certificate that is not trusted ({exc.verify_message}): "
                f"check `ca` and `server_name`, and the clock of both sides"
            )
        if isinstance(exc, ssl.SSLError):
            what = (exc.reason or str(exc)).replace("_", " ").lower()
            return f"no TLS with {self} ({what}): does it speak TLS on this port, does it want a certificate of ours?"
        if isinstance(exc, ConnectionRefusedError):
            return f"{self} refuses the connection: check the port, and that Modbus is enabled in the device"
        if isinstance(exc, ConnectionError):
            return f"{self} drops the connection at once: it may allow fewer connections, or only some addresses"
        reason = exc.strerror or type(exc).__name__
        return f"no way to {self} ({reason}): check the cable, the address, and this machine's network settings"
