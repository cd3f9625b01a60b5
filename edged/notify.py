"""Telling systemd how we are (sd_notify): a datagram on the socket that it names. Does nothing when it names none."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*lines: str) -> None:
    """Send assignments such as `READY=1`, `STATUS=…`, `STOPPING=1` (man 3 sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # systemd may be gone or refuse: nothing that this process could do about it
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto("\n".join(lines).encode(), "\0" + address[1:] if address[0] == "@" else address)
