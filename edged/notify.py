"""Telling systemd how we are (sd_notify): a datagram on the socket that it names. Does nothing when it names none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

_EXTENSION = 10.0
"""Seconds between two words that a start is still under way."""
_SPARE = 30.0
"""Seconds more than needed are asked for: a busy machine may be late to say so again."""
_PATIENCE = 900.0
"""Seconds after which what has not come to an end is taken to hang, and systemd may start edged again."""


def notify(*lines: str) -> None:
    """Send assignments such as `READY=1`, `STATUS=…`, `STOPPING=1` (man 3 sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # systemd may be gone or refuse: nothing that this process could do about it
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto("\n".join(lines).encode(), "\0" + address[1:] if address[0] == "@" else address)


def extend(seconds: float) -> str:
    """The assignment that asks for so many seconds more before a start or a stop counts as failed."""
    return f"EXTEND_TIMEOUT_USEC={round((seconds + _SPARE) * 1e6)}"


@contextlib.asynccontextmanager
async def patience() -> AsyncIterator[None]:
    """Keep systemd from giving up while the block, which may legally take minutes, runs; but not for ever."""

    async def ask() -> None:
        for _ in range(round(_PATIENCE / _EXTENSION)):
            notify(extend(_EXTENSION))
            await asyncio.sleep(_EXTENSION)

    asking = asyncio.create_task(ask(), name="patience")
    try:
        yield
    finally:
        asking.cancel()
