"""The local API: HTTP/1.1 on a Unix socket, for `edged status`, `edged tail`, `edged read` and whoever may open it.

What it serves is in `routes.py`, one entry of a table for each; who may use it is decided by the permissions of the
socket file (mode 0660). HTTP itself is parsed by h11, in `server.py`.
"""

from __future__ import annotations

from .look import Look
from .records import poll_record, sample_record
from .routes import ROUTES, Ask, ControlApi, Reply
from .server import ControlServer

__all__ = ["ROUTES", "Ask", "ControlApi", "ControlServer", "Look", "Reply", "poll_record", "sample_record"]
