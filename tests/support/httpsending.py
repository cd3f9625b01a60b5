"""A gateway that sends by HTTP, and what its server got."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from edged.config.types import Duration
from tests.support.forwarding import Gateway, assert_complete, gateway
from tests.support.httpserver import (
    HttpServer,
    audit_of,
)

WINDOW = 4


def sending(path: Path, url: str, **settings: Any) -> Any:
    """A gateway that sends there."""
    quick = {"response_timeout": Duration(1.5), "retry_max": Duration(0.2), "connector": "http", **settings}
    return gateway(path / "buffer.db", 0, url=url, **quick)


async def poll(one: Gateway, count: int, pause: float = 0.02) -> None:
    for _ in range(count):
        one.poll(1)
        await asyncio.sleep(pause)


def assert_all_there(server: HttpServer, one: Gateway, polls: int, *, duplicates: int = 0) -> None:
    audit = audit_of(server.taken)
    assert_complete(audit, one, duplicates=duplicates)
    assert audit.readings == polls * 500
